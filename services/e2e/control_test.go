package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"

	"latchkey.dev/services/internal/trial"
)

// TestWatchFindsStaleAnswers is a control of the tests of freshness: a caller who
// remembers how calls went, for a short time, must be found out.
func TestWatchFindsStaleAnswers(t *testing.T) {
	w := newWatch(t, trial.Control(t, "no allow after a returned revoke: a caller who remembers", "bolt"), codes.PermissionDenied)
	e := w.employ()
	w.watched(e.signIn().GetToken(), "what Frieda may")
	w.asks = remembering(w.asks, shortLease/2)
	stop := w.callAlways()
	defer stop()
	for range 2 {
		w.round(nothing, "", e.changes()[1]) // which concerns all services
	}
	stop()
	if found := w.found(); len(found) != len(names) {
		t.Errorf("violations %q were found in what all of %q remembered", found, names)
	}
}

// remembering asks and remembers the answer for some time.
func remembering(ask func(context.Context, string) error, howLong time.Duration) func(context.Context, string) error {
	type answer struct {
		err  error
		when time.Time
	}
	var mu sync.Mutex
	answers := map[string]answer{}
	return func(ctx context.Context, service string) error {
		mu.Lock()
		known, ok := answers[service]
		mu.Unlock()
		if ok && time.Since(known.when) < howLong {
			return known.err
		}
		err := ask(ctx, service)
		mu.Lock()
		defer mu.Unlock()
		answers[service] = answer{err, time.Now()}
		return err
	}
}

// TestWatchFindsMissedInvalidations is another control: a real service that renews its
// lease, acknowledges what it is told, and is never told what to drop. It must be found
// out.
func TestWatchFindsMissedInvalidations(t *testing.T) {
	tr := trial.Control(t, "no allow after a returned revoke: a service that is not told", "bolt")
	w, e := newDeceived(t, tr, func(m *leasepb.WatchResponse) { m.Tags, m.Everything = nil, false })
	stop := w.callAlways()
	defer stop()
	w.mustDeceive(e)
	stop()
	w.mustFindOut()
}

// TestWatchFindsSwitchedOffLeases is the control of what leases are for: a real service
// that believes it has one for an hour, whatever its source counts on, and is cut off for
// longer than its source waits. It goes on allowing after the revoke has returned, and
// must be found out.
func TestWatchFindsSwitchedOffLeases(t *testing.T) {
	tr := trial.Control(t, "no allow after a returned revoke: a service without leases", "bolt")
	w, e := newDeceived(t, tr, func(m *leasepb.WatchResponse) {
		if m.GetLeaseDuration() != nil {
			m.LeaseDuration = durationpb.New(time.Hour)
		}
	})
	stop := w.callAlways()
	defer stop()
	w.wait(t, w.now(), w.subject.Load().of("invoicing"), allowed)
	network := w.suite.processes["invoicing"].via["permissions"]
	network.hold(there, back)
	w.mustDeceive(e)
	network.release(there, back)
	stop()
	w.mustFindOut()
}

// newDeceived is a watch in which somebody changes what invoicing is told by the feed of
// permissions, with a user whose calls are watched.
func newDeceived(t *testing.T, tr *trial.Trial, change func(*leasepb.WatchResponse)) (*watch, *employee) {
	s := fiveStopped(t, "LATCHKEY_LEASE="+shortLease.String())
	s.processes["invoicing"].via = map[string]*proxy{"permissions": newProxy(t, censor(t, s.processes["permissions"].addr, change))}
	w := newWatchOf(t, tr, codes.PermissionDenied, s)
	e := w.employ()
	w.watched(e.signIn().GetToken(), "what Frieda may")
	return w, e
}

// mustDeceive takes the web from the user and waits until all services but the deceived one
// deny, and that one allows.
func (w *watch) mustDeceive(e *employee) {
	w.t.Helper()
	web := e.changes()[1]
	subject := w.subject.Load()
	w.wait(w.t, w.now(), subject.of("identity", "permissions", "scheduling", "servicerequest"), allowed)
	w.make(web.what, web.registers, false, web.take)
	w.wait(w.t, w.now(), subject.of("identity", "permissions", "scheduling", "servicerequest"), denied)
	w.wait(w.t, w.now(), subject.of("invoicing"), allowed)
}

// found counts the violations that there are, and returns them.
func (w *watch) found() []string {
	w.trial.Tried()
	all := w.violations()
	for _, v := range all {
		w.trial.Wrong("%s", v)
	}
	return all
}

func (w *watch) mustFindOut() {
	w.t.Helper()
	found := w.found()
	if len(found) != 1 || !strings.Contains(found[0], "in invoicing: a call answered true") {
		w.t.Errorf("violations %q were found, want one, in invoicing", found)
	}
	w.t.Log(found)
}

// censor is a gRPC proxy of a source that changes the messages of its feed. It returns its
// address.
func censor(t *testing.T, source string, change func(*leasepb.WatchResponse)) string {
	conn, err := grpc.NewClient(source, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(frames{})))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(frames{}), grpc.UnknownServiceHandler(func(_ any, down grpc.ServerStream) error {
		return forward(conn, down, change)
	}))
	go server.Serve(listener)
	t.Cleanup(func() {
		server.Stop()
		conn.Close()
	})
	return listener.Addr().String()
}

// forward passes a call on to conn, and the answers back, those of a feed changed.
func forward(conn *grpc.ClientConn, down grpc.ServerStream, change func(*leasepb.WatchResponse)) error {
	method, _ := grpc.MethodFromServerStream(down)
	sent, _ := metadata.FromIncomingContext(down.Context())
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(down.Context(), sent))
	defer cancel()
	up, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	go func() {
		pump(down, up, nil)
		up.CloseSend()
	}()
	var censored func([]byte) []byte
	if method == leasepb.LeaseService_Watch_FullMethodName {
		censored = func(frame []byte) []byte { return changed(frame, change) }
	}
	if err := pump(up, down, censored); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

type half interface {
	RecvMsg(any) error
	SendMsg(any) error
}

func pump(from, to half, change func([]byte) []byte) error {
	for {
		var frame []byte
		if err := from.RecvMsg(&frame); err != nil {
			return err
		}
		if change != nil {
			frame = change(frame)
		}
		if err := to.SendMsg(&frame); err != nil {
			return err
		}
	}
}

// changed returns a message of the feed with a change made to it.
func changed(frame []byte, change func(*leasepb.WatchResponse)) []byte {
	m := &leasepb.WatchResponse{}
	if err := proto.Unmarshal(frame, m); err != nil {
		panic(err)
	}
	change(m)
	frame, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return frame
}

// frames is the codec of who does not look into messages: they are *[]byte.
type frames struct{}

func (frames) Name() string { return "proto" }

func (frames) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (frames) Unmarshal(data []byte, v any) error {
	out, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("%T is no frame", v)
	}
	*out = data
	return nil
}
