package permissions

import (
	"context"

	"google.golang.org/protobuf/proto"

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
		resp := compare(l.side(first), l.side(second))
		resp.Revision = l.revision()
		return resp, nil
	})
}

// party returns one side of a comparison. A role and a group say what they say for service
// agents, too.
func (l *loader) party(p *pb.Party) (*access, error) {
	a := &access{plan: l.plan, agent: true}
	switch who := p.GetParty().(type) {
	case *pb.Party_RoleId:
		if a.role = l.role(who.RoleId); a.role.id == "" {
			return nil, fault.NotFound("role", who.RoleId)
		}
	case *pb.Party_GroupId:
		if a.group = l.team(who.GroupId); a.group.id == "" {
			return nil, fault.NotFound("group", who.GroupId)
		}
		a.role = a.group.role
	case *pb.Party_UserId:
		a = l.access(l.user(who.UserId))
	}
	return a, nil
}

// side is what one side of a comparison holds.
type side struct {
	set      catalog.Set // keys, and boolean settings that give something
	settings values
	agent    bool
}

func (l *loader) side(a *access) side {
	set, _ := a.grants(l.now)
	return side{set.Without(allFeatures).Without(restrictions), a.settings(), a.agent}
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

func compare(first, second side) *pb.CompareAccessResponse {
	resp := &pb.CompareAccessResponse{
		FirstOnly: keyNames(first.set.Without(second.set)), SecondOnly: keyNames(second.set.Without(first.set)),
		Both:      keyNames(first.set.Intersection(second.set)),
		FirstMore: more(second, first), SecondMore: more(first, second),
	}
	if a, b := first.settings.effective(), second.settings.effective(); !proto.Equal(a, b) {
		resp.FirstSettings, resp.SecondSettings = a, b
	}
	resp.Relation = relationOf(resp)
	return resp
}

// more returns the settings by which b may do more than a, of those that are in no set. What
// bounds service agents bounds nobody else, so it is compared between two of them.
func more(a, b side) (names []string) {
	for i, name := range settingNames {
		n := i + 1
		switch {
		case boolSettings.has(n) && !restricting.has(n):
		case agentSettings.has(n) && !(a.agent && b.agent):
		case raised(n, a.settings, b.settings):
			names = append(names, name)
		}
	}
	return names
}

func relationOf(c *pb.CompareAccessResponse) pb.Relation {
	first, second := len(c.GetFirstOnly())+len(c.GetFirstMore()) > 0, len(c.GetSecondOnly())+len(c.GetSecondMore()) > 0
	switch {
	case !first && !second:
		return pb.Relation_RELATION_EQUIVALENT
	case !first:
		return pb.Relation_RELATION_FIRST_WITHIN_SECOND
	case !second:
		return pb.Relation_RELATION_SECOND_WITHIN_FIRST
	case len(c.GetBoth()) > 0:
		return pb.Relation_RELATION_OVERLAPPING
	}
	return pb.Relation_RELATION_DISJOINT
}
