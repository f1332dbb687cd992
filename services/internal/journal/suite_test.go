package journal_test

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/invoicing"
)

const (
	source  = "invoicing"
	audit   = "Organization: Users"
	owner   = "Organization: Owner"
	pricing = "setting:see_pricing"
)

// makes are the grants of whoever makes and changes parts and invoices.
var makes = []string{
	"ControlPanel:Parts:Create", "ControlPanel:Parts:Edit:General", "ControlPanel:Parts:Edit:Pricing", "Organization:Parts", "Organization",
	"Invoices", "Invoices:Edit", "View:OwnedBy:Me", pricing,
}

// world is the service invoicing.
type world struct {
	*servertest.Server
	t *testing.T
}

func start(t *testing.T) *world {
	t.Helper()
	return &world{servertest.Start(t, invoicing.Part), t}
}

// user is somebody with clients.
type user struct {
	*servertest.User
	t        *testing.T
	journal  journalpb.JournalServiceClient
	parts    invoicingpb.PartServiceClient
	invoices invoicingpb.InvoiceServiceClient
}

func (w *world) as(grants ...string) *user { return w.over(w.As(grants...)) }

func (w *world) over(u *servertest.User) *user {
	return &user{u, w.t, journalpb.NewJournalServiceClient(u), invoicingpb.NewPartServiceClient(u), invoicingpb.NewInvoiceServiceClient(u)}
}

func money(minorUnits int64) *typepb.Money {
	return &typepb.Money{MinorUnits: minorUnits, CurrencyCode: "EUR"}
}

// part makes a part.
func (u *user) part(name string) *invoicingpb.Part {
	u.t.Helper()
	resp, err := u.parts.CreatePart(u.t.Context(), &invoicingpb.CreatePartRequest{Name: name, Price: money(4711)})
	if err != nil {
		u.t.Fatal(err)
	}
	return resp.GetPart()
}

// invoice makes an invoice of the user's own.
func (u *user) invoice() *invoicingpb.Invoice {
	u.t.Helper()
	resp, err := u.invoices.CreateInvoice(u.t.Context(), &invoicingpb.CreateInvoiceRequest{
		Lines: []*invoicingpb.InvoiceLine{{Description: "Valve", QuantityThousandths: 1000, UnitPrice: money(4711)}},
	})
	if err != nil {
		u.t.Fatal(err)
	}
	return resp.GetInvoice()
}

// list returns all that a request lists, page by page.
func (u *user) list(req *journalpb.ListJournalRequest) (found []*journalpb.Entry) {
	u.t.Helper()
	req = proto.CloneOf(req)
	req.Source = source
	for {
		resp, err := u.journal.ListJournal(u.t.Context(), req)
		if err != nil {
			u.t.Fatal(err)
		}
		found = append(found, resp.GetEntries()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return found
		}
	}
}

// history returns the history of a record, newest first.
func (u *user) history(collection, id string) (found []*journalpb.Entry, err error) {
	u.t.Helper()
	req := &journalpb.ListHistoryRequest{Source: source, Collection: collection, Id: id, PageSize: 2}
	for {
		resp, err := u.journal.ListHistory(u.t.Context(), req)
		if err != nil {
			return nil, err
		}
		found = append(found, resp.GetEntries()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return found, nil
		}
	}
}

// verify returns the last message of a verification.
func (u *user) verify(checkpoint string) (last *journalpb.VerifyJournalResponse, err error) {
	u.t.Helper()
	stream, err := u.journal.VerifyJournal(u.t.Context(), &journalpb.VerifyJournalRequest{Source: source, Checkpoint: checkpoint})
	if err != nil {
		u.t.Fatal(err)
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		last = resp
	}
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func wantReason(t *testing.T, what string, err error, code codes.Code, reason string) {
	t.Helper()
	if got := reasonOf(err); status.Code(err) != code || got != reason {
		t.Errorf("%s: got %v %s (%v), want %v %s", what, status.Code(err), got, err, code, reason)
	}
}
