package scheduling

import (
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/server"
)

// Part is the service scheduling.
var Part = server.Part{Name: "scheduling", Schema: schema, Start: start}

func start(env *server.Env) error {
	servicerequest := env.Conn("servicerequest")
	peers := &peers{
		users:      identitypb.NewUserServiceClient(env.Conn("identity")),
		parts:      invoicingpb.NewPartServiceClient(env.Conn("invoicing")),
		properties: servicerequestpb.NewPropertyServiceClient(servicerequest),
		requests:   servicerequestpb.NewServiceRequestServiceClient(servicerequest),
	}
	pb.RegisterServiceAgentServiceServer(env.Registrar, &serviceAgentService{db: env.Store, newID: env.NewID, peers: peers})
	pb.RegisterAppointmentServiceServer(env.Registrar, &appointmentService{db: env.Store, newID: env.NewID, peers: peers})
	serveFeed(env)
	showJournal(env.Journal)
	env.Consume("servicerequest", onRequestCancelled, "latchkey.servicerequest.v1.ServiceRequestCancelled")
	return nil
}
