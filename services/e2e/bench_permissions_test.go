package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

var (
	// checkBatch asks for 20 grants at once.
	checkBatch = aCall{permissionspb.AccessService_BatchCheck_FullMethodName, func(*bench) proto.Message {
		req := &permissionspb.BatchCheckRequest{}
		for _, k := range catalog.Keys()[:20] {
			req.Evaluations = append(req.Evaluations, &permissionspb.Evaluation{Grant: k.Name})
		}
		return req
	}, &permissionspb.BatchCheckResponse{}}

	// getEffective asks for everything that somebody may do: all keys and settings.
	getEffective = aCall{permissionspb.AccessService_GetEffectiveAccess_FullMethodName, func(*bench) proto.Message {
		return &permissionspb.GetEffectiveAccessRequest{}
	}, &permissionspb.GetEffectiveAccessResponse{}}
)

// toService returns a connection to the suite as one of its services has it.
func (s *suite) toService(service, as, organization string) grpc.ClientConnInterface {
	s.t.Helper()
	key, err := os.ReadFile(filepath.Join(s.folder, "service.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	return signedAs{s.conn(service), []string{
		authz.ServiceHeader, as, authz.ServiceKeyHeader, strings.TrimSpace(string(key)), authz.TenantHeader, organization,
	}}
}

// signedAs is a connection that adds metadata to each call.
type signedAs struct {
	grpc.ClientConnInterface
	metadata []string
}

func (c signedAs) Invoke(ctx context.Context, method string, req, resp any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(metadata.AppendToOutgoingContext(ctx, c.metadata...), method, req, resp, opts...)
}

func (c signedAs) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(metadata.AppendToOutgoingContext(ctx, c.metadata...), desc, method, opts...)
}

// subscribed measures a change of permissions while n more subscribers follow the feed
// than the suite's own process, beside the same change in a suite without them.
func (b *bench) subscribed(n int) finding {
	change := func(n int) func(context.Context) error {
		s := one(b.t)
		c := s.fill()
		for range n {
			b.subscribe(s, c.Organization)
		}
		return revoking(s, c, c.As(b.t.Context(), "OW"))
	}
	with, without := change(n), change(0)
	var all []time.Duration
	measure := func(call func(context.Context) error, keep bool) float64 {
		took := make([]time.Duration, 10)
		for i := range took {
			took[i] = b.took(call)
		}
		if keep {
			all = append(all, took...)
		}
		return float64(percentile(took, 50))
	}
	p50, ratio := beside(2*rounds, func() float64 { return measure(with, true) }, func() float64 { return measure(without, false) })
	return finding{
		fmt.Sprintf("p50 %s, p99 %s", milliseconds(time.Duration(p50)), milliseconds(percentile(all, 99))),
		ratio, "the same without further subscribers (p50)",
	}
}

// subscribe keeps a cache of grants current over the suite's feed, as each of its
// processes does.
func (b *bench) subscribe(s *suite, organization string) {
	b.t.Helper()
	conn := s.toService("permissions", "scheduling", organization)
	follow(b.t, lease.NewCache(lease.CacheConfig[authz.Grants]{
		Source: "permissions", Subscriber: "benchmark", Log: slog.New(slog.DiscardHandler),
		Load: func(context.Context, string) (authz.Grants, []string, error) { return authz.Grants{}, nil, nil },
		Dial: func() grpc.ClientConnInterface { return conn },
	}))
}

