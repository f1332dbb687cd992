package invoicing

import (
	"log/slog"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// Part is the service, to be run by server.Main.
var Part = server.Part{Name: "invoicing", Schema: schema, Start: start}

// service answers all methods of this package.
type service struct {
	pb.UnimplementedPartServiceServer
	pb.UnimplementedInvoiceServiceServer
	pb.UnimplementedVendorInvoiceServiceServer

	db         *store.DB
	log        *slog.Logger
	newID      func() string
	requests   servicerequestpb.ServiceRequestServiceClient
	properties servicerequestpb.PropertyServiceClient
}

func start(env *server.Env) error {
	peer := env.Conn("servicerequest")
	s := &service{
		db: env.Store, log: env.Log, newID: env.NewID,
		requests:   servicerequestpb.NewServiceRequestServiceClient(peer),
		properties: servicerequestpb.NewPropertyServiceClient(peer),
	}
	pb.RegisterPartServiceServer(env.Registrar, s)
	pb.RegisterInvoiceServiceServer(env.Registrar, s)
	pb.RegisterVendorInvoiceServiceServer(env.Registrar, s)
	s.showJournal(env.Journal)
	env.Consume("scheduling", s.draft, "latchkey.scheduling.v1.AppointmentFinished")
	env.GoAlone("purge", s.purgeForever)
	return nil
}
