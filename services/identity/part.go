package identity

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/seal"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// Part is the service, to be run alone or with others.
var Part = server.Part{Name: "identity", Schema: schema, Start: start}

type service struct {
	pb.UnimplementedAccountingClassServiceServer
	pb.UnimplementedApiKeyServiceServer
	pb.UnimplementedAutomationServiceServer
	pb.UnimplementedBillingAccountServiceServer
	pb.UnimplementedBootstrapServiceServer
	pb.UnimplementedBrandApiKeyServiceServer
	pb.UnimplementedBrandServiceServer
	pb.UnimplementedCalendarServiceServer
	pb.UnimplementedControlPanelServiceServer
	pb.UnimplementedCustomFieldServiceServer
	pb.UnimplementedFactorServiceServer
	pb.UnimplementedImpersonationServiceServer
	pb.UnimplementedLabelServiceServer
	pb.UnimplementedNotificationServiceServer
	pb.UnimplementedOauthClientServiceServer
	pb.UnimplementedOrganizationServiceServer
	pb.UnimplementedOutsideLinkServiceServer
	pb.UnimplementedOutsideProviderServiceServer
	pb.UnimplementedOutsideSignInServiceServer
	pb.UnimplementedPasswordServiceServer
	pb.UnimplementedProfileServiceServer
	pb.UnimplementedServiceAccountServiceServer
	pb.UnimplementedSessionServiceServer
	pb.UnimplementedUserFactorServiceServer
	pb.UnimplementedUserServiceServer

	db     *store.DB
	log    *slog.Logger
	now    func() time.Time
	newID  func() string
	random io.Reader
	grants permissionspb.GrantServiceClient
	agents schedulingpb.ServiceAgentServiceClient
	// keepers look after the stores of the services that keep something of organizations.
	keepers map[string]operatorpb.OperatorServiceClient
	erase   chan struct{} // has a token when there is something for eraseForever
	hub     *lease.Hub
	hasher  *hasher
	public  grpc.ClientConnInterface // to this process, as anybody outside has it
	issuer  string                   // under which tokens are issued; empty where HTTP is off
	keys    *keyring                 // that sign them; nil where HTTP is off
	sealer  *seal.Box                // nil if there is a sealError
	// sealError is why secrets cannot be sealed, and so second factors not be kept.
	sealError error
	salt      []byte // of unknown addresses
	// relyingParty checks what passkeys answer; nil if there is a passkeyError.
	relyingParty *webauthn.WebAuthn
	passkeyError error
	outside      *outside
	automated    time.Time // when it was last looked what the suite is to do by itself

	crossOrigin    *http.CrossOriginProtection
	pageKey        string // by which our own pages call this process
	proxies        server.Proxies
	wrongUserCodes *limiter // of devices, by user
	wrongCodes     *limiter // of ClaimOwnership
	resetsAsked    *limiter // by where from
	pushes         *limiter // of requests, by client without a secret and where from
}

func start(env *server.Env) error { return newService(env).serve(env) }

func (s *service) serve(env *server.Env) error {
	env.AddHub(s.hub)
	pb.RegisterAccountingClassServiceServer(env.Registrar, s)
	pb.RegisterApiKeyServiceServer(env.Registrar, s)
	pb.RegisterAutomationServiceServer(env.Registrar, s)
	pb.RegisterBillingAccountServiceServer(env.Registrar, s)
	pb.RegisterBootstrapServiceServer(env.Registrar, s)
	pb.RegisterBrandApiKeyServiceServer(env.Registrar, s)
	pb.RegisterBrandServiceServer(env.Registrar, s)
	pb.RegisterCalendarServiceServer(env.Registrar, s)
	pb.RegisterControlPanelServiceServer(env.Registrar, s)
	pb.RegisterCustomFieldServiceServer(env.Registrar, s)
	pb.RegisterFactorServiceServer(env.Registrar, s)
	pb.RegisterImpersonationServiceServer(env.Registrar, s)
	pb.RegisterLabelServiceServer(env.Registrar, s)
	pb.RegisterNotificationServiceServer(env.Registrar, s)
	pb.RegisterOauthClientServiceServer(env.Registrar, s)
	pb.RegisterOrganizationServiceServer(env.Registrar, s)
	pb.RegisterOutsideLinkServiceServer(env.Registrar, s)
	pb.RegisterOutsideProviderServiceServer(env.Registrar, s)
	pb.RegisterOutsideSignInServiceServer(env.Registrar, s)
	pb.RegisterPasswordServiceServer(env.Registrar, s)
	pb.RegisterProfileServiceServer(env.Registrar, s)
	pb.RegisterServiceAccountServiceServer(env.Registrar, s)
	pb.RegisterSessionServiceServer(env.Registrar, s)
	pb.RegisterUserFactorServiceServer(env.Registrar, s)
	pb.RegisterUserServiceServer(env.Registrar, s)
	if err := s.openOAuth(env); err != nil {
		return err
	}
	showJournal(env.Journal)
	if err := s.saltUnknown(context.Background()); err != nil {
		return err
	}
	env.GoAlone("upkeep", s.upkeep)
	env.GoAlone("erasure", s.eraseForever)
	if err := s.offerMail(env); err != nil {
		return err
	}
	return s.offerClaim(env.BootstrapCode, env.Addr)
}

