package permissions

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

const (
	// maxLooked is how many users of a role are looked at.
	maxLooked = 1_000_000
	// maxAsked is how many users one question to a service is about, and maxAskedTogether
	// how many if it does not tell them apart.
	maxAsked         = 100
	maxAskedTogether = 10_000
)

// counters are the services that count what is used.
var counters = []string{"identity", "invoicing", source, "scheduling", "servicerequest"}

// counts reads what a service has counted.
type counts struct {
	service string
	client  decisionpb.DecisionServiceClient
}

func dialCounts(env *server.Env) (all []counts) {
	for _, service := range counters {
		all = append(all, counts{service, decisionpb.NewDecisionServiceClient(env.Conn(service))})
	}
	return all
}

// subjectOf is whom a question about usage is about.
type subjectOf interface {
	GetUserId() string
	GetRoleId() string
	GetDays() int32
}

// ListUnusedKeys lists the keys that are granted and were not used.
func (s *service) ListUnusedKeys(ctx context.Context, req *pb.ListUnusedKeysRequest) (*pb.ListUnusedKeysResponse, error) {
	granted, users, err := s.granted(ctx, req)
	if err != nil {
		return nil, err
	}
	from := s.firstDay(req)
	last, err := s.lastUses(ctx, users)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListUnusedKeysResponse{Users: int32(len(users)), FromDay: from}
	for key := range granted.Without(last.since(from)).All() {
		resp.Keys = append(resp.Keys, &pb.UnusedKey{Key: key.String(), LastDay: last[key]})
	}
	return resp, nil
}

// SuggestRole suggests the keys that would have allowed what was done.
func (s *service) SuggestRole(ctx context.Context, req *pb.SuggestRoleRequest) (*pb.SuggestRoleResponse, error) {
	_, users, err := s.granted(ctx, req)
	if err != nil {
		return nil, err
	}
	from := s.firstDay(req)
	last, err := s.lastUses(ctx, users)
	if err != nil {
		return nil, err
	}
	return &pb.SuggestRoleResponse{Keys: keyNames(tight(last.since(from))), Users: int32(len(users)), FromDay: from}, nil
}

// tight leaves out the keys that others of the set include.
func tight(keys catalog.Set) catalog.Set {
	for key := range keys.All() {
		rest := keys
		rest.Remove(key)
		if catalog.Implied(rest).Has(key) {
			keys = rest
		}
	}
	return keys
}

func (s *service) firstDay(req interface{ GetDays() int32 }) string {
	return s.clock().UTC().AddDate(0, 0, 1-int(req.GetDays())).Format(time.DateOnly)
}

// lastUses are the days on which keys were last used.
type lastUses map[catalog.Bit]string

// note takes a use of a grant for one of every key that it needs, too.
func (l lastUses) note(grant, day string) {
	bit, ok := catalog.Grant(grant)
	if !ok {
		return // of calls that need none, or of another version of the catalog
	}
	needs := catalog.Needs(bit)
	needs.Add(bit)
	for key := range needs.OnlyKeys().All() {
		l[key] = max(l[key], day)
	}
}

// since returns the keys that were used from a day on.
func (l lastUses) since(day string) (keys catalog.Set) {
	for key, last := range l {
		if last >= day {
			keys.Add(key)
		}
	}
	return keys
}

// lastUses asks every service what users, in the order of their ids, used. None may be
// missing: what it counted would seem unused.
func (s *service) lastUses(ctx context.Context, users []string) (lastUses, error) {
	from := s.clock().UTC().AddDate(0, 0, -store.KeepDays).Format(time.DateOnly)
	found := make([]lastUses, len(s.counts))
	failed := make([]error, len(s.counts))
	var all sync.WaitGroup
	for i, c := range s.counts {
		all.Go(func() { found[i], failed[i] = c.lastUses(ctx, users, from) })
	}
	all.Wait()
	last := lastUses{}
	for _, of := range found {
		for key, day := range of {
			last[key] = max(last[key], day)
		}
	}
	return last, errors.Join(failed...)
}

func (c counts) lastUses(ctx context.Context, users []string, from string) (lastUses, error) {
	last := lastUses{}
	for some := range slices.Chunk(users, maxAskedTogether) {
		resp, err := c.client.GetLastUses(ctx, &decisionpb.GetLastUsesRequest{Source: c.service, UserIds: some, FromDay: from})
		if err != nil {
			return nil, unavailable(c.service, err)
		}
		for _, u := range resp.GetLastUses() {
			last.note(u.GetGrant(), u.GetDay())
		}
	}
	return last, nil
}

// granted returns the keys that the subject of a question is granted, and its users in
// the order of their ids.
func (s *service) granted(ctx context.Context, req subjectOf) (keys catalog.Set, users []string, err error) {
	user := req.GetUserId()
	if user == "" {
		return s.grantedByRole(ctx, req.GetRoleId())
	}
	if err := s.mustKnow(ctx, user); err != nil {
		return keys, nil, err
	}
	err = s.db.View(ctx, func(tx *store.Tx) error {
		l := newLoader(tx)
		v := l.access(l.user(user)).judge(tx.Now())
		keys = v.plain.Intersection(v.set).OnlyKeys()
		return nil
	})
	return keys, []string{user}, err
}

// grantedByRole returns the keys of a role, and those whose role it is: their own, or
// that of their group. They are read page by page: whoever gets or loses the role
// meanwhile may be among them or not.
func (s *service) grantedByRole(ctx context.Context, id string) (keys catalog.Set, users []string, err error) {
	page := &pb.ListHoldersRequest{PageSize: 500}
	for ok := true; ok; ok = page.GetPageToken() != "" {
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			l := newLoader(tx)
			role := l.role(id)
			if role.id == "" {
				return fault.NotFound("role", id)
			}
			keys = role.keys.OnlyKeys()
			var some []*pb.UserAccess
			some, page.PageToken, err = store.Page(tx, page, func(u *pb.UserAccess) bool { return l.access(u).role.id == id }, l.havers(id)...)
			for _, u := range some {
				users = append(users, u.GetId())
			}
			return err
		})
		if err != nil {
			return keys, nil, err
		}
		if len(users) > maxLooked {
			return keys, nil, fault.Limit("more than "+strconv.Itoa(maxLooked)+" users have the role: ask for some of them by themselves", 0)
		}
	}
	return keys, users, nil
}

// havers returns the ranges in which those are whose role it is, and some whose group's
// takes its place.
func (l *loader) havers(role string) []store.Range[*pb.UserAccess] {
	ranges := []store.Range[*pb.UserAccess]{accessByRole.Range(role)}
	for g := range groupByRole.Scan(l.tx, groupByRole.Range(role)) {
		ranges = append(ranges, accessByGroup.Range(g.GetId()))
	}
	if len(ranges) > maxRanges {
		return []store.Range[*pb.UserAccess]{accesses.Range()}
	}
	return ranges
}
