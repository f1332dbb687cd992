package permissions

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// CompareAccess compares what two roles, groups or users hold.
func (s *service) CompareAccess(ctx context.Context, req *pb.CompareAccessRequest) (*pb.CompareAccessResponse, error) {
	for _, p := range []*pb.Party{req.GetFirst(), req.GetSecond()} {
		if p.GetUserId() == "" {
			continue
		}
		if err := s.mustKnow(ctx, p.GetUserId()); err != nil {
			return nil, err
		}
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.CompareAccessResponse, error) {
		l := newLoader(tx)
		first, err := l.party(req.GetFirst())
		if err != nil {
			return nil, err
		}
		second, err := l.party(req.GetSecond())
		if err != nil {
			return nil, err
		}
		resp := compare(first, second)
		resp.Revision = l.revision()
		return resp, nil
	})
}

// party returns what one side of a comparison holds.
func (l *loader) party(p *pb.Party) (catalog.Set, error) {
	a := &access{plan: l.plan}
	switch who := p.GetParty().(type) {
	case *pb.Party_RoleId:
		if a.role = l.role(who.RoleId); a.role.id == "" {
			return catalog.Set{}, fault.NotFound("role", who.RoleId)
		}
	case *pb.Party_GroupId:
		if a.group = l.team(who.GroupId); a.group.id == "" {
			return catalog.Set{}, fault.NotFound("group", who.GroupId)
		}
		a.role = a.group.role
	case *pb.Party_UserId:
		a = l.access(l.user(who.UserId))
	}
	set, _ := a.grants(l.now)
	return set.Without(allFeatures).Without(restrictions), nil
}

// restrictions is the settings that take away when they are on.
var restrictions = func() (set catalog.Set) {
	for n, b := range settingBits {
		if boolSettings.has(n) && restricting.has(n) {
			set.Add(b)
		}
	}
	return set
}()

func compare(first, second catalog.Set) *pb.CompareAccessResponse {
	return &pb.CompareAccessResponse{
		Relation:  relationOf(first, second),
		FirstOnly: keyNames(first.Without(second)), SecondOnly: keyNames(second.Without(first)),
		Both: keyNames(first.Without(first.Without(second))),
	}
}

func relationOf(first, second catalog.Set) pb.Relation {
	switch {
	case first == second:
		return pb.Relation_RELATION_EQUIVALENT
	case second.Contains(first):
		return pb.Relation_RELATION_FIRST_WITHIN_SECOND
	case first.Contains(second):
		return pb.Relation_RELATION_SECOND_WITHIN_FIRST
	case first.Intersects(second):
		return pb.Relation_RELATION_OVERLAPPING
	}
	return pb.Relation_RELATION_DISJOINT
}