// populated starts a suite whose permissions service keeps n users more: every second has
// the role, by its id, or one that is made: the organization's own, or the brand's; of the others one of a hundred has an override for a key. It returns the
// owner's context.
func (b *bench) populated(n int, role string) (*suite, *demo.Company, context.Context) {
	b.t.Helper()
	s := one(b.t)
	company := s.fill()
	as := company.As(b.t.Context(), "OW")
	switch role {
	case "":
		made, err := permissionspb.NewRoleServiceClient(s).CreateRole(as, &permissionspb.CreateRoleRequest{
			Name: "Caretaker", Keys: []string{"Web", "Invoices"},
		})
		if err != nil {
			b.t.Fatal(err)
		}
		role = made.GetRole().GetId()
	case ofBrand:
		made, err := permissionspb.NewBrandRoleServiceClient(s).CreateBrandRole(as, &permissionspb.CreateBrandRoleRequest{
			Name: "Caretaker", Keys: []string{"Web", "Invoices"},
		})
		if err != nil {
			b.t.Fatal(err)
		}
		role = made.GetRole().GetId()
	}
	s.stop()
	accesses := store.NewCollection("user_access", (*permissionspb.UserAccess).GetId)
	b.fill(s, "permissions", company.Organization, n, store.NewSchema(accesses), func(tx *store.Tx, i int) error {
		u := &permissionspb.UserAccess{Id: servertest.UUID(1_000_000 + i), RoleId: []string{role, "SA"}[i%2]}
		if i%200 == 1 {
			u.Overrides = []*permissionspb.Override{
				{Key: "Invoices", Effect: permissionspb.Effect_EFFECT_GRANT}, {Key: "Invoices:Void", Effect: permissionspb.Effect_EFFECT_GRANT},
			}
		}
		return accesses.Put(tx, u)
	})
	s.again()
	return s, company, as
}

// holders measures how long the whole list takes of those who hold a key that one of 200
// holds, for each of the users, beside the same of 1,000 users.
func (b *bench) holders(n int) finding {
	list := func(n int) func() float64 {
		s, _, as := b.populated(n, "PM")
		access := permissionspb.NewAnalysisServiceClient(s)
		return func() float64 {
			start, found := time.Now(), 0
			req := &permissionspb.ListHoldersRequest{PageSize: 500, Question: &permissionspb.ListHoldersRequest_Grant{Grant: "Invoices:Void"}}
			for more := true; more; {
				resp, err := access.ListHolders(as, req)
				if err != nil {
					b.t.Fatal(err)
				}
				found += len(resp.GetHolders())
				req.PageToken = resp.GetNextPageToken()
				more = req.PageToken != ""
			}
			if found < n/200 {
				b.t.Fatalf("got %d holders of %d users, want %d at least", found, n, n/200)
			}
			return time.Since(start).Seconds() / float64(n)
		}
	}
	seconds, ratio := beside(5, list(n), list(1000))
	return finding{fmt.Sprintf("%s for all", milliseconds(time.Duration(seconds*float64(n)*1e9))), ratio, "the same of 1,000 users, for each user"}
}

// unused measures how long it takes to tell which keys of a role that n users have nobody
// used, for each of the users, beside the same of 1,000. Each used two grants on ten of
// the last thirty days.
func (b *bench) unused(n int) finding {
	ask := func(n int) func() float64 {
		s, company, as := b.populated(2*n, "PM")
		s.stop()
		today := store.DayOf(time.Now())
		b.fill(s, "invoicing", company.Organization, 20*n, store.NewSchema(), func(tx *store.Tx, i int) error {
			day, grant := today-int64(i/n%10*3), []string{"Invoices", "Web"}[i/n/10]
			tx.AddUses(store.Use{Day: day, User: servertest.UUID(1_000_000 + 2*(i%n)), Grant: grant, Reads: 1})
			return nil
		})
		s.again()
		usage := permissionspb.NewUsageServiceClient(s)
		return func() float64 {
			start := time.Now()
			resp, err := usage.ListUnusedKeys(as, &permissionspb.ListUnusedKeysRequest{Subject: &permissionspb.ListUnusedKeysRequest_RoleId{RoleId: "PM"}, Days: 30})
			took := time.Since(start)
			for _, k := range resp.GetKeys() {
				if k.GetKey() == "Invoices" {
					err = fmt.Errorf("got %s, which all used", k.GetKey())
				}
			}
			if err != nil || int(resp.GetUsers()) < n || len(resp.GetKeys()) == 0 {
				b.t.Fatalf("got %d keys of %d users, %v, want some of %d", len(resp.GetKeys()), resp.GetUsers(), err, n)
			}
			return took.Seconds() / float64(n)
		}
	}
	seconds, ratio := beside(5, ask(n), ask(1000))
	return finding{fmt.Sprintf("%s for all", milliseconds(time.Duration(seconds*float64(n)*1e9))), ratio, "the same of 1,000 users, for each user"}
}

