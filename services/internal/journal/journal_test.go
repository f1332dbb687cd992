package journal_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/internal/servertest"
)

func (u *user) rename(p *invoicingpb.Part, name string) {
	u.t.Helper()
	_, err := u.parts.UpdatePart(u.t.Context(), &invoicingpb.UpdatePartRequest{
		Part: &invoicingpb.Part{Id: p.GetId(), Name: proto.String(name)}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}},
	})
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) reprice(p *invoicingpb.Part, minorUnits int64) {
	u.t.Helper()
	_, err := u.parts.UpdatePart(u.t.Context(), &invoicingpb.UpdatePartRequest{
		Part: &invoicingpb.Part{Id: p.GetId(), Price: money(minorUnits)}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"price"}},
	})
	if err != nil {
		u.t.Fatal(err)
	}
}

// The history of a record says who did what to it and when, the newest first.
func TestHistory(t *testing.T) {
	w := start(t)
	maker := w.as(makes...)
	before := time.Now()
	p := maker.part("Valve")
	maker.part("Hose")
	maker.reprice(p, 815)
	maker.rename(p, "Valve, brass")
	found, err := maker.history("part", p.GetId())
	if err != nil || len(found) != 3 {
		t.Fatalf("got %d entries, %v, want 3: %v", len(found), err, found)
	}
	for i, want := range []struct {
		kind     journalpb.Kind
		method   string
		revision int64
		changed  []string
		old, new string
	}{
		{journalpb.Kind_KIND_UPDATED, "UpdatePart", 4, []string{"name"}, "Valve", "Valve, brass"},
		{journalpb.Kind_KIND_UPDATED, "UpdatePart", 3, []string{"price"}, "Valve", "Valve"},
		{journalpb.Kind_KIND_CREATED, "CreatePart", 1, nil, "", "Valve"},
	} {
		e, c := found[i], found[i].GetChanges()[0]
		if e.GetCallerId() != maker.ID || e.GetMethod() != "latchkey.invoicing.v1.PartService/"+want.method || e.GetRevision() != want.revision ||
			e.GetCommitTime().AsTime().Before(before) || len(e.GetChanges()) != 1 {
			t.Errorf("entry %d: got %v", i, e)
		}
		if c.GetKind() != want.kind || c.GetId() != p.GetId() || !slices.Equal(c.GetChangedFields(), want.changed) || c.GetValues() != journalpb.Values_VALUES_SHOWN ||
			c.GetOldValue().GetFields()["name"].GetStringValue() != want.old || c.GetNewValue().GetFields()["name"].GetStringValue() != want.new {
			t.Errorf("entry %d: got %v, want %+v", i, c, want)
		}
	}
	price := found[1].GetChanges()[0].GetNewValue().GetFields()["price"].GetStructValue().GetFields()
	if price["minor_units"].GetStringValue() != "815" {
		t.Errorf("got the price %v, want 815", price)
	}
}

