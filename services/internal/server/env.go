package server

import (
	"context"
	"log/slog"
	"time"

	"gocloud.dev/blob"
	"google.golang.org/grpc"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"

	"latchkey.dev/services/internal/journal"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/mail"
	"latchkey.dev/services/internal/seal"
	"latchkey.dev/services/internal/store"
)

// Part is one service of the suite, to be run in a process of its own or with others.
type Part struct {
	// Name is the service's name, "invoicing": of its file, its peers' addresses and
	// its logs.
	Name string
	// Schema is what it keeps; nil if it keeps nothing.
	Schema *store.Schema
	// Start registers the service's methods and starts its background work.
	Start func(*Env) error
}

// Env is all that a part gets from the outside.
type Env struct {
	Store *store.DB
	Log   *slog.Logger
	Now   func() time.Time
	// NewID returns a new UUID, version 7 (RFC 9562): ids made later sort later.
	NewID func() string
	// Registrar takes the part's gRPC services.
	Registrar grpc.ServiceRegistrar
	// Conn returns the connection to a service, through which this part calls as
	// itself. The tenant and the caller of the context's store.Origin travel along.
	Conn func(service string) grpc.ClientConnInterface
	// Public is a connection to this process as anybody outside has, without the
	// part's own credentials.
	Public grpc.ClientConnInterface
	// Go runs background work until ctx ends. An error that it returns stops the process.
	Go func(name string, run func(ctx context.Context) error)
	// GoAlone is Go for work that one process at a time does of those that share the part's
	// store: when that one is gone, another does it from the beginning. The Updates in its
	// ctx commit only while the process has the work, so one that was frozen and wakes
	// up changes nothing. What it does elsewhere may happen twice.
	GoAlone func(name string, run func(ctx context.Context) error)
	// Consume handles the events of another service, of the types named, in order per
	// tenant. Handle runs in a transaction of the event's tenant, in which the position
	// is kept, so each event takes effect once. The transaction is that of all events of
	// a revision, and may run twice. An event that cannot be handled is tried again
	// until it can; the tenant's later ones wait for it.
	Consume func(source string, handle EventHandler, types ...string)
	// ConsumeAround is Consume for a part that has more to do with a change than to make it.
	// Around is called for the events of each revision with what handles them, which it calls
	// once and whose error it returns. The error may hide that the change was made.
	ConsumeAround func(source string, handle EventHandler, around EventWrapper, types ...string)
	// Journal is the part's own journal, of which it says with package journal what is
	// shown. Nil if the part keeps nothing.
	Journal *journal.Source
	// AddHub offers a source of leases to the suite.
	AddHub func(*lease.Hub)
	// Blobs opens the part's own store of blobs. Each key begins with a tenant and a slash:
	// what is there goes when the tenant is erased.
	Blobs func(context.Context) (*blob.Bucket, error)
	// HTTP takes the paths that the part serves beside gRPC; nil where HTTP is off.
	HTTP *HTTP
	// Seal opens the box that seals secrets before they are kept. It is the same for all
	// parts and replicas. Its error says what the operator has to set.
	Seal func() (*seal.Box, error)
	// Passkeys says for whom passkeys are made; the zero value if the operator did not.
	Passkeys Passkeys
	// Proxies are those whose word counts on where a request comes from.
	Proxies Proxies
	// Outside says where the part may ask servers that are not the suite's.
	Outside Outside
	// Mail sends messages to people; nil where that is off.
	Mail *mail.Sender
	// SignInPage is the URL of the page on which people sign in; empty if the operator named
	// none.
	SignInPage string
	// FirstStart tells whether the part's store was made by this start.
	FirstStart bool
	// Lease is how long a lease holds.
	Lease time.Duration
	// BootstrapCode is the one-time code for the first owner, if the operator chose it.
	BootstrapCode string
	// Demo asks for demonstration data.
	Demo bool
	// Serving is closed once the process answers calls.
	Serving <-chan struct{}
	// Addr is where the process answers them.
	Addr string

	process *Process
}

// EventHandler handles one event of another service.
type EventHandler func(ctx context.Context, tx *store.Tx, e *eventpb.WatchEventsResponse) error

// EventWrapper has the events of a revision handled, which are of one tenant.
type EventWrapper func(events []*eventpb.WatchEventsResponse, handle func() error) error
