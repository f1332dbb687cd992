package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/token"
)

// guarded is a guard as a process of the suite has it, but for the validation of
// requests, and the context of a call by somebody who holds some grants.
type guarded struct {
	*authz.Guard
	ctx   context.Context
	token string
}

func (b *bench) guard(grants ...string) *guarded {
	b.t.Helper()
	set, err := catalog.SetOf(grants...)
	if err != nil {
		b.t.Fatal(err)
	}
	registered := map[string]grpc.ServiceInfo{}
	for _, m := range methods() {
		registered[string(m.Parent().FullName())] = grpc.ServiceInfo{}
	}
	rules, err := authz.Compile(registered)
	if err != nil {
		b.t.Fatal(err)
	}
	s := servertest.Start(b.t)
	text, _ := token.New("lk_", zeros{})
	session := authz.Session{
		ID: servertest.UUID(1), User: servertest.UUID(2), Organization: s.Organization,
		Surface: authz.SurfaceWeb, Expires: time.Now().Add(time.Hour),
	}
	return &guarded{
		Guard: authz.NewGuard(authz.Config{
			Rules: rules, ServiceKey: "unused", Now: time.Now, Validate: func(proto.Message) error { return nil },
			Sessions: leased(b.t, s, "identity", authz.Remember(func(context.Context, string) (authz.Session, []string, error) {
				return session, []string{"session:" + session.ID}, nil
			})),
			Grants: leased(b.t, s, "permissions", func(_ context.Context, key string) (authz.Grants, []string, error) {
				return authz.Grants{Set: set}, []string{"user:" + key}, nil
			}),
		}),
		ctx:   metadata.NewIncomingContext(b.t.Context(), metadata.Pairs("authorization", "Bearer "+text)),
		token: text,
	}
}

// leased is a running cache of what a source of the server says.
func leased[V any](t testing.TB, s *servertest.Server, source string, load func(context.Context, string) (V, []string, error)) *lease.Cache[V] {
	t.Helper()
	c := lease.NewCache(lease.CacheConfig[V]{
		Source: source, Subscriber: "benchmark", Load: load, Log: slog.New(slog.DiscardHandler),
		Dial: func() grpc.ClientConnInterface { return s.Service("benchmark") },
	})
	follow(t, c)
	return c
}

// follow keeps a cache current until the test ends.
func follow[V any](t testing.TB, c *lease.Cache[V]) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	if err := c.WaitHeld(t.Context()); err != nil {
		t.Fatal(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// nanoseconds returns how long f takes, of many times.
func nanoseconds(f func()) float64 {
	const times = 100_000
	start := time.Now()
	for range times {
		f()
	}
	return float64(time.Since(start).Nanoseconds()) / times
}

// measureFunc compares functions that take nanoseconds.
func measureFunc(f, reference func(), of string) finding {
	ns, ratio := beside(5*rounds, func() float64 { return nanoseconds(f) }, func() float64 { return nanoseconds(reference) })
	return finding{fmt.Sprintf("%.3g ns, %.0f allocations", ns, testing.AllocsPerRun(1000, f)), ratio, of}
}

// check measures the decision: what a caller in hand may call.
func (b *bench) check() finding {
	g := b.guard("Web", "Invoices:Void")
	name := invoicingpb.InvoiceService_VoidInvoice_FullMethodName
	var inside context.Context
	b.unary(g, name, &invoicingpb.VoidInvoiceRequest{}, func(ctx context.Context, _ any) (any, error) {
		inside = ctx
		return &invoicingpb.VoidInvoiceResponse{}, nil
	})
	lookup := map[string]int{}
	for _, m := range g.Rules.Methods() {
		lookup[m] = len(lookup)
	}
	found := 0
	return measureFunc(func() {
		if authz.Permits(inside, name) != nil {
			panic("denied")
		}
	}, func() { found += lookup[name] }, "a look-up of the method's name in a map")
}

// checkWhole measures all that the interceptor does around a handler: from the token to
// the redaction.
func (b *bench) checkWhole() finding {
	g := b.guard("Web", "Invoices:Void", "setting:see_pricing")
	name := invoicingpb.InvoiceService_VoidInvoice_FullMethodName
	req, resp := &invoicingpb.VoidInvoiceRequest{Id: servertest.UUID(3)}, &invoicingpb.VoidInvoiceResponse{Invoice: twentyLines()}
	handler := func(context.Context, any) (any, error) { return resp, nil }
	return measureFunc(func() { b.unary(g, name, req, handler) }, func() { sha256.Sum256([]byte(g.token)) }, "the SHA-256 of the token")
}

// redact measures what a caller without pricing is spared of an invoice, from the handler's
// return to that of the interceptor.
func (b *bench) redact() finding {
	g := b.guard("Web", "Invoices")
	const many = 500
	redaction := func() float64 {
		responses := make([]*invoicingpb.GetInvoiceResponse, many)
		for i := range responses {
			responses[i] = &invoicingpb.GetInvoiceResponse{Invoice: twentyLines()}
		}
		var total time.Duration
		for _, resp := range responses {
			var returned time.Time
			b.unary(g, invoicingpb.InvoiceService_GetInvoice_FullMethodName, &invoicingpb.GetInvoiceRequest{}, func(context.Context, any) (any, error) {
				returned = time.Now()
				return resp, nil
			})
			total += time.Since(returned)
			if resp.GetInvoice().GetTotal() != nil || resp.GetInvoice().GetLines()[19].GetAmount() != nil {
				b.t.Fatal("the amounts are still there")
			}
		}
		return float64(total.Nanoseconds()) / many
	}
	whole := &invoicingpb.GetInvoiceResponse{Invoice: twentyLines()}
	encoding := func() float64 {
		start := time.Now()
		for range many {
			if _, err := proto.Marshal(whole); err != nil {
				b.t.Fatal(err)
			}
		}
		return float64(time.Since(start).Nanoseconds()) / many
	}
	ns, ratio := beside(20*rounds, redaction, encoding)
	return finding{fmt.Sprintf("%.0f ns", ns), ratio, "proto.Marshal of the invoice"}
}

func (b *bench) unary(g *guarded, method string, req any, handler grpc.UnaryHandler) {
	if _, err := g.Unary(g.ctx, req, &grpc.UnaryServerInfo{FullMethod: method}, handler); err != nil {
		b.t.Fatal(err)
	}
}

// twentyLines returns an invoice of as many lines.
func twentyLines() *invoicingpb.Invoice {
	money := func(n int64) *typepb.Money { return &typepb.Money{MinorUnits: n, CurrencyCode: "EUR"} }
	v := &invoicingpb.Invoice{
		Id: servertest.UUID(4), Etag: "12", Number: "2026-000007", BillTo: new("Harbour Lane Property Care"),
		Subtotal: money(200_00), Tax: money(38_00), Total: money(238_00), AmountPaid: money(0), Balance: money(238_00),
	}
	for range 20 {
		v.Lines = append(v.Lines, &invoicingpb.InvoiceLine{
			Description: "Thermostat valve", UnitPrice: money(10_00), Amount: money(10_00), Tax: money(1_90),
		})
	}
	return v
}