// Who may not see amounts sees none in history, and not that they changed.
func TestHistoryIsRedacted(t *testing.T) {
	w := start(t)
	maker, picker := w.as(makes...), w.as("Organization:Parts", audit)
	p := maker.part("Valve")
	maker.reprice(p, 815)
	found, err := picker.history("part", p.GetId())
	if err != nil || len(found) != 2 {
		t.Fatalf("got %d entries, %v", len(found), err)
	}
	found = append(found, picker.list(&journalpb.ListJournalRequest{})...)
	at, err := picker.journal.GetRecordAt(t.Context(), &journalpb.GetRecordAtRequest{
		Source: source, Collection: "part", Id: p.GetId(), At: &journalpb.GetRecordAtRequest_Revision{Revision: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(found, at)
	if strings.Contains(all, "4711") || strings.Contains(all, "815") || strings.Contains(all, "price") {
		t.Errorf("got an amount: %s", all)
	}
	if !strings.Contains(all, "Valve") {
		t.Error("the rest is missing too")
	}
	seer := w.as("Organization:Parts", pricing)
	if shown, err := seer.history("part", p.GetId()); err != nil || !strings.Contains(fmt.Sprint(shown), "4711") {
		t.Errorf("who may see amounts sees %v, %v", shown, err)
	}
}

// The history of a record exists for whom the record exists.
func TestHistoryHasTheRuleOfItsRecord(t *testing.T) {
	w := start(t)
	maker := w.as(makes...)
	v := maker.invoice()
	other := &world{w.InOrganization(servertest.UUID(900)), t}
	for _, c := range []struct {
		name   string
		who    *user
		code   codes.Code
		reason string
	}{
		{"the owner", maker, codes.OK, ""},
		{"who sees those of others", w.as("Invoices", "View:OwnedBy:Others"), codes.OK, ""},
		{"who sees his own", w.as("Invoices", "View:OwnedBy:Me"), codes.NotFound, "RECORD_NOT_FOUND"},
		{"who sees all but may get none", w.as("View:OwnedBy:Others", audit), codes.PermissionDenied, "GRANT_MISSING"},
		{"another organization", other.as("Invoices", "View:OwnedBy:Others", audit), codes.NotFound, "RECORD_NOT_FOUND"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.who.history("invoice", v.GetId())
			wantReason(t, "history", err, c.code, c.reason)
			_, err = c.who.journal.GetRecordAt(t.Context(), &journalpb.GetRecordAtRequest{
				Source: source, Collection: "invoice", Id: v.GetId(), At: &journalpb.GetRecordAtRequest_Time{Time: timestamppb.Now()},
			})
			wantReason(t, "record", err, c.code, c.reason)
		})
	}
	for name, who := range map[string]*user{
		"sees his own": w.as("Invoices", "View:OwnedBy:Me", audit), "may get none": w.as("View:OwnedBy:Others", audit),
	} {
		if found := who.list(&journalpb.ListJournalRequest{}); len(found) != 0 {
			t.Errorf("who %s lists %v", name, found)
		}
		_, err := who.journal.GetEntry(t.Context(), &journalpb.GetEntryRequest{Source: source, Revision: 1})
		wantReason(t, "entry", err, codes.NotFound, "RECORD_NOT_FOUND")
	}
	all := w.as("Invoices", "View:OwnedBy:Others", audit)
	if found := all.list(&journalpb.ListJournalRequest{}); len(found) != 1 {
		t.Errorf("who may get it lists %d entries, want 1", len(found))
	}
	if got, err := all.journal.GetEntry(t.Context(), &journalpb.GetEntryRequest{Source: source, Revision: 1}); err != nil || len(got.GetEntry().GetChanges()) != 1 {
		t.Errorf("got entry %v, %v; the counter of invoice numbers is nobody's", got, err)
	}
	_, err := maker.journal.ListJournal(t.Context(), &journalpb.ListJournalRequest{Source: source})
	wantReason(t, "list without the key", err, codes.PermissionDenied, "GRANT_MISSING")
}

func TestFilters(t *testing.T) {
	w := start(t)
	ann, bob := w.as(append(makes, audit)...), w.as(makes...)
	valve := ann.part("Valve")
	hose := bob.part("Hose")
	between := time.Now()
	bob.rename(valve, "Valve, brass")
	ann.invoice()
	for _, c := range []struct {
		name string
		req  *journalpb.ListJournalRequest
		want []int64
	}{
		{"all", &journalpb.ListJournalRequest{PageSize: 1}, []int64{4, 3, 2, 1}},
		{"collection", &journalpb.ListJournalRequest{Collection: "part"}, []int64{3, 2, 1}},
		{"record", &journalpb.ListJournalRequest{Collection: "part", Id: valve.GetId(), PageSize: 1}, []int64{3, 1}},
		{"another record", &journalpb.ListJournalRequest{Collection: "part", Id: hose.GetId()}, []int64{2}},
		{"kind", &journalpb.ListJournalRequest{Kind: journalpb.Kind_KIND_UPDATED}, []int64{3}},
		{"caller", &journalpb.ListJournalRequest{CallerId: bob.ID}, []int64{3, 2}},
		{"actor", &journalpb.ListJournalRequest{ActorId: bob.ID}, nil},
		{"method", &journalpb.ListJournalRequest{Method: "latchkey.invoicing.v1.PartService/CreatePart"}, []int64{2, 1}},
		{"from", &journalpb.ListJournalRequest{FromTime: timestamppb.New(between)}, []int64{4, 3}},
		{"to", &journalpb.ListJournalRequest{ToTime: timestamppb.New(between), PageSize: 1}, []int64{2, 1}},
		{"all at once", &journalpb.ListJournalRequest{Collection: "part", Kind: journalpb.Kind_KIND_CREATED, CallerId: ann.ID, ToTime: timestamppb.New(between)}, []int64{1}},
		{"events", &journalpb.ListJournalRequest{EventType: "latchkey.invoicing.v1.Nothing"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []int64
			for _, e := range ann.list(c.req) {
				got = append(got, e.GetRevision())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got revisions %v, want %v", got, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		req    *journalpb.ListJournalRequest
		code   codes.Code
		reason string
	}{
		"no such source":      {&journalpb.ListJournalRequest{Source: "nowhere"}, codes.NotFound, "RECORD_NOT_FOUND"},
		"no such collection":  {&journalpb.ListJournalRequest{Source: source, Collection: "nothing"}, codes.InvalidArgument, "FIELD_INVALID"},
		"a secret collection": {&journalpb.ListJournalRequest{Source: source, Collection: "counter"}, codes.InvalidArgument, "FIELD_INVALID"},
		"an id alone":         {&journalpb.ListJournalRequest{Source: source, Id: valve.GetId()}, codes.InvalidArgument, "FIELD_INVALID"},
	} {
		_, err := ann.journal.ListJournal(t.Context(), c.req)
		wantReason(t, name, err, c.code, c.reason)
	}
}

func TestRecordAt(t *testing.T) {
	w := start(t)
	maker := w.as(makes...)
	early := timestamppb.Now()
	p := maker.part("first")
	times := []*timestamppb.Timestamp{timestamppb.Now()}
	for _, name := range []string{"second", "third"} {
		maker.rename(p, name)
		times = append(times, timestamppb.Now())
	}
	at := func(req *journalpb.GetRecordAtRequest) (*journalpb.GetRecordAtResponse, error) {
		req.Source, req.Collection, req.Id = source, "part", p.GetId()
		return maker.journal.GetRecordAt(t.Context(), req)
	}
	for i, want := range []string{"first", "second", "third"} {
		for _, req := range []*journalpb.GetRecordAtRequest{
			{At: &journalpb.GetRecordAtRequest_Revision{Revision: int64(i) + 1}}, {At: &journalpb.GetRecordAtRequest_Time{Time: times[i]}},
		} {
			got, err := at(req)
			if err != nil || got.GetRevision() != int64(i)+1 || got.GetRecord().GetFields()["name"].GetStringValue() != want {
				t.Errorf("%v: got %v, %v, want %s", req, got, err, want)
			}
		}
	}
	_, err := at(&journalpb.GetRecordAtRequest{At: &journalpb.GetRecordAtRequest_Time{Time: early}})
	wantReason(t, "before it was", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = at(&journalpb.GetRecordAtRequest{At: &journalpb.GetRecordAtRequest_Revision{Revision: 99}})
	wantReason(t, "to come", err, codes.FailedPrecondition, "REVISION_AHEAD")
	_, err = at(&journalpb.GetRecordAtRequest{At: &journalpb.GetRecordAtRequest_Time{Time: timestamppb.New(time.Now().Add(time.Hour))}})
	wantReason(t, "in the future", err, codes.InvalidArgument, "FIELD_INVALID")
	_, err = at(&journalpb.GetRecordAtRequest{})
	wantReason(t, "no moment", err, codes.InvalidArgument, "FIELD_INVALID")
}
