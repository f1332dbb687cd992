package scheduling_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/invoicing"
	"latchkey.dev/services/permissions"
	"latchkey.dev/services/scheduling"
	"latchkey.dev/services/servicerequest"
)

// company is the whole suite, and an office that may do what these tests need.
type company struct {
	*servertest.Server
	t  *testing.T
	db *store.DB // of scheduling

	office       *servertest.User
	agents       pb.ServiceAgentServiceClient
	appointments pb.AppointmentServiceClient
	users        identitypb.UserServiceClient
	properties   servicerequestpb.PropertyServiceClient
	requests     servicerequestpb.ServiceRequestServiceClient
	parts        invoicingpb.PartServiceClient
	invoices     invoicingpb.InvoiceServiceClient
}

func newCompany(t *testing.T) *company { return newCompanyWith(t, func(*server.Env) {}) }

// newCompanyWith changes what scheduling gets from its process.
func newCompanyWith(t *testing.T, change func(*server.Env)) *company {
	c := &company{t: t}
	part := scheduling.Part
	part.Start = func(env *server.Env) error {
		c.db = env.Store
		changed := *env
		change(&changed)
		return scheduling.Part.Start(&changed)
	}
	c.Server = servertest.Start(t, identity.Part, permissions.Part, servicerequest.Part, part, invoicing.Part)
	c.office = c.AsRole("OA")
	c.agents, c.appointments = pb.NewServiceAgentServiceClient(c.office), pb.NewAppointmentServiceClient(c.office)
	c.users = identitypb.NewUserServiceClient(c.office)
	c.properties = servicerequestpb.NewPropertyServiceClient(c.office)
	c.requests = servicerequestpb.NewServiceRequestServiceClient(c.office)
	c.parts, c.invoices = invoicingpb.NewPartServiceClient(c.office), invoicingpb.NewInvoiceServiceClient(c.office)
	return c
}

// must ends the test if a call that prepares it failed.
func must[R any](t *testing.T) func(R, error) R {
	return func(resp R, err error) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
}

func (c *company) user(name string) string {
	c.t.Helper()
	resp := must[*identitypb.CreateUserResponse](c.t)(c.users.CreateUser(c.t.Context(), &identitypb.CreateUserRequest{
		Email: name + "@example.com", DisplayName: name,
	}))
	return resp.GetUser().GetId()
}

func (c *company) agent(userID string) *pb.ServiceAgent {
	c.t.Helper()
	return must[*pb.CreateServiceAgentResponse](c.t)(c.agents.CreateServiceAgent(c.t.Context(), &pb.CreateServiceAgentRequest{
		UserId: userID, TimeZone: "Europe/Berlin",
	})).GetServiceAgent()
}

func (c *company) property(name string) string {
	c.t.Helper()
	return must[*servicerequestpb.CreatePropertyResponse](c.t)(c.properties.CreateProperty(c.t.Context(), &servicerequestpb.CreatePropertyRequest{
		Name: name, TimeZone: "Europe/Berlin",
	})).GetProperty().GetId()
}

func (c *company) unit(property, name string) string {
	c.t.Helper()
	return must[*servicerequestpb.CreateUnitResponse](c.t)(c.properties.CreateUnit(c.t.Context(), &servicerequestpb.CreateUnitRequest{
		PropertyId: property, Name: name,
	})).GetUnit().GetId()
}

func (c *company) request(property, unit string) string {
	c.t.Helper()
	return must[*servicerequestpb.CreateServiceRequestResponse](c.t)(c.requests.CreateServiceRequest(c.t.Context(), &servicerequestpb.CreateServiceRequestRequest{
		PropertyId: property, UnitId: unit, Title: "The boiler is cold",
	})).GetServiceRequest().GetId()
}

func (c *company) cancel(request string) {
	c.t.Helper()
	must[*servicerequestpb.CancelServiceRequestResponse](c.t)(c.requests.CancelServiceRequest(c.t.Context(), &servicerequestpb.CancelServiceRequestRequest{
		Id: request, Reason: "It is warm again.",
	}))
}

func (c *company) create(req *pb.CreateAppointmentRequest) (*pb.Appointment, error) {
	req.Style, req.Title, req.Duration = pb.AppointmentStyle_APPOINTMENT_STYLE_QUEUED, "Mend the boiler", durationpb.New(time.Hour)
	resp, err := c.appointments.CreateAppointment(c.t.Context(), req)
	return resp.GetAppointment(), err
}

