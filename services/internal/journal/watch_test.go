package journal_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/invoicing"
)

type watching = grpc.ServerStreamingClient[journalpb.WatchJournalResponse]

func (u *user) watch(req *journalpb.WatchJournalRequest) watching {
	u.t.Helper()
	req.Source = source
	stream, err := u.journal.WatchJournal(u.t.Context(), req)
	if err != nil {
		u.t.Fatal(err)
	}
	return stream
}

// after is a request to watch after a revision.
func after(revision int64, collections ...string) *journalpb.WatchJournalRequest {
	return &journalpb.WatchJournalRequest{Start: &journalpb.WatchJournalRequest_AfterRevision{AfterRevision: revision}, Collections: collections}
}

// want receives messages and compares them: "2" is the entry of revision 2, "2-" that
// there is nothing to show up to there.
func want(t *testing.T, s watching, previous int64, messages ...string) {
	t.Helper()
	for _, want := range messages {
		m, err := s.Recv()
		for err == nil && m.GetEntry() == nil && m.GetRevision() == previous && want != fmt.Sprint(previous, "-") {
			m, err = s.Recv() // that nothing has happened for a while
		}
		if err != nil {
			t.Fatalf("got %v, want %s", err, want)
		}
		got := fmt.Sprint(m.GetRevision())
		if m.GetEntry() == nil {
			got += "-"
		} else if m.GetEntry().GetRevision() != m.GetRevision() {
			t.Errorf("got the entry of %d with revision %d", m.GetEntry().GetRevision(), m.GetRevision())
		}
		if got != want || m.GetPreviousRevision() != previous {
			t.Errorf("got %s after %d, want %s after %d", got, m.GetPreviousRevision(), want, previous)
		}
		previous = m.GetRevision()
	}
}