func newService(env *server.Env) *service {
	sealer, sealError := env.Seal()
	relyingParty, passkeyError := newRelyingParty(env.Passkeys)
	keepers := map[string]operatorpb.OperatorServiceClient{}
	for _, name := range []string{"identity", "permissions", "servicerequest", "scheduling", "invoicing"} {
		keepers[name] = operatorpb.NewOperatorServiceClient(env.Conn(name))
	}
	s := &service{
		keepers: keepers, erase: make(chan struct{}, 1),
		relyingParty: relyingParty, passkeyError: passkeyError,
		sealer: sealer, sealError: sealError,
		outside: newOutside(env.Outside, env.Now), proxies: env.Proxies,
		db: env.Store, log: env.Log, now: env.Now, newID: env.NewID, random: rand.Reader,
		public: env.Public, crossOrigin: http.NewCrossOriginProtection(),
		wrongUserCodes: newLimiter("wrong codes of devices", 10, 10*time.Minute, env.Now),
		grants:         permissionspb.NewGrantServiceClient(env.Conn("permissions")),
		agents:         schedulingpb.NewServiceAgentServiceClient(env.Conn("scheduling")),
		hub: lease.NewHub(lease.HubConfig{
			Source: "identity", Duration: env.Lease, FirstStart: env.FirstStart, Replicated: env.Store.Shared(), Log: env.Log,
		}),
		hasher:      newHasher(currentParams, runtime.GOMAXPROCS(0), rand.Reader),
		wrongCodes:  newLimiter("wrong one-time codes", 10, time.Minute, env.Now),
		pushes:      newLimiter("pushed requests", maxPushes, time.Minute, env.Now),
		resetsAsked: newLimiter("codes for passwords", 10, 10*time.Minute, env.Now),
	}
	s.pageKey = s.newText()
	return s
}

// newPersonID returns the id of a new person.
//
// SECURITY: an id that NewID makes tells when it was made. That of a person must
// not, or an organization could see that a person was known before it added her.
func (s *service) newPersonID() string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(s.newID())).String()
}

// shutOut runs a change that shuts somebody out, and returns when no service of the
// suite goes by what was true before it. The tags say what that was. A repeat that
// changes nothing waits as well.
//
// SECURITY: the change runs to its end even if the caller goes away, so that there is
// no change that was committed and not published.
func (s *service) shutOut(ctx context.Context, change func(context.Context) error, tags ...string) error {
	return s.shutOutAll(ctx, func(ctx context.Context) ([]string, error) { return tags, change(ctx) })
}

// shutOutAll is shutOut for a change that finds out itself what it changes.
func (s *service) shutOutAll(ctx context.Context, change func(context.Context) (tags []string, err error)) error {
	return s.publish(ctx, func(ctx context.Context) ([]string, error) {
		tags, err := change(ctx)
		if err != nil {
			return nil, err
		}
		return tags, s.tellVerifiers(ctx, tags...)
	})
}

// doAndShutOut is do for a change that shuts somebody out, unless the request only validates
// it. The change returns the tags of whom. Those in always are published after a repeat, too,
// which does not run it.
func doAndShutOut[R proto.Message](ctx context.Context, s *service, req interface {
	proto.Message
	GetValidateOnly() bool
}, f func(*store.Tx) (R, []string, error), always ...string) (resp R, err error) {
	change := func(ctx context.Context) (tags []string, err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (r R, err error) {
			r, tags, err = f(tx)
			return r, err
		})
		return append(tags, always...), err
	}
	if req.GetValidateOnly() {
		_, err = change(ctx)
	} else {
		err = s.shutOutAll(ctx, change)
	}
	return resp, err
}

// publish runs a change, and returns when no service of the suite goes by what was true
// before it under the tags.
func (s *service) publish(ctx context.Context, change func(context.Context) (tags []string, err error)) error {
	end := s.hub.Begin()
	defer end()
	tags, err := change(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	sequence := s.hub.Publish(tags...)
	end()
	return s.hub.Wait(ctx, sequence)
}

// The tags under which other processes keep what ResolveSession answered. An API key
// is known to them as a session with its id.
func sessionTag(id string) string { return "session:" + id }
func userTag(id string) string    { return "user:" + id }

// organizationTag is under which they keep everybody who is in an organization.
func organizationTag(id string) string { return "organization:" + id }

// definitionsTag is under which they keep what LookupDefinitions answered.
func definitionsTag(organization string) string { return "definitions:" + organization }
