package identity

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	calendarPrefix = "lkf_"
	// calendarPath is where scheduling serves feeds. The token is in the query, which no
	// log has.
	calendarPath = "/calendar.ics?token="
)

// calendarMethod is all that a feed opens, and calendarScopes what that needs.
const calendarMethod = schedulingpb.AppointmentService_ListMySchedule_FullMethodName

var calendarScopes = scopesOf([]string{"My Schedule:Appointments"})

// ConnectCalendar implements pb.CalendarServiceServer.
func (s *service) ConnectCalendar(ctx context.Context, req *pb.ConnectCalendarRequest) (*pb.ConnectCalendarResponse, error) {
	caller := authz.Caller(ctx)
	secret, tokenID := s.newSecret(calendarPrefix)
	id := s.newID()
	var resp *pb.ConnectCalendarResponse
	connect := func(ctx context.Context) (tags []string, err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.ConnectCalendarResponse, error) {
			if err := admit(tx, callerAsSubject(caller), pathConnect); err != nil {
				return nil, err
			}
			tags = endCalendar(tx, caller.Organization, caller.ID)
			c := &pb.CalendarConnection{Id: id, UserId: caller.ID, OrganizationId: caller.Organization}
			if err := calendars.Put(tx, c); err != nil {
				return nil, err
			}
			return &pb.ConnectCalendarResponse{CalendarConnection: c}, tokens.Put(tx, &identitystorepb.SessionToken{Id: tokenID, SessionId: id})
		})
		return tags, err
	}
	if req.GetValidateOnly() {
		_, err := connect(ctx)
		return resp, err
	}
	if err := s.shutOutAll(ctx, connect); err != nil {
		return nil, err
	}
	if resp.GetCalendarConnection().GetId() == id {
		resp.FeedToken, resp.Path = secret, calendarPath+secret
	}
	return resp, nil
}

// GetCalendarConnection implements pb.CalendarServiceServer.
func (s *service) GetCalendarConnection(ctx context.Context, _ *pb.GetCalendarConnectionRequest) (*pb.GetCalendarConnectionResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetCalendarConnectionResponse, error) {
		c, err := calendarOf(tx, authz.Caller(ctx))
		if err != nil {
			return nil, err
		}
		use, _ := sessionUses.Get(tx, c.GetId())
		c.LastReadTime = use.GetLastSeenTime()
		return &pb.GetCalendarConnectionResponse{CalendarConnection: c}, err
	})
}

// DisconnectCalendar implements pb.CalendarServiceServer.
func (s *service) DisconnectCalendar(ctx context.Context, req *pb.DisconnectCalendarRequest) (*pb.DisconnectCalendarResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	resp := &pb.DisconnectCalendarResponse{}
	end := func(ctx context.Context) (tags []string, err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.DisconnectCalendarResponse, error) {
			c, err := calendarOf(tx, caller)
			if err != nil {
				return nil, err
			}
			if err := calendars.Match(c, req.GetEtag()); err != nil {
				return nil, err
			}
			tags = endCalendar(tx, caller.Organization, caller.ID)
			return &pb.DisconnectCalendarResponse{}, nil
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

func calendarOf(tx *store.Tx, caller *authz.Principal) (*pb.CalendarConnection, error) {
	c, ok := calendarByUser.First(tx, caller.Organization, caller.ID)
	if !ok {
		return nil, fault.NotFound("calendar_connection", caller.ID)
	}
	return c, nil
}

// endCalendar ends a person's feed in an organization, if there is one, and returns the
// tags of what it ended.
func endCalendar(tx *store.Tx, organization, user string) (tags []string) {
	c, ok := calendarByUser.First(tx, organization, user)
	if !ok {
		return nil
	}
	endTokens(tx, c.GetId())
	sessionUses.Delete(tx, c.GetId())
	calendars.Delete(tx, c.GetId())
	return []string{sessionTag(c.GetId())}
}

// hoursOfCalendar finds out when a feed may be read. It is no app, and so as an API's session
// it has the hours of whoever may not use the web.
func (s *service) hoursOfCalendar(ctx context.Context, c *pb.CalendarConnection) (*hours, error) {
	return s.hoursOf(ctx, c.GetOrganizationId(), c.GetUserId(), pb.Surface_SURFACE_API)
}

// resolveCalendar answers whose feed it is. To other services it is a session that calls
// one method.
func resolveCalendar(tx *store.Tx, c *pb.CalendarConnection, named string, h *hours) (*pb.SessionFacts, error) {
	who := subject{organization: c.GetOrganizationId(), user: c.GetUserId(), calendar: c.GetId(), named: named, hours: h}
	if err := admit(tx, who, pathCalendar); err != nil {
		return nil, err
	}
	return &pb.SessionFacts{
		SessionId: c.GetId(), UserId: c.GetUserId(), OrganizationId: c.GetOrganizationId(), Surface: pb.Surface_SURFACE_API,
		ExpireTime: timestamppb.New(hoursAt(tx, who).bound(tx.Now().Add(hoursEvery))),
		Scopes:     calendarScopes.Bytes(), OnlyMethod: calendarMethod[1:],
	}, nil
}

// noteRead writes down that a feed was read, once in seenEvery.
func (s *service) noteRead(ctx context.Context, id string) {
	s.noteOnce(ctx, id, func(tx *store.Tx) bool {
		use, _ := sessionUses.Get(tx, id)
		return !calendars.Has(tx, id) || tx.Now().Sub(use.GetLastSeenTime().AsTime()) < seenEvery
	})
}

// calendarEnded holds when a feed was disconnected.
func calendarEnded(tx *store.Tx, s subject) bool { return !calendars.Has(tx, s.calendar) }
