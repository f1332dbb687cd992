package authz_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// memory is a log that keeps what it is given, or fails.
type memory struct {
	meter authz.Meter

	mu   sync.Mutex
	kept []authz.Decision
	err  error
}

func (l *memory) Meter() *authz.Meter { return &l.meter }

func (l *memory) Note(d *authz.Decision) (*store.Note, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.ID = "id"
	l.kept = append(l.kept, *d)
	return store.NewNote(d.Organization, time.Time{}, d.ID, &emptypb.Empty{})
}

func (l *memory) Write(context.Context, *store.Note) error { return l.err }

// take returns what was kept since the last time.
func (l *memory) take() (kept []authz.Decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept, l.kept = l.kept, nil
	return kept
}

func loggedDesk(t testing.TB) (*desk, *memory) {
	t.Helper()
	d, l := newDesk(t), &memory{}
	d.Rules.LogTo(func(string) authz.Log { return l })
	return d, l
}

func TestDecisionsOfHandlers(t *testing.T) {
	d, l := loggedDesk(t)
	ann := d.signIn(t, "ann", "void edit")
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {fault.NotFound("item", "1"), 0}, {errors.New("broken"), 0},
		{fault.Relation("the assignee"), 1},
		{fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_FEATURE_NOT_IN_PLAN, "no", map[string]string{"grant": "Routing"}), 1},
		{fault.Refused("something else"), 0},
	} {
		_, err := d.Unary(ann, input(t, "Void", ``), &grpc.UnaryServerInfo{FullMethod: method("Void")},
			func(context.Context, any) (any, error) { return message(t, "Answer", ``), c.err })
		if !errors.Is(err, c.err) {
			t.Errorf("got error %v, want %v", err, c.err)
		}
		if got := l.take(); len(got) != c.want || c.want == 1 && (!got[0].Denied || got[0].User != "ann" || got[0].Method != method("Void")[1:]) {
			t.Errorf("%v: got the decisions %+v, want %d", c.err, got, c.want)
		}
	}
}

func TestUnwrittenDecisionFailsTheCall(t *testing.T) {
	d, l := loggedDesk(t)
	bob := d.signIn(t, "bob", "")
	full := fault.New(codes.ResourceExhausted, faultpb.Reason_REASON_DISK_FULL, "full", nil)
	for _, c := range []struct {
		err  error
		want string
	}{{nil, "GRANT_MISSING"}, {errors.New("broken"), "DECISION_UNWRITTEN"}, {full, "DISK_FULL"}} {
		l.err = c.err
		_, err := d.Unary(bob, input(t, "Void", ``), &grpc.UnaryServerInfo{FullMethod: method("Void")}, nil)
		if got := reasonOf(err); got != c.want {
			t.Errorf("with %v: got %s, want %s", c.err, got, c.want)
		}
	}
	l.err = nil
	l.meter.Refuse(full)
	ann := d.signIn(t, "ann", "void")
	if _, err := d.Unary(ann, input(t, "Void", ``), &grpc.UnaryServerInfo{FullMethod: method("Void")}, nil); reasonOf(err) != "DISK_FULL" {
		t.Errorf("what cannot be counted is let in: %v", err)
	}
}

// Nothing that is counted is lost, nor counted twice, while it is taken by others.
func TestMeterLosesNothing(t *testing.T) {
	d, l := loggedDesk(t)
	const users, each = 4, 2000
	got := map[string]int{}
	var mu sync.Mutex
	take := func() {
		l.meter.Take(func(u authz.Used) {
			mu.Lock()
			defer mu.Unlock()
			got[u.User+" "+u.Grant.String()] += int(u.Reads + u.Changes)
		})
	}
	var calling, taking sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		taking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					take()
				}
			}
		})
	}
	for u := range users {
		ctx := d.signIn(t, fmt.Sprint("u", u), "void see")
		for range 2 { // two at once by the same session
			calling.Go(func() {
				for range each {
					if _, err := d.call(t, ctx, "Void", `discount: 1`); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	calling.Wait()
	close(stop)
	taking.Wait()
	take()
	want := 2 * each
	for u := range users {
		for _, grant := range []string{"Invoices:Void", "setting:see_pricing"} {
			if n := got[fmt.Sprintf("u%d %s", u, grant)]; n != want {
				t.Errorf("u%d used %s %d times, counted %d", u, grant, want, n)
			}
		}
	}
	l.meter.Take(func(u authz.Used) { t.Errorf("still there: %+v", u) })
}

// A user may use more grants than one tally has room for; and what handlers ask for is
// told once.
func TestMeterTakesAnyNumberOfGrants(t *testing.T) {
	var all catalog.Set
	for _, k := range catalog.Keys() {
		all.Add(k.Bit())
	}
	m := &authz.Meter{}
	u := &authz.Uses{Organization: "org", User: "ann"}
	for range 3 {
		if err := m.Count(u, all); err != nil {
			t.Fatal(err)
		}
		u.Consult(catalog.MustGrant("Invoices"))
	}
	reads, consulted := 0, 0
	m.Take(func(used authz.Used) {
		reads += int(used.Reads)
		if used.Consulted {
			consulted++
		}
	})
	if reads != 3*all.Len() || consulted != 1 {
		t.Errorf("got %d reads and %d consulted, want %d and 1", reads, consulted, 3*all.Len())
	}
	u.Consult(catalog.MustGrant("Invoices"))
	m.Take(func(used authz.Used) { consulted++ })
	if consulted != 2 {
		t.Errorf("what was consulted after that is told %d times", consulted-1)
	}
}
