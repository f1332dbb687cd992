package decision_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/invoicing"
)

// Decisions are listed by what they say and when they were made.
func TestFiltersAndPages(t *testing.T) {
	c := &clock{now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
	w := over(t, servertest.StartAt(t, c.Now, invoicing.Part))
	maker, picker := w.As(mayMake), w.As(mayPick)
	for i := range 9 {
		u := maker
		if i%3 == 0 {
			u = picker
		}
		_, err := parts(u).CreatePart(t.Context(), &invoicingpb.CreatePartRequest{Name: fmt.Sprint("part ", i)})
		if (err != nil) != (i%3 == 0) {
			t.Fatal(err)
		}
		c.advance(time.Minute)
	}
	at := func(minute int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 3, 1, 8, minute, 0, 0, time.UTC))
	}
	for _, q := range []struct {
		req  *decisionpb.ListDecisionsRequest
		want []int // minutes
	}{
		{&decisionpb.ListDecisionsRequest{}, []int{8, 7, 6, 5, 4, 3, 2, 1, 0}},
		{&decisionpb.ListDecisionsRequest{Outcome: decisionpb.Outcome_OUTCOME_DENIED}, []int{6, 3, 0}},
		{&decisionpb.ListDecisionsRequest{Outcome: decisionpb.Outcome_OUTCOME_ALLOWED, FromTime: at(2), ToTime: at(7)}, []int{5, 4, 2}},
		{&decisionpb.ListDecisionsRequest{UserId: picker.ID, FromTime: at(1)}, []int{6, 3}},
		{&decisionpb.ListDecisionsRequest{UserId: servertest.UUID(4)}, nil},
		{&decisionpb.ListDecisionsRequest{Grant: mayMake, ToTime: at(2)}, []int{1, 0}},
		{&decisionpb.ListDecisionsRequest{Grant: mayPick}, nil},
		{&decisionpb.ListDecisionsRequest{Method: create, ToTime: at(1)}, []int{0}},
		{&decisionpb.ListDecisionsRequest{Method: get}, nil},
		{&decisionpb.ListDecisionsRequest{Reason: "GRANT_MISSING", ToTime: at(6)}, []int{3, 0}},
		{&decisionpb.ListDecisionsRequest{Reason: "SURFACE_CLOSED"}, nil},
		{&decisionpb.ListDecisionsRequest{ActorId: picker.ID}, nil}, // who calls in his own name is no actor
	} {
		for _, size := range []int32{0, 2} {
			q.req.PageSize = size
			var got []int
			for _, d := range w.decisions(q.req) {
				got = append(got, d.GetDecideTime().AsTime().Minute())
			}
			if !slices.Equal(got, q.want) {
				t.Errorf("%v: got those of the minutes %v, want %v", q.req, got, q.want)
			}
		}
	}
	_, err := w.reader.ListDecisions(t.Context(), &decisionpb.ListDecisionsRequest{Source: source, Grant: "Invoices:Viod"})
	wantReason(t, "no such grant", err, codes.InvalidArgument, "FIELD_INVALID")
	for _, reason := range []string{"REASON_GRANT_MISSING", "grant_missing", "UNSPECIFIED"} {
		_, err = w.reader.ListDecisions(t.Context(), &decisionpb.ListDecisionsRequest{Source: source, Reason: reason})
		wantReason(t, "no such reason", err, codes.InvalidArgument, "FIELD_INVALID")
	}
	_, err = w.reader.ListDecisions(t.Context(), &decisionpb.ListDecisionsRequest{Source: source, ActorId: "x"})
	wantReason(t, "no such actor", err, codes.InvalidArgument, "FIELD_INVALID")
	_, err = w.reader.ListDecisions(t.Context(), &decisionpb.ListDecisionsRequest{Source: source, PageToken: "x"})
	wantReason(t, "no such token", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	_, err = w.reader.ListUsage(t.Context(), &decisionpb.ListUsageRequest{Source: source, FromDay: "2026-02-30"})
	wantReason(t, "no such day", err, codes.InvalidArgument, "FIELD_INVALID")
}

