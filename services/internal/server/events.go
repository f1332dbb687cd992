package server

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// eventChunk is how many events are read from the store at a time.
const eventChunk = 256

// events serves the events of the parts of this process.
type events struct {
	eventpb.UnimplementedEventServiceServer
	stores   map[string]*store.DB // by part
	draining <-chan struct{}
}

func (s *events) WatchEvents(req *eventpb.WatchEventsRequest, stream grpc.ServerStreamingServer[eventpb.WatchEventsResponse]) error {
	db, ok := s.stores[req.GetSource()]
	if !ok {
		return fault.NotFound("source of events", req.GetSource())
	}
	ctx, cancel := until(stream.Context(), s.draining)
	defer cancel()
	w := &watch{db: db, types: req.GetTypes(), positions: req.GetPositions(), stream: stream, begun: map[string]bool{}}
	if w.positions == nil {
		w.positions = map[string]int64{}
	}
	err := db.Follow(ctx, 0, db.Tenants, w.sendAll)
	if stream.Context().Err() == nil && (ctx.Err() != nil || errors.Is(err, store.ErrClosed)) {
		return fault.Unreachable(req.GetSource()) // draining: the consumer comes again
	}
	return err
}

// until returns a context that ends with its parent or when done is closed.
func until(parent context.Context, done <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// watch is one consumer's reading of one source.
type watch struct {
	db        *store.DB
	types     []string
	positions map[string]int64
	begun     map[string]bool // tenants of which the consumer knows what it lost
	stream    grpc.ServerStreamingServer[eventpb.WatchEventsResponse]
}

func (w *watch) sendAll(ctx context.Context, tenants []string) error {
	for _, tenant := range tenants {
		if err := w.sendLost(ctx, tenant); err != nil {
			return err
		}
		for {
			n, err := w.sendSome(ctx, tenant)
			if err != nil {
				return err
			}
			if n < eventChunk {
				break
			}
		}
	}
	return nil
}

// sendLost tells, once, up to which revision events were removed that the consumer has not
// handled.
func (w *watch) sendLost(ctx context.Context, tenant string) error {
	if w.begun[tenant] {
		return nil
	}
	w.begun[tenant] = true
	lost, err := w.db.Lost(ctx, tenant, w.types, w.positions[tenant])
	if err != nil || lost == 0 {
		return err
	}
	w.positions[tenant] = lost
	return w.stream.Send(&eventpb.WatchEventsResponse{Tenant: tenant, Revision: lost, Lost: true, Last: true})
}

// sendSome sends the tenant's next events and returns how many it read.
func (w *watch) sendSome(ctx context.Context, tenant string) (int, error) {
	all, err := w.db.Events(ctx, tenant, w.positions[tenant], eventChunk)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	wanted := slices.DeleteFunc(slices.Clone(all), func(e store.Event) bool {
		return len(w.types) > 0 && !slices.Contains(w.types, e.Type)
	})
	for i, e := range wanted {
		err := w.stream.Send(&eventpb.WatchEventsResponse{
			Tenant: e.Tenant, Revision: e.Revision, Index: int32(e.Index), CommitTime: timestamppb.New(e.CommitTime),
			Type: e.Type, Payload: e.Payload, Caller: e.Caller,
			Last: i == len(wanted)-1 || wanted[i+1].Revision != e.Revision,
		})
		if err != nil {
			return 0, err
		}
	}
	w.positions[tenant] = all[len(all)-1].Revision
	return len(all), nil
}
