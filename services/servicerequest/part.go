package servicerequest

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"gocloud.dev/blob"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// Part is the service, to be run by server.Main.
var Part = server.Part{Name: "servicerequest", Schema: schema, Start: start}

// service answers all methods of this package.
type service struct {
	pb.UnimplementedPropertyServiceServer
	pb.UnimplementedServiceRequestServiceServer
	pb.UnimplementedCommentServiceServer
	pb.UnimplementedAttachmentServiceServer

	db    *store.DB
	log   *slog.Logger
	now   func() time.Time
	newID func() string
	users identitypb.UserServiceClient
	// fields says which custom fields and labels there are, and defined has what it said.
	fields  identitypb.CustomFieldServiceClient
	defined *lease.Cache[definition]
	blobs   *blob.Bucket
}

func start(env *server.Env) error {
	blobs, err := env.Blobs(context.Background())
	if err != nil {
		return fmt.Errorf("open the store of photos and videos: %w", err)
	}
	s := &service{
		db: env.Store, log: env.Log, now: env.Now, newID: env.NewID, blobs: blobs,
		users: identitypb.NewUserServiceClient(env.Conn("identity")), fields: identitypb.NewCustomFieldServiceClient(env.Conn("identity")),
	}
	s.defined = server.Remember(env, "identity", "definitions", s.loadDefinition)
	pb.RegisterPropertyServiceServer(env.Registrar, s)
	pb.RegisterServiceRequestServiceServer(env.Registrar, s)
	pb.RegisterCommentServiceServer(env.Registrar, s)
	pb.RegisterAttachmentServiceServer(env.Registrar, s)
	showJournal(env.Journal)
	env.GoAlone("upkeep", s.upkeepForever)
	return nil
}
