package permissions

import (
	"context"
	"iter"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	ownerRole = "OW"
	// maxOwners is how many owners are asked about. One of them that stays is enough.
	maxOwners = 50
	// maxCandidates bounds the search for them.
	maxCandidates = 10_000
)

var (
	ownerKey = catalog.MustGrant("Organization: Owner")
	usersKey = catalog.MustGrant("Organization: Users")
	rolesKey = catalog.MustGrant("Organizations: Roles")
)

// owns reports whether the user is an owner who can do an owner's work, now and at each
// instant at which an override of his ends. Who is one by a role of the brand does not
// count: the brand can change it, and an organization keeps an owner whatever its brand does.
func (a *access) owns(now time.Time) bool {
	if a.role.brand {
		own := *a
		own.role = baseline{}
		a = &own
	}
	for _, at := range instants(now, a) {
		keys := a.keys(at, allFeatures)
		if !keys.Has(ownerKey) || !keys.Has(usersKey) {
			return false
		}
	}
	return true
}

// owners returns the ids of at most maxOwners users who count as owners.
func (l *loader) owners() []string {
	var found []string
	seen := map[string]bool{}
	for u := range l.ownerCandidates() {
		if len(seen) == maxCandidates || len(found) == maxOwners {
			break
		}
		if seen[u.GetId()] {
			continue
		}
		seen[u.GetId()] = true
		if u.GetLeaveTime().AsTime().After(l.now) {
			continue
		}
		if l.access(u).owns(l.now) {
			found = append(found, u.GetId())
		}
	}
	return found
}

// ownerCandidates yields everybody whose role, group or overrides could make him an
// owner, some of them several times.
func (l *loader) ownerCandidates() iter.Seq[*pb.UserAccess] {
	return func(yield func(*pb.UserAccess) bool) {
		for _, users := range l.ownerSources() {
			for u := range users {
				if !yield(u) {
					return
				}
			}
		}
	}
}

func (l *loader) ownerSources() []iter.Seq[*pb.UserAccess] {
	sources := []iter.Seq[*pb.UserAccess]{
		l.withRole(ownerRole),
		accessByOverride.Scan(l.tx, accessByOverride.Range(ownerKey.String())),
	}
	for r := range roles.All(l.tx) {
		if l.role(r.GetId()).keys.Has(ownerKey) {
			sources = append(sources, l.withRole(r.GetId()))
		}
	}
	for g := range groups.All(l.tx) {
		t := l.team(g.GetId())
		if t.grants.Has(ownerKey) || t.role.keys.Has(ownerKey) {
			sources = append(sources, l.inGroup(g.GetId()))
		}
	}
	return sources
}

// withRole yields the users whose own role it is, be they in a group or not.
func (l *loader) withRole(id string) iter.Seq[*pb.UserAccess] {
	return accessByRole.Scan(l.tx, accessByRole.Range(id))
}

// inGroup yields the users of a group.
func (l *loader) inGroup(id string) iter.Seq[*pb.UserAccess] {
	return accessByGroup.Scan(l.tx, accessByGroup.Range(id))
}

// keepOwner returns nil if one of the active members, but for one, is an owner.
func (l *loader) keepOwner(active map[string]bool, but string) error {
	for _, id := range l.owners() {
		if active[id] && id != but {
			return nil
		}
	}
	return lastOwner()
}

func lastOwner() error {
	return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_LAST_OWNER,
		"the organization would be left without an owner, and one by a role of the brand does not count: make somebody else an owner first", nil)
}

// ownersAnd returns which of the organization's owners, and of these users, are
// active members and persons: a service account cannot sign in to do an owner's work. It
// fails with NOT_FOUND if one of the users is no active member; an empty one does not
// count.
func (s *service) ownersAnd(ctx context.Context, users ...string) (map[string]bool, error) {
	users = withoutEmpty(users...)
	var ids []string
	err := s.db.View(ctx, func(tx *store.Tx) error {
		ids = newLoader(tx).owners()
		return nil
	})
	if err != nil {
		return nil, err
	}
	persons, err := s.persons(ctx, append(ids, users...)...)
	if err != nil {
		return nil, err
	}
	for _, id := range users {
		if _, ok := persons[id]; !ok {
			return nil, fault.NotFound("user", id)
		}
	}
	return persons, nil
}

// persons tells of those of the users who are active members which are persons.
func (s *service) persons(ctx context.Context, users ...string) (map[string]bool, error) {
	persons := map[string]bool{}
	if len(users) == 0 {
		return persons, nil
	}
	found, err := s.lookUp(ctx, &identitypb.LookupMembersRequest{UserIds: users})
	for _, m := range found {
		persons[m.GetUserId()] = !m.GetServiceAccount()
	}
	return persons, err
}

func withoutEmpty(ids ...string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == "" })
}