// What is let in to read is counted, exactly, also by many at once.
func TestUsage(t *testing.T) {
	c := &clock{now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
	w := over(t, servertest.StartAt(t, c.Now, invoicing.Part))
	maker := w.As(mayMake)
	made, err := parts(maker).CreatePart(t.Context(), &invoicingpb.CreatePartRequest{Name: "Valve"})
	if err != nil {
		t.Fatal(err)
	}
	const readers, each = 4, 25
	users := make([]*servertest.User, readers)
	var wg sync.WaitGroup
	for i := range users {
		users[i] = w.As(mayPick, "ControlPanel:Parts:Index")
		wg.Go(func() {
			for n := range each {
				if _, err := parts(users[i]).GetPart(t.Context(), &invoicingpb.GetPartRequest{Id: made.GetPart().GetId()}); err != nil {
					t.Error(err)
				}
				if n == each/2 {
					w.usage(&decisionpb.ListUsageRequest{UserId: users[i].ID}) // writes meanwhile
				}
			}
		})
	}
	wg.Wait()
	for _, u := range users {
		want := []*decisionpb.Usage{
			{UserId: u.ID, Grant: mayPick, Day: "2026-03-01", Reads: each},
			{UserId: u.ID, Grant: "Web", Day: "2026-03-01", Reads: each},
		}
		wantUsage(t, "reader", w.usage(&decisionpb.ListUsageRequest{UserId: u.ID}), want)
	}
	wantUsage(t, "maker", w.usage(&decisionpb.ListUsageRequest{UserId: maker.ID}), []*decisionpb.Usage{
		{UserId: maker.ID, Grant: mayMake, Day: "2026-03-01", Changes: 1},
		{UserId: maker.ID, Grant: "Web", Day: "2026-03-01", Changes: 1},
	})
	// What is denied is no use.
	if _, err := parts(maker).GetPart(t.Context(), &invoicingpb.GetPartRequest{Id: made.GetPart().GetId()}); err == nil {
		t.Error("the maker may read")
	}
	if got := len(w.usage(&decisionpb.ListUsageRequest{UserId: maker.ID, PageSize: 1})); got != 2 {
		t.Errorf("got %d uses of the maker after a denial, want 2", got)
	}
	c.advance(24 * time.Hour)
	if got := w.usage(&decisionpb.ListUsageRequest{FromDay: "2026-03-02", UserId: maker.ID}); len(got) != 0 {
		t.Errorf("got uses of the next day: %v", got)
	}
	other := over(t, w.InOrganization(servertest.UUID(9)))
	if got := other.usage(&decisionpb.ListUsageRequest{UserId: maker.ID}); len(got) != 0 {
		t.Errorf("another organization sees %v", got)
	}
	sum, err := decisionpb.NewDecisionServiceClient(w.Service(source)).SumUsage(t.Context(), &decisionpb.SumUsageRequest{
		Source: source, UserIds: []string{maker.ID, users[0].ID}, FromDay: "2026-02-01",
	})
	if err != nil || len(sum.GetUsage()) != 4 {
		t.Errorf("got the sum %v, %v, want 4 uses", sum, err)
	}
	last, err := decisionpb.NewDecisionServiceClient(w.Service(source)).GetLastUses(t.Context(), &decisionpb.GetLastUsesRequest{
		Source: source, UserIds: []string{users[1].ID, maker.ID, users[0].ID, maker.ID}, FromDay: "2026-02-01",
	})
	want := &decisionpb.GetLastUsesResponse{LastUses: []*decisionpb.LastUse{
		{Grant: mayMake, Day: "2026-03-01"}, {Grant: mayPick, Day: "2026-03-01"}, {Grant: "Web", Day: "2026-03-01"},
	}}
	if err != nil || !proto.Equal(last, want) {
		t.Errorf("got the last uses %v, %v, want %v", last, err, want)
	}
}

func wantUsage(t *testing.T, who string, got, want []*decisionpb.Usage) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b *decisionpb.Usage) bool { return proto.Equal(a, b) }) {
		t.Errorf("%s: got %v, want %v", who, got, want)
	}
}

// A process that stops writes what it has counted: another that serves the same store
// tells of all.
func TestDrain(t *testing.T) {
	folder := t.TempDir()
	c := &clock{now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
	w := over(t, servertest.StartIn(t, folder, c.Now, invoicing.Part))
	u := w.As(mayPick)
	const reads = 30
	for range reads {
		_, _ = parts(u).GetPart(t.Context(), &invoicingpb.GetPartRequest{Id: servertest.UUID(1)})
	}
	w.Stop()
	if _, err := os.Stat(filepath.Join(folder, source+".db")); err != nil {
		t.Fatal(err)
	}
	again := over(t, servertest.StartIn(t, folder, c.Now, invoicing.Part).InOrganization(w.Organization))
	wantUsage(t, "reader", again.usage(&decisionpb.ListUsageRequest{UserId: u.ID}), []*decisionpb.Usage{
		{UserId: u.ID, Grant: mayPick, Day: "2026-03-01", Reads: reads},
		{UserId: u.ID, Grant: "Web", Day: "2026-03-01", Reads: reads},
	})
}

// clock is a clock that moves only when it is told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
