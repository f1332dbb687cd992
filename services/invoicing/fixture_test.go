package invoicing_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/invoicing"
)

// suite is the service with what it needs of its peers, of which only their answers
// and events are made up: they come over the wire, as the real ones would.
type suite struct {
	*servertest.Server
	t     testing.TB
	peers *peers
}

// peers answers as the service-request service, and emits as the scheduling service.
type peers struct {
	servicerequestpb.UnimplementedPropertyServiceServer
	servicerequestpb.UnimplementedServiceRequestServiceServer

	mu     sync.Mutex
	teams  map[string][]string // properties by user
	work   map[string]*servicerequestpb.ServiceRequestSummary
	broken error
	events *store.DB // of scheduling
}

func (p *peers) LookupPropertyTeams(_ context.Context, req *servicerequestpb.LookupPropertyTeamsRequest) (*servicerequestpb.LookupPropertyTeamsResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &servicerequestpb.LookupPropertyTeamsResponse{PropertyIds: p.teams[req.GetUserId()]}, p.broken
}

func (p *peers) LookupServiceRequest(_ context.Context, req *servicerequestpb.LookupServiceRequestRequest) (*servicerequestpb.LookupServiceRequestResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work, ok := p.work[req.GetId()]
	if !ok && p.broken == nil {
		return nil, fault.NotFound("service_request", req.GetId())
	}
	return &servicerequestpb.LookupServiceRequestResponse{Summary: work}, p.broken
}

// change changes what the peers answer.
func (p *peers) change(f func(*peers)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func start(t testing.TB) *suite { return startAt(t, time.Now) }

func startAt(t testing.TB, now func() time.Time) *suite {
	p := &peers{teams: map[string][]string{}, work: map[string]*servicerequestpb.ServiceRequestSummary{}}
	requests := server.Part{Name: "servicerequest", Start: func(env *server.Env) error {
		servicerequestpb.RegisterPropertyServiceServer(env.Registrar, p)
		servicerequestpb.RegisterServiceRequestServiceServer(env.Registrar, p)
		return nil
	}}
	scheduling := server.Part{Name: "scheduling", Schema: store.NewSchema(), Start: func(env *server.Env) error {
		p.events = env.Store
		return nil
	}}
	s := &suite{Server: servertest.StartAt(t, now, invoicing.Part, requests, scheduling), t: t, peers: p}
	t.Cleanup(s.Verify)
	return s
}

// emit tells that an appointment of the organization was finished.
func (s *suite) emit(done *schedulingpb.AppointmentFinished) {
	s.t.Helper()
	ctx := store.WithOrigin(s.t.Context(), store.Origin{Tenant: s.Organization})
	err := s.peers.events.Update(ctx, func(tx *store.Tx) error {
		tx.Emit(done)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// user is somebody with clients.
type user struct {
	*servertest.User
	parts    pb.PartServiceClient
	invoices pb.InvoiceServiceClient
	vendors  pb.VendorInvoiceServiceClient
}

func (s *suite) as(grants ...string) *user {
	s.t.Helper()
	return clients(s.As(grants...))
}

// again opens another session of a user, who then has these grants.
func (s *suite) again(id string, grants ...string) *user {
	s.t.Helper()
	return clients(s.AsUser(id, authz.SurfaceWeb, append(slices.Clone(grants), "Web")...))
}

func clients(u *servertest.User) *user {
	return &user{u, pb.NewPartServiceClient(u), pb.NewInvoiceServiceClient(u), pb.NewVendorInvoiceServiceClient(u)}
}

const pricing = "setting:see_pricing"

// scopeKeys let a caller see the invoices of everybody.
var scopeKeys = []string{"View:OwnedBy:Me", "View:OwnedBy:Others", "View:OwnedBy:Nobody"}

// officeKeys are all that invoices and parts know.
var officeKeys = append([]string{
	pricing, "Organization", "Organization:Parts", "ControlPanel:Parts:Create", "ControlPanel:Parts:Index",
	"ControlPanel:Parts:Edit:General", "ControlPanel:Parts:Edit:Pricing",
	"Invoices", "Invoices:Approve", "Invoices:Delete", "Invoices:Edit", "Invoices:Void",
	"Invoices:Grid:All", "Invoices:Grid:Open", "Invoices:Grid:Paid", "Invoices:Grid:Unapproved",
}, scopeKeys...)

// office may do everything with invoices and parts.
func (s *suite) office() *user {
	s.t.Helper()
	return s.as(officeKeys...)
}

// without returns the grants less some.
func without(grants []string, less ...string) []string {
	return slices.DeleteFunc(slices.Clone(grants), func(g string) bool { return slices.Contains(less, g) })
}

func eur(minorUnits int64) *typepb.Money {
	return &typepb.Money{MinorUnits: minorUnits, CurrencyCode: "EUR"}
}

// line is one of something at a price.
func line(minorUnits int64) *pb.InvoiceLine {
	return &pb.InvoiceLine{Description: "Labour", QuantityThousandths: 1000, UnitPrice: eur(minorUnits)}
}

// create makes an open invoice of one line.
func (u *user) create(t testing.TB, minorUnits int64) *pb.Invoice {
	t.Helper()
	return must(u.invoices.CreateInvoice(t.Context(), &pb.CreateInvoiceRequest{Lines: []*pb.InvoiceLine{line(minorUnits)}}))(t).GetInvoice()
}

// createUnapproved makes an invoice of one line that waits for approval.
func (u *user) createUnapproved(t testing.TB, minorUnits int64) *pb.Invoice {
	t.Helper()
	u.Set("invoice_approver", servertest.UUID(77))
	defer u.Set("invoice_approver", "")
	return u.create(t, minorUnits)
}

func (u *user) get(t testing.TB, id string) *pb.Invoice {
	t.Helper()
	return must(u.invoices.GetInvoice(t.Context(), &pb.GetInvoiceRequest{Id: id}))(t).GetInvoice()
}

// must returns the value of a call that has to succeed.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatalf("got %v", err)
		}
		return v
	}
}

// fails checks the code and the reason of an error, and the first field it names.
func fails(t testing.TB, doing string, err error, code codes.Code, reason, field string) {
	t.Helper()
	gotReason, gotField := reasonOf(err)
	if status.Code(err) != code || gotReason != reason || field != "" && gotField != field {
		t.Errorf("%s: got %v %s %s (%v), want %v %s %s", doing, status.Code(err), gotReason, gotField, err, code, reason, field)
	}
}

// reasonOf returns the reason of an error and the first field that it names.
func reasonOf(err error) (reason, field string) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
			if field == "" {
				field = d.GetMetadata()["field"]
			}
		case *errdetails.BadRequest:
			field = d.GetFieldViolations()[0].GetField()
		}
	}
	return reason, field
}

// equal compares whole messages.
func equal(t testing.TB, doing string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", doing, got, want)
	}
}

// eventually waits until f is true.
func eventually(t testing.TB, waiting string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: it did not come", waiting)
		}
	}
}

// call calls a method of any service with a request, and returns its answer.
func call(t testing.TB, c grpc.ClientConnInterface, method string, req, resp proto.Message) error {
	t.Helper()
	return c.Invoke(t.Context(), method, req, resp)
}

func short(method string) string { return method[strings.LastIndex(method, "/")+1:] }