// editsRole measures a change of a role that n users have beside one of a role that
// nobody has.
func (b *bench) editsRole(n int) finding {
	p50, ratio := beside(rounds, b.edit(n, ""), b.edit(0, ""))
	return finding{"p50 " + milliseconds(time.Duration(p50)), ratio, "the same of a role that nobody has (p50)"}
}

// editsBrandRole measures a change of a role of the brand that n users have beside one of a
// role of the organization's own that as many have.
func (b *bench) editsBrandRole(n int) finding {
	p50, ratio := beside(rounds, b.edit(n, ofBrand), b.edit(n, ""))
	return finding{"p50 " + milliseconds(time.Duration(p50)), ratio, "the same of a role of the organization's own (p50)"}
}

// ofBrand asks populated for a role of the brand.
const ofBrand = "brand"

// edit returns what changes a role that n of 2n users have, and returns the median time.
func (b *bench) edit(n int, kind string) func() float64 {
	s, _, as := b.populated(2*n, kind)
	list, err := permissionspb.NewRoleServiceClient(s).ListRoles(as, &permissionspb.ListRolesRequest{PageSize: 500})
	if err != nil {
		b.t.Fatal(err)
	}
	role := ""
	for _, r := range list.GetRoles() {
		if r.GetName() == "Caretaker" {
			role = r.GetId()
		}
	}
	more := false
	change := func(context.Context) error {
		r := &permissionspb.Role{Id: role, Keys: []string{"Web", "Invoices"}}
		if more = !more; more {
			r.Keys = append(r.Keys, "Invoices:Void")
		}
		var err error
		if kind == ofBrand {
			_, err = permissionspb.NewBrandRoleServiceClient(s).UpdateBrandRole(as, &permissionspb.UpdateBrandRoleRequest{Role: r})
		} else {
			_, err = permissionspb.NewRoleServiceClient(s).UpdateRole(as, &permissionspb.UpdateRoleRequest{Role: r})
		}
		return err
	}
	return func() float64 {
		took := make([]time.Duration, 10)
		for i := range took {
			took[i] = b.took(change)
		}
		return float64(percentile(took, 50))
	}
}

// remembers measures the memory that a process needs for each caller whom it remembers,
// beside what it remembers of him: a set of grants.
func (b *bench) remembers(n int) finding {
	g := b.guard("Invoices", "Invoices:Void")
	set, err := catalog.SetOf("Invoices", "Invoices:Void")
	if err != nil {
		b.t.Fatal(err)
	}
	s := servertest.Start(b.t)
	grants := lease.NewCache(lease.CacheConfig[authz.Grants]{
		Source: "permissions", Subscriber: "benchmark", Log: slog.New(slog.DiscardHandler), MaxEntries: 2 * n,
		Load: func(_ context.Context, key string) (authz.Grants, []string, error) {
			return authz.Grants{Set: set, Revision: 1}, []string{"user:" + key, "organization:" + s.Organization}, nil
		},
		Dial: func() grpc.ClientConnInterface { return s.Service("benchmark") },
	})
	follow(b.t, grants)
	before := heap()
	for i := range n {
		if _, err := grants.Get(g.ctx, authz.GrantsKey(s.Organization, servertest.UUID(i))); err != nil {
			b.t.Fatal(err)
		}
	}
	each := float64(heap()-before) / float64(n)
	runtime.KeepAlive(grants)
	return finding{fmt.Sprintf("%.0f bytes a caller", each), each / float64(len(set)*8), "the grants themselves"}
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