func (c *company) get(id string) *pb.Appointment {
	c.t.Helper()
	return must[*pb.GetAppointmentResponse](c.t)(c.appointments.GetAppointment(c.t.Context(), &pb.GetAppointmentRequest{Id: id})).GetAppointment()
}

// await asks until the answer is yes.
func (c *company) await(what string, yes func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !yes(); {
		if time.Now().After(deadline) {
			c.t.Fatalf("it never came about: %s", what)
		}
	}
}

func wantOutcome(t *testing.T, call string, err error, want string) {
	t.Helper()
	got := "OK"
	if err != nil {
		got = status.Code(err).String()
		for _, d := range status.Convert(err).Details() {
			if i, ok := d.(*errdetails.ErrorInfo); ok {
				got += " " + i.GetReason() + " " + i.GetMetadata()["kind"]
			}
		}
	}
	if got != want {
		t.Errorf("%s: got %s (%v), want %s", call, got, err, want)
	}
}

func TestServiceAgentIsAMember(t *testing.T) {
	c := newCompany(t)
	ada := c.user("ada")
	req := &pb.CreateServiceAgentRequest{RequestId: servertest.UUID(1), UserId: ada, TimeZone: "Europe/Berlin"}
	first, err := c.agents.CreateServiceAgent(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	got := first.GetServiceAgent()
	want := &pb.ServiceAgent{
		Id: got.GetId(), Etag: got.GetEtag(), CreateTime: got.GetCreateTime(), UpdateTime: got.GetUpdateTime(),
		UserId: ada, DisplayName: proto.String("ada"), TimeZone: proto.String("Europe/Berlin"), Active: proto.Bool(true),
	}
	if !proto.Equal(got, want) {
		t.Errorf("created:\n got %v\nwant %v", got, want)
	}
	_, err = c.agents.CreateServiceAgent(t.Context(), &pb.CreateServiceAgentRequest{UserId: ada, TimeZone: "UTC"})
	wantOutcome(t, "the same user again", err, "AlreadyExists RECORD_EXISTS service_agent")
	_, err = c.agents.CreateServiceAgent(t.Context(), &pb.CreateServiceAgentRequest{UserId: servertest.UUID(9), TimeZone: "UTC"})
	wantOutcome(t, "an unknown user", err, "NotFound RECORD_NOT_FOUND user")

	other := pb.NewServiceAgentServiceClient(c.InOrganization(servertest.UUID(77)).AsRole("OA"))
	_, err = other.CreateServiceAgent(t.Context(), &pb.CreateServiceAgentRequest{UserId: ada, TimeZone: "UTC"})
	wantOutcome(t, "a user of another organization", err, "NotFound RECORD_NOT_FOUND user")

	// The first answer stands, whatever becomes of the user.
	must[*identitypb.DeactivateUserResponse](t)(c.users.DeactivateUser(t.Context(), &identitypb.DeactivateUserRequest{Id: ada}))
	again, err := c.agents.CreateServiceAgent(t.Context(), req)
	if err != nil || !proto.Equal(again, first) {
		t.Errorf("the repeat: got %v, %v, want %v", again, err, first)
	}
	req.RequestId = ""
	_, err = c.agents.CreateServiceAgent(t.Context(), req)
	wantOutcome(t, "a user who was shut out", err, "NotFound RECORD_NOT_FOUND user")
}

func TestAppointmentHasARealPlace(t *testing.T) {
	c := newCompany(t)
	home, elsewhere := c.property("Harbour Street 1"), c.property("Harbour Street 2")
	flat, other, far := c.unit(home, "2a"), c.unit(home, "2b"), c.unit(elsewhere, "1")
	forFlat, forHome := c.request(home, flat), c.request(home, "")
	unknown := servertest.UUID(9)
	for _, x := range []struct {
		request, property, unit string
		want                    string
	}{
		{"", "", "", "OK"},
		{"", home, "", "OK"},
		{"", home, flat, "OK"},
		{"", unknown, "", "NotFound RECORD_NOT_FOUND property"},
		{"", home, unknown, "NotFound RECORD_NOT_FOUND unit"},
		{"", home, far, "NotFound RECORD_NOT_FOUND unit"},
		{"", "", flat, "InvalidArgument FIELD_INVALID "},
		{unknown, "", "", "NotFound RECORD_NOT_FOUND service_request"},
		{forFlat, "", "", "OK"},
		{forFlat, home, flat, "OK"},
		{forFlat, elsewhere, "", "InvalidArgument FIELD_INVALID "},
		{forFlat, home, other, "InvalidArgument FIELD_INVALID "},
		{forHome, "", "", "OK"},
		{forHome, "", other, "OK"},
		{forHome, "", far, "NotFound RECORD_NOT_FOUND unit"},
	} {
		name := fmt.Sprintf("create for request %q at %q in %q", x.request, x.property, x.unit)
		a, err := c.create(&pb.CreateAppointmentRequest{ServiceRequestId: x.request, PropertyId: x.property, UnitId: x.unit})
		wantOutcome(t, name, err, x.want)
		if err != nil {
			continue
		}
		property, unit := x.property, x.unit
		if x.request != "" {
			property = home
		}
		if x.request == forFlat {
			unit = flat
		}
		if a.GetServiceRequestId() != x.request || a.GetPropertyId() != property || a.GetUnitId() != unit {
			t.Errorf("%s: got %v, want it at %q in %q", name, a, property, unit)
		}
	}
}

func TestCancelledServiceRequestCancelsAppointments(t *testing.T) {
	c := newCompany(t)
	agent := c.agent(c.user("ada"))
	request := c.request(c.property("Harbour Street 1"), "")
	waiting, err := c.create(&pb.CreateAppointmentRequest{ServiceRequestId: request})
	if err != nil {
		t.Fatal(err)
	}
	planned := must[*pb.CreateAppointmentResponse](t)(c.appointments.CreateAppointment(t.Context(), &pb.CreateAppointmentRequest{
		Style: pb.AppointmentStyle_APPOINTMENT_STYLE_AD_HOC, Title: "Mend the boiler", Duration: durationpb.New(time.Hour),
		ServiceRequestId: request, ServiceAgentId: agent.GetId(), StartTime: timestamppb.Now(),
	})).GetAppointment()
	unrelated, err := c.create(&pb.CreateAppointmentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	c.cancel(request)
	for _, a := range []*pb.Appointment{waiting, planned} {
		c.await("the appointment is cancelled", func() bool {
			return c.get(a.GetId()).GetState() == pb.AppointmentState_APPOINTMENT_STATE_CANCELLED
		})
	}
	if got := c.get(unrelated.GetId()).GetState(); got != pb.AppointmentState_APPOINTMENT_STATE_QUEUED {
		t.Errorf("the unrelated one: got %v, want QUEUED", got)
	}
	_, err = c.create(&pb.CreateAppointmentRequest{ServiceRequestId: request})
	wantOutcome(t, "one more for it", err, "FailedPrecondition PRECONDITION_FAILED ")
}

// TestCancellationIsSeenBeforeItIsHeard has a service request cancelled whose event
// never arrives.
func TestCancellationIsSeenBeforeItIsHeard(t *testing.T) {
	c := newCompanyWith(t, func(env *server.Env) { env.Consume = func(string, server.EventHandler, ...string) {} })
	request := c.request(c.property("Harbour Street 1"), "")
	c.cancel(request)
	_, err := c.create(&pb.CreateAppointmentRequest{ServiceRequestId: request})
	wantOutcome(t, "create", err, "FailedPrecondition PRECONDITION_FAILED ")
}

// TestCancellationWinsARace has the cancellation arrive between the look at the
// service request, which is still open then, and the transaction.
func TestCancellationWinsARace(t *testing.T) {
	c := newCompany(t)
	request := c.request(c.property("Harbour Street 1"), "")
	payload, err := proto.Marshal(&servicerequestpb.ServiceRequestCancelled{ServiceRequestId: request})
	if err != nil {
		t.Fatal(err)
	}
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: c.Organization})
	err = c.db.Update(ctx, func(tx *store.Tx) error {
		return scheduling.OnRequestCancelled(context.Background(), tx, &eventpb.WatchEventsResponse{Payload: payload})
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.create(&pb.CreateAppointmentRequest{ServiceRequestId: request})
	wantOutcome(t, "create", err, "FailedPrecondition PRECONDITION_FAILED ")
}

// TestFinishedAppointmentIsInvoiced lets a service agent work with parts of the price
// book, and waits for the invoice.
func TestFinishedAppointmentIsInvoiced(t *testing.T) {
	c := newCompany(t)
	ada := c.user("ada")
	agent := c.agent(ada)
	tech := pb.NewAppointmentServiceClient(c.AsUser(ada, authz.SurfaceApp, "App", "My Schedule:Appointments", "Appointments:Finish:AddParts", "View:OwnedBy:Me"))
	property := c.property("Harbour Street 1")
	request := c.request(property, "")
	var valve, oldValve string
	for _, id := range []*string{&valve, &oldValve} {
		*id = must[*invoicingpb.CreatePartResponse](t)(c.parts.CreatePart(t.Context(), &invoicingpb.CreatePartRequest{Name: "Valve"})).GetPart().GetId()
	}
	must[*invoicingpb.UpdatePartResponse](t)(c.parts.UpdatePart(t.Context(), &invoicingpb.UpdatePartRequest{
		Part: &invoicingpb.Part{Id: oldValve, Active: proto.Bool(false)},
	}))
	a, err := c.create(&pb.CreateAppointmentRequest{ServiceRequestId: request})
	if err != nil {
		t.Fatal(err)
	}
	must[*pb.AssignAppointmentResponse](t)(c.appointments.AssignAppointment(t.Context(), &pb.AssignAppointmentRequest{
		Id: a.GetId(), ServiceAgentId: agent.GetId(), StartTime: timestamppb.Now(),
	}))
	started := must[*pb.StartAppointmentResponse](t)(tech.StartAppointment(t.Context(), &pb.StartAppointmentRequest{Id: a.GetId()})).GetAppointment()
	for _, part := range []string{servertest.UUID(9), oldValve} {
		_, err := tech.FinishAppointment(t.Context(), &pb.FinishAppointmentRequest{
			Id: a.GetId(), Parts: []*pb.UsedPart{{PartId: valve, QuantityThousandths: 1}, {PartId: part, QuantityThousandths: 1}},
		})
		wantOutcome(t, "finish with a part that is not in use", err, "NotFound RECORD_NOT_FOUND part")
	}
	if got := c.get(a.GetId()); got.GetEtag() != started.GetEtag() {
		t.Errorf("after the refusals: got %v, want %v", got, started)
	}
	req := &pb.FinishAppointmentRequest{
		RequestId: servertest.UUID(1), Id: a.GetId(), Summary: "Valve replaced.",
		Parts: []*pb.UsedPart{{PartId: valve, QuantityThousandths: 1500}},
	}
	first := must[*pb.FinishAppointmentResponse](t)(tech.FinishAppointment(t.Context(), req))
	// The first answer stands, whatever becomes of the part.
	must[*invoicingpb.UpdatePartResponse](t)(c.parts.UpdatePart(t.Context(), &invoicingpb.UpdatePartRequest{
		Part: &invoicingpb.Part{Id: valve, Active: proto.Bool(false)},
	}))
	if again, err := tech.FinishAppointment(t.Context(), req); err != nil || !proto.Equal(again, first) {
		t.Errorf("the repeat: got %v, %v, want %v", again, err, first)
	}
	if got := first.GetAppointment(); !slices.EqualFunc(got.GetParts(), req.GetParts(), func(a, b *pb.UsedPart) bool { return proto.Equal(a, b) }) {
		t.Errorf("the parts: got %v, want %v", got.GetParts(), req.GetParts())
	}
	var invoices []*invoicingpb.Invoice
	c.await("there is an invoice", func() bool {
		invoices = must[*invoicingpb.ListInvoicesResponse](t)(c.invoices.ListInvoices(t.Context(), &invoicingpb.ListInvoicesRequest{
			View: invoicingpb.InvoiceView_INVOICE_VIEW_UNAPPROVED,
		})).GetInvoices()
		return len(invoices) > 0
	})
	got := invoices[0]
	if len(invoices) != 1 || got.GetAppointmentId() != a.GetId() || got.GetServiceRequestId() != request || got.GetPropertyId() != property ||
		got.GetOwnerId() != ada || len(got.GetLines()) != 1 || got.GetLines()[0].GetPartId() != valve || got.GetLines()[0].GetQuantityThousandths() != 1500 {
		t.Errorf("got %v, want one invoice of the appointment with the part", invoices)
	}
}