func TestWatch(t *testing.T) {
	w := start(t)
	maker, auditor := w.as(makes...), w.as(audit, "Organization:Parts", "Invoices", "View:OwnedBy:Others")
	part := maker.part("Valve")
	maker.part("Hose")
	all := auditor.watch(after(0))
	want(t, all, 0, "1", "2", "2-")
	maker.part("Clamp")
	want(t, all, 2, "3")
	want(t, auditor.watch(after(2)), 2, "3", "3-")
	invoices := auditor.watch(after(0, "invoice"))
	want(t, invoices, 0, "3-")
	maker.rename(part, "Valve, brass")
	maker.invoice()
	want(t, all, 3, "4", "5")
	// That a part was changed may come as a message of its own, or not.
	m, err := invoices.Recv()
	if err == nil && m.GetEntry() == nil && m.GetRevision() == 4 {
		m, err = invoices.Recv()
	}
	if err != nil || m.GetRevision() != 5 || m.GetEntry().GetChanges()[0].GetCollection() != "invoice" {
		t.Errorf("got %v, %v, want the invoice of revision 5", m, err)
	}
	// Who may see less gets less, and is told how far he is.
	want(t, w.as(audit, "Organization:Parts").watch(after(0)), 0, "1", "2", "3", "4", "5-")
	_, err = auditor.watch(after(0, "nothing")).Recv()
	wantReason(t, "no such collection", err, codes.InvalidArgument, "FIELD_INVALID")
	// As after the store was restored to an earlier time, which has other entries to come.
	_, err = auditor.watch(after(6)).Recv()
	wantReason(t, "to come", err, codes.FailedPrecondition, "REVISION_AHEAD")
	_, err = maker.watch(after(0)).Recv()
	wantReason(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING")
}

// A consumer with a name goes on after what it acknowledged, also after a restart.
func TestNamedConsumer(t *testing.T) {
	folder := t.TempDir()
	w := in(t, folder)
	maker, auditor := w.as(makes...), w.as(audit, "Organization:Parts")
	for range 3 {
		maker.part("Valve")
	}
	named := &journalpb.WatchJournalRequest{Start: &journalpb.WatchJournalRequest_Consumer{Consumer: "warehouse"}}
	acknowledge := func(u *user, revision, want int64) {
		t.Helper()
		resp, err := u.journal.AcknowledgeJournal(t.Context(), &journalpb.AcknowledgeJournalRequest{Source: source, Consumer: "warehouse", Revision: revision})
		if err != nil || resp.GetRevision() != want {
			t.Errorf("acknowledge %d: got %v, %v, want %d", revision, resp, err, want)
		}
	}
	want(t, auditor.watch(named), 0, "1", "2", "3", "3-")
	acknowledge(auditor, 2, 2)
	acknowledge(auditor, 1, 2)
	want(t, auditor.watch(named), 2, "3", "3-")
	_, err := auditor.journal.AcknowledgeJournal(t.Context(), &journalpb.AcknowledgeJournalRequest{Source: source, Consumer: "warehouse", Revision: 4})
	wantReason(t, "to come", err, codes.FailedPrecondition, "REVISION_AHEAD")
	w.Stop()
	w = in(t, folder)
	want(t, w.as(audit, "Organization:Parts").watch(named), 2, "3", "3-")
	other := &world{w.InOrganization(servertest.UUID(900)), t}
	want(t, other.as(audit, "Organization:Parts").watch(named), 0, "0-")
}

// A watch shows what its caller may see when an entry is sent, and ends when he may no
// longer watch.
func TestWatchFollowsGrants(t *testing.T) {
	w := start(t)
	maker, auditor := w.as(makes...), w.as(audit, "Organization:Parts", pricing)
	maker.part("Valve")
	s := auditor.watch(after(0))
	price := func() bool {
		t.Helper()
		for {
			m, err := s.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetEntry() != nil {
				return strings.Contains(m.String(), "4711")
			}
		}
	}
	if !price() {
		t.Error("who may see amounts sees none")
	}
	auditor.Grant(audit, "Organization:Parts", "Web")
	maker.part("Hose")
	if price() {
		t.Error("an amount came after it was to be hidden")
	}
	auditor.Grant(audit, "Web")
	maker.part("Clamp")
	auditor.Grant(audit, "Organization:Parts", "Web", pricing)
	maker.invoice() // not his to see
	auditor.Grant("Web")
	for {
		m, err := s.Recv()
		if err != nil {
			wantReason(t, "the end", err, codes.PermissionDenied, "GRANT_MISSING")
			break
		}
		if m.GetEntry().GetRevision() > 3 {
			t.Errorf("got %v", m)
		}
	}
}

// A consumer that reads nothing holds up nobody else.
func TestFrozenConsumer(t *testing.T) {
	w := start(t)
	maker, auditor := w.as(makes...), w.as(audit, "Organization:Parts")
	frozen, other := auditor.watch(after(0)), auditor.watch(after(0))
	const n = 300
	name := strings.Repeat("x", 200) // more than the connection takes without being read
	for range n {
		maker.part(name)
	}
	for i := int64(1); i <= n; {
		m, err := other.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetEntry() != nil {
			if m.GetRevision() != i {
				t.Fatalf("got revision %d, want %d", m.GetRevision(), i)
			}
			i++
		}
	}
	previous := int64(0)
	for previous < n {
		m, err := frozen.Recv()
		if err != nil || m.GetPreviousRevision() != previous || m.GetRevision() > previous+1 {
			t.Fatalf("after %d got %v, %v", previous, m, err)
		}
		previous = m.GetRevision()
	}
}

// A journal whose owner says so forgets, and says what it no longer knows.
func TestRetention(t *testing.T) {
	var offset atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	w := &world{servertest.StartAt(t, clock, invoicing.Part), t}
	maker, auditor, boss := w.as(makes...), w.as(audit, "Organization:Parts"), w.as(owner, "Organization", audit)
	p := maker.part("first")
	maker.rename(p, "second")
	early := timestamppb.New(clock())
	kept, err := boss.verify("")
	if err != nil {
		t.Fatal(err)
	}
	set := func(u *user, values, entries int32) error {
		_, err := u.journal.SetRetention(t.Context(), &journalpb.SetRetentionRequest{Source: source, KeepValuesDays: values, KeepEntriesDays: entries})
		return err
	}
	if err := set(boss, 0, 30); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "too short", set(boss, 0, 29), codes.InvalidArgument, "FIELD_INVALID")
	wantReason(t, "without the key", set(auditor, 0, 30), codes.PermissionDenied, "GRANT_MISSING")
	told := boss.list(&journalpb.ListJournalRequest{EventType: "latchkey.journal.v1.RetentionChanged"})
	if len(told) != 1 || told[0].GetCallerId() != boss.ID || told[0].GetEvents()[0].GetPayload().GetFields()["keep_entries_days"].GetNumberValue() != 30 {
		t.Errorf("got %v, want that it was told", told)
	}
	offset.Store(int64(40 * 24 * time.Hour))
	maker.rename(p, "third")
	done, err := boss.journal.CompactJournal(t.Context(), &journalpb.CompactJournalRequest{Source: source})
	if err != nil || done.GetBaseRevision() != 3 {
		t.Fatalf("got %v, %v, want that it begins after 3", done, err)
	}
	got, err := boss.verify("")
	if err != nil || got.GetBaseRevision() != 3 || got.GetRevision() != 4 {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = boss.verify(kept.GetCheckpoint())
	wantReason(t, "a checkpoint before it", err, codes.OutOfRange, "JOURNAL_COMPACTED")
	if found, err := maker.history("part", p.GetId()); err != nil || len(found) != 1 || found[0].GetRevision() != 4 {
		t.Errorf("history: got %v, %v", found, err)
	}
	_, err = maker.journal.GetRecordAt(t.Context(), &journalpb.GetRecordAtRequest{
		Source: source, Collection: "part", Id: p.GetId(), At: &journalpb.GetRecordAtRequest_Time{Time: early},
	})
	wantReason(t, "a record before it", err, codes.OutOfRange, "JOURNAL_COMPACTED")
	_, err = auditor.watch(after(2)).Recv()
	wantReason(t, "a watch before it", err, codes.OutOfRange, "JOURNAL_COMPACTED")
	want(t, auditor.watch(after(3)), 3, "4", "4-")
	want(t, auditor.watch(&journalpb.WatchJournalRequest{Start: &journalpb.WatchJournalRequest_Consumer{Consumer: "new"}}), 3, "4", "4-")
	_, err = auditor.journal.GetEntry(t.Context(), &journalpb.GetEntryRequest{Source: source, Revision: 2})
	wantReason(t, "an entry before it", err, codes.OutOfRange, "JOURNAL_COMPACTED")
}
