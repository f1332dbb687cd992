package permissions

import (
	"context"
	"iter"
	"slices"
	"strconv"
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
	maxLooked = 5000
	// maxAsked is how many users one question to a service is about.
	maxAsked = 100
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

// lastUses asks every service what users used. None may be missing: what it counted
// would seem unused.
func (s *service) lastUses(ctx context.Context, users []string) (lastUses, error) {
	last := lastUses{}
	from := s.clock().UTC().AddDate(0, 0, -store.KeepDays).Format(time.DateOnly)
	for some := range slices.Chunk(users, maxAsked) {
		for _, c := range s.counts {
			resp, err := c.client.SumUsage(ctx, &decisionpb.SumUsageRequest{Source: c.service, UserIds: some, FromDay: from})
			if err != nil {
				return nil, unavailable(c.service, err)
			}
			for _, u := range resp.GetUsage() {
				last.note(u.GetGrant(), u.GetDay())
			}
		}
	}
	return last, nil
}

// granted returns the keys that the subject of a question is granted, and its users.
func (s *service) granted(ctx context.Context, req subjectOf) (keys catalog.Set, users []string, err error) {
	user := req.GetUserId()
	if user != "" {
		if err := s.mustKnow(ctx, user); err != nil {
			return keys, nil, err
		}
		users = []string{user}
	}
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		l := newLoader(tx)
		if user != "" {
			v := l.access(l.user(user)).judge(tx.Now())
			keys = v.plain.Intersection(v.set).OnlyKeys()
			return nil
		}
		role := l.role(req.GetRoleId())
		if role.id == "" {
			return fault.NotFound("role", req.GetRoleId())
		}
		keys = role.keys.OnlyKeys()
		users, err = l.havers(role.id)
		return err
	})
	return keys, users, err
}

// havers returns the users whose role it is: their own, or that of their group.
func (l *loader) havers(role string) (users []string, err error) {
	add := func(some iter.Seq[*pb.UserAccess]) error {
		for u := range some {
			if l.access(u).role.id != role {
				continue // his group's role takes its place
			}
			if len(users) == maxLooked {
				return fault.Limit("more than "+strconv.Itoa(maxLooked)+" users have the role: ask for some of them by themselves", 0)
			}
			users = append(users, u.GetId())
		}
		return nil
	}
	if err := add(accessByRole.Scan(l.tx, accessByRole.Range(role))); err != nil {
		return nil, err
	}
	for g := range groupByRole.Scan(l.tx, groupByRole.Range(role)) {
		if err := add(l.inGroup(g.GetId())); err != nil {
			return nil, err
		}
	}
	slices.Sort(users)
	return slices.Compact(users), nil
}
