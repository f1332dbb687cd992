package servicerequest

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// maxTeams is on how many teams a user can be. It bounds the ranges that a list of
// his reads.
const maxTeams = 1000

func (s *service) AddUserToProperty(ctx context.Context, req *pb.AddUserToPropertyRequest) (*pb.AddUserToPropertyResponse, error) {
	active, err := s.lookup(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	id := s.newID()
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.AddUserToPropertyResponse, error) {
		if _, err := findProperty(ctx, tx, req.GetPropertyId()); err != nil {
			return nil, err
		}
		if err := active.mustHold(req.GetUserId()); err != nil {
			return nil, err
		}
		m, err := join(tx, id, req.GetPropertyId(), req.GetUserId())
		return &pb.AddUserToPropertyResponse{Member: m}, err
	})
}

func (s *service) RemoveUserFromProperty(ctx context.Context, req *pb.RemoveUserFromPropertyRequest) (*pb.RemoveUserFromPropertyResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.RemoveUserFromPropertyResponse, error) {
		if _, err := findProperty(ctx, tx, req.GetPropertyId()); err != nil {
			return nil, err
		}
		m, ok := memberUser.First(tx, req.GetPropertyId(), req.GetUserId())
		if !ok {
			return nil, fault.NotFound(members.Name(), req.GetUserId())
		}
		if !others(tx, m) {
			return nil, fault.Refused("a property needs a team: add somebody else first")
		}
		members.Delete(tx, m.GetId())
		return &pb.RemoveUserFromPropertyResponse{}, nil
	})
}

func (s *service) ListPropertyTeam(ctx context.Context, req *pb.ListPropertyTeamRequest) (*pb.ListPropertyTeamResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListPropertyTeamResponse, error) {
		if _, err := findProperty(ctx, tx, req.GetPropertyId()); err != nil {
			return nil, err
		}
		page, next, err := store.Page(tx, req, nil, memberProperty.Range(req.GetPropertyId()))
		return &pb.ListPropertyTeamResponse{Members: page, NextPageToken: next}, err
	})
}

func (s *service) LookupPropertyTeams(ctx context.Context, req *pb.LookupPropertyTeamsRequest) (*pb.LookupPropertyTeamsResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.LookupPropertyTeamsResponse, error) {
		return &pb.LookupPropertyTeamsResponse{PropertyIds: teams(tx, req.GetUserId())}, nil
	})
}

// onTeam tells whether the user is on the team of the property.
func onTeam(tx *store.Tx, property, user string) bool {
	return memberUser.Count(tx, memberUser.Range(property, user)) > 0
}

// teams returns the properties on whose team the user is.
func teams(tx *store.Tx, user string) []string {
	var ids []string
	for m := range memberTeams.Scan(tx, memberTeams.Range(user)) {
		ids = append(ids, m.GetPropertyId())
	}
	return ids
}

// others tells whether anybody else is on the member's team.
func others(tx *store.Tx, m *pb.PropertyTeamMember) bool {
	for other := range memberProperty.Scan(tx, memberProperty.Range(m.GetPropertyId())) {
		if other.GetId() != m.GetId() {
			return true
		}
	}
	return false
}

// join puts a user on the team of a property.
func join(tx *store.Tx, id, property, user string) (*pb.PropertyTeamMember, error) {
	if memberTeams.Count(tx, memberTeams.Range(user)) >= maxTeams {
		return nil, fault.Refused("nobody is on more than %d teams: take the user off another one first", maxTeams)
	}
	m := &pb.PropertyTeamMember{Id: id, PropertyId: property, UserId: user}
	return m, members.Put(tx, m)
}
