package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
	"latchkey.dev/services/internal/store/bolt"
)

// toStores are the flags by which a command finds the stores, and the processes that have
// them open.
var toStores = []string{"store", "listen", "peers", "tls-cert", "tls-key", "tls-ca", "peer-cert", "peer-key", "peer-ca", "service-key-file", "service-key"}

// opened is a store that a command looks into: over its engine, or if it is in a file that
// another process has open, over that process.
type opened struct {
	service string
	schema  *store.Schema
	engine  store.Engine // nil if another process has it
	remote  operatorpb.OperatorServiceClient
}

func (o *opened) Pages() store.Pages {
	if o.engine != nil {
		return store.PagesOf(o.engine)
	}
	return remotePages{o.remote, o.service}
}

// stores are those that a command has opened.
type stores struct {
	all    []*opened
	dialer *dialer
}

// close closes them.
func (s *stores) close() error {
	var errs []error
	for _, o := range s.all {
		if o.engine != nil {
			errs = append(errs, o.engine.Close())
		}
	}
	if s.dialer != nil {
		s.dialer.close()
	}
	return errors.Join(errs...)
}

// sources returns the stores as a backup takes them.
func (s *stores) sources() (all []backup.Store) {
	for _, o := range s.all {
		all = append(all, backup.Store{Service: o.service, Pages: o.Pages(), Schema: o.schema})
	}
	return all
}

// names returns the services of the program that keep something.
func (in *invocation) names() (names []string) {
	for _, part := range in.parts {
		if part.Schema != nil {
			names = append(names, part.Name)
		}
	}
	return names
}

// schema returns what a service keeps, nil if the program has no such service.
func (in *invocation) schema(service string) *store.Schema {
	for _, part := range in.parts {
		if part.Name == service {
			return part.Schema
		}
	}
	return nil
}

// openStores opens the stores that there are.
func (in *invocation) openStores(ctx context.Context) (*stores, error) {
	s := &stores{}
	for _, service := range in.names() {
		o, err := in.openStore(ctx, s, service)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.all = append(s.all, o)
	}
	return s, nil
}

// openSources opens the stores that there are to take something from them.
func (in *invocation) openSources(ctx context.Context) (*stores, error) {
	s, err := in.openStores(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range s.all {
		if err := store.CheckSource(ctx, o.Pages()); err != nil {
			return nil, errors.Join(fmt.Errorf("the store of %s (--store says where it is): %w", o.service, err), s.close())
		}
	}
	return s, nil
}

func (in *invocation) openStore(ctx context.Context, s *stores, service string) (*opened, error) {
	if _, ok := in.config.database(); ok {
		e, err := in.openEngine(ctx, in.config.Store, service, store.KeepMissing)
		if errors.Is(err, store.ErrMissing) {
			err = fmt.Errorf("there is no store of %s in the database (--store says where it is)", service)
		}
		return &opened{service: service, schema: in.schema(service), engine: e}, err
	}
	folder, err := in.config.folder()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(folder, service+".db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no store of %s in %s (--store says where it is)", service, folder)
	}
	if s.dialer != nil { // as it was for the service before, which took a second to find out
		if o, err := in.askFor(ctx, s, service); err == nil {
			return o, nil
		}
	}
	e, err := bolt.Open(path, bolt.Options{})
	switch {
	case errors.Is(err, bolt.ErrInUse):
		return in.askFor(ctx, s, service)
	case err != nil:
		return nil, err
	}
	return &opened{service: service, schema: in.schema(service), engine: e}, nil
}

// openEngine opens a service's store at a URL. A file is made if it is missing.
func (in *invocation) openEngine(ctx context.Context, url, service string, how store.Opening) (store.Engine, error) {
	c := Config{Store: url}
	if scheme, ok := c.database(); ok {
		open := in.engines[scheme]
		if open == nil {
			return nil, fmt.Errorf("--store %s://...: this program cannot keep its data there", scheme)
		}
		e, _, err := open(ctx, url, service, how)
		return e, err
	}
	folder, err := c.folder()
	if err != nil {
		return nil, err
	}
	e, err := bolt.Open(filepath.Join(folder, service+".db"), bolt.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// askTime is how long the process that has a store open may take to say so.
const askTime = 5 * time.Second

// askFor returns the store of a service that another process has open.
func (in *invocation) askFor(ctx context.Context, s *stores, service string) (*opened, error) {
	if s.dialer == nil {
		d, err := in.newDialer()
		if err != nil {
			return nil, err
		}
		s.dialer = d
	}
	o := &opened{service: service, schema: in.schema(service), remote: operatorpb.NewOperatorServiceClient(s.dialer.conn(operatorName, service))}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, err := o.remote.ReadPairs(ctx, &operatorpb.ReadPairsRequest{Service: service, Start: []byte{0}, End: []byte{1}})
	if err != nil {
		return nil, fmt.Errorf("another process has the store of %s open, and the one at %s does not give it out "+
			"(--listen or --peers says where it is): %w", service, s.dialer.peers[service], err)
	}
	return o, nil
}

// newDialer connects as a service of the suite to the processes that have the stores open:
// those of --peers, and for the rest that of --listen.
func (in *invocation) newDialer() (*dialer, error) {
	c := &in.config
	folder, err := c.folder()
	if err != nil {
		return nil, err
	}
	key, err := c.serviceKey(folder, randomSecret)
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	certs, err := c.certificates(quiet)
	if err != nil {
		return nil, err
	}
	own, err := readPeerIdentity(c, certs, time.Now, quiet)
	if err != nil {
		return nil, err
	}
	creds := selfCredentials(certs)
	if c.TLSCA != "" {
		if creds, err = peerCredentials(true, c.TLSCA); err != nil {
			return nil, err
		}
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	at := maps.Clone(c.Peers)
	for _, service := range in.names() {
		if len(at[service]) == 0 {
			at[service] = []string{net.JoinHostPort(host, port)}
		}
	}
	return &dialer{
		self: map[string]bool{}, peers: at, peerCreds: creds, own: own, key: key, conns: map[string]*grpc.ClientConn{},
		options: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestPage))},
	}, nil
}

// largestPage is more than a page with the largest record has.
const largestPage = 256 << 20

// remotePages reads the rows of a store that another process has open.
type remotePages struct {
	client  operatorpb.OperatorServiceClient
	service string
}

func (p remotePages) Page(ctx context.Context, lo, hi []byte) ([]store.Pair, error) {
	resp, err := p.client.ReadPairs(ctx, &operatorpb.ReadPairsRequest{Service: p.service, Start: lo, End: hi})
	if err != nil {
		return nil, err
	}
	page := make([]store.Pair, len(resp.GetPairs()))
	for i, row := range resp.GetPairs() {
		page[i] = store.Pair{Key: row.GetKey(), Value: row.GetValue()}
	}
	return page, nil
}

// openDB opens a service's store over an engine, which belongs to the DB from then on.
func (in *invocation) openDB(ctx context.Context, service string, e store.Engine) (*store.DB, error) {
	schema := in.schema(service)
	if schema == nil {
		return nil, errors.Join(fmt.Errorf("this program has no service %q", service), e.Close())
	}
	return store.Open(ctx, e, schema, store.Config{Now: time.Now})
}
