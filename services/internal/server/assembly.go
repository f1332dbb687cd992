package server

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"google.golang.org/grpc"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"

	"latchkey.dev/services/internal/lease"
)

// env makes what one part gets.
func (p *Process) env(part Part) *Env {
	e := &Env{
		process: p,
		Store:   p.stores[part.Name], FirstStart: p.first[part.Name],
		Log: p.log.With("service", part.Name), Now: p.now, NewID: p.ids.next,
		Registrar: registrar{p.grpc, &p.decisions, part.Name}, Public: p.dialer.public(), Lease: p.config.Lease,
		BootstrapCode: p.config.BootstrapCode, Demo: p.config.Demo, Serving: p.serving, Addr: reach(p.listener.Addr()),
		Conn: func(service string) grpc.ClientConnInterface { return p.dialer.conn(part.Name, service) },
		Go: func(name string, run func(context.Context) error) {
			p.goWork(part.Name+": "+name, run)
		},
		GoAlone: func(name string, run func(context.Context) error) { p.goAlone(part.Name, name, run) },
		AddHub:  func(h *lease.Hub) { p.addHub(part.Name, h) },
		Journal: p.journals[part.Name],
		HTTP:    p.http,
		Seal:    p.openSeal, Passkeys: p.config.passkeys(p.Issuer()), Outside: p.config.outside(), Proxies: Proxies(p.config.TrustedProxies),
		Mail: p.mail, SignInPage: p.config.SignInPage,
		Blobs: func(ctx context.Context) (*blob.Bucket, error) {
			b, err := p.openBlobs(ctx, part.Name)
			if err == nil {
				p.blobs[part.Name] = b
			}
			return b, err
		},
	}
	sources := map[string]bool{}
	e.Consume = func(source string, handle EventHandler, types ...string) {
		e.ConsumeAround(source, handle, func(_ []*eventpb.WatchEventsResponse, handle func() error) error { return handle() }, types...)
	}
	e.ConsumeAround = func(source string, handle EventHandler, around EventWrapper, types ...string) {
		if sources[source] {
			panic("server: " + part.Name + " consumes " + source + " twice")
		}
		sources[source] = true
		if e.Store == nil {
			panic("server: " + part.Name + " consumes " + source + ", but keeps nothing in which to note how far it came")
		}
		c := &consumer{env: e, source: source, handle: handle, around: around, types: types, pause: growing, failures: map[string]int{}}
		e.GoAlone("events of "+source, c.run)
	}
	return e
}

// goAlone runs work of a part that one process at a time does of those with the same store.
func (p *Process) goAlone(part, name string, run func(context.Context) error) {
	r := p.replicas[part]
	if r == nil {
		p.goWork(part+": "+name, run)
		return
	}
	r.works = append(r.works, &work{name: name, run: run, fail: func(err error) { p.cancel(fmt.Errorf("%s: %w", part, err)) }})
}

func (p *Process) addHub(part string, h *lease.Hub) {
	if r := p.replicas[part]; r != nil {
		r.hub = h
	}
	p.hubs = append(p.hubs, h)
	p.leases.Add(h)
}

// openBlobs opens a part's own store of blobs: a folder of its name, or a prefix of it
// in a bucket.
func (p *Process) openBlobs(ctx context.Context, part string) (*blob.Bucket, error) {
	if p.config.Blobs == "" {
		folder, err := p.config.blobsFolder()
		if err != nil {
			return nil, err
		}
		return openFolder(filepath.Join(folder, part))
	}
	u, err := url.Parse(p.config.Blobs)
	if err != nil {
		return nil, fmt.Errorf("--blobs: %w", err)
	}
	if u.Scheme == fileblob.Scheme {
		return openFolder(filepath.Join(u.Path, part))
	}
	bucket, err := openBucket(ctx, p.config.Blobs)
	if err != nil {
		return nil, fmt.Errorf("--blobs %s: %w", strings.SplitN(p.config.Blobs, "?", 2)[0], err)
	}
	return blob.PrefixedBucket(bucket, part+"/"), nil
}

// openBucket opens a bucket by its URL, if this program knows its kind.
func openBucket(ctx context.Context, url string) (*blob.Bucket, error) {
	scheme, _, _ := strings.Cut(url, "://")
	if known := blob.DefaultURLMux(); !known.ValidBucketScheme(scheme) {
		return nil, fmt.Errorf("this program reaches nothing by URLs of %s://, only by those of %s://", scheme, strings.Join(known.BucketSchemes(), "://, "))
	}
	return blob.OpenBucket(ctx, url)
}

func openFolder(folder string) (*blob.Bucket, error) {
	return fileblob.OpenBucket(folder, &fileblob.Options{CreateDir: true, DirFileMode: 0o700, NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
}
