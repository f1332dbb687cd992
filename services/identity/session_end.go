package identity

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// EndSession implements pb.SessionServiceServer.
func (s *service) EndSession(ctx context.Context, req *pb.EndSessionRequest) (*pb.EndSessionResponse, error) {
	caller := authz.Caller(ctx)
	id := req.GetId()
	if id == "" {
		id = caller.SessionID
	}
	if id != caller.SessionID && !caller.InPerson() {
		return nil, inPersonOnly()
	}
	resp := &pb.EndSessionResponse{}
	tags := []string{sessionTag(id)}
	end := func(ctx context.Context) (_ []string, err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.EndSessionResponse, error) {
			session, ok := sessions.Get(tx, id)
			if !ok || session.GetUserId() != caller.ID {
				return nil, fault.NotFound("session", id)
			}
			if err := sessions.Match(session, req.GetEtag()); err != nil {
				return nil, err
			}
			tags = append(tags[:1], dependents(tx, id)...)
			endSession(tx, id)
			return resp, noteEnd(tx, id)
		})
		return tags, err
	}
	if req.GetValidateOnly() {
		_, err := end(ctx)
		return resp, err
	}
	if err := s.shutOutAll(ctx, end); err != nil {
		return nil, err
	}
	return resp, nil
}

// ListMySessions implements pb.SessionServiceServer.
func (s *service) ListMySessions(ctx context.Context, req *pb.ListMySessionsRequest) (*pb.ListMySessionsResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListMySessionsResponse, error) {
		live := func(session *pb.Session) bool { return session.GetExpireTime().AsTime().After(tx.Now()) }
		page, next, err := store.Page(tx, req, live, sessionsByUser.Range(authz.Caller(ctx).ID))
		return &pb.ListMySessionsResponse{Sessions: seen(tx, page), NextPageToken: next}, err
	})
}

// seen adds to sessions when each was last used.
func seen(tx *store.Tx, list []*pb.Session) []*pb.Session {
	for _, session := range list {
		session.LastSeenTime = timestamppb.New(lastSeen(tx, session))
	}
	return list
}

// EndOtherSessions implements pb.SessionServiceServer.
func (s *service) EndOtherSessions(ctx context.Context, req *pb.EndOtherSessionsRequest) (*pb.EndOtherSessionsResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	var resp *pb.EndOtherSessionsResponse
	end := func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.EndOtherSessionsResponse, error) {
			n, err := endThese(tx, caller.ID, func(session *pb.Session) bool { return session.GetId() != caller.SessionID })
			return &pb.EndOtherSessionsResponse{Ended: n}, err
		})
		return err
	}
	return resp, s.shutOutUnless(ctx, req.GetValidateOnly(), end, userTag(caller.ID))
}

// endThese ends sessions of a person, and tells how many. Of those that somebody else
// opened it notes that they have ended.
func endThese(tx *store.Tx, user string, which func(*pb.Session) bool) (n int32, err error) {
	endSessions(tx, user, func(session *pb.Session) bool {
		if err != nil || !which(session) {
			return false
		}
		n++
		err = noteEnd(tx, session.GetId())
		return true
	})
	return n, err
}

// ListUserSessions implements pb.SessionServiceServer.
func (s *service) ListUserSessions(ctx context.Context, req *pb.ListUserSessionsRequest) (*pb.ListUserSessionsResponse, error) {
	if err := s.checkMember(ctx, req.GetUserId()); err != nil {
		return nil, err
	}
	organization := authz.Caller(ctx).Organization
	return read(ctx, s, func(tx *store.Tx) (*pb.ListUserSessionsResponse, error) {
		live := func(session *pb.Session) bool {
			return session.GetOrganizationId() == organization && session.GetExpireTime().AsTime().After(tx.Now())
		}
		page, next, err := store.Page(tx, req, live, sessionsByUser.Range(req.GetUserId()))
		return &pb.ListUserSessionsResponse{Sessions: seen(tx, page), NextPageToken: next}, err
	})
}

// EndUserSessions implements pb.SessionServiceServer.
func (s *service) EndUserSessions(ctx context.Context, req *pb.EndUserSessionsRequest) (*pb.EndUserSessionsResponse, error) {
	if err := s.checkMember(ctx, req.GetUserId()); err != nil {
		return nil, err
	}
	organization := authz.Caller(ctx).Organization
	var resp *pb.EndUserSessionsResponse
	end := func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.EndUserSessionsResponse, error) {
			n, err := endThese(tx, req.GetUserId(), func(session *pb.Session) bool {
				named := req.GetSessionId() == "" || req.GetSessionId() == session.GetId()
				return named && session.GetOrganizationId() == organization
			})
			if err == nil && n == 0 && req.GetSessionId() != "" {
				err = fault.NotFound("session", req.GetSessionId())
			}
			return &pb.EndUserSessionsResponse{Ended: n}, err
		})
		return err
	}
	return resp, s.shutOutUnless(ctx, req.GetValidateOnly(), end, userTag(req.GetUserId()))
}
