package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	// heartbeat is how often a watch is told how far it is when nothing happens.
	heartbeat = 10 * time.Second
	// maxWatches is how many watches one organization can have in one process.
	maxWatches = 64
	// maxConsumers is how many named consumers one organization can have.
	maxConsumers = 100
)

// watches counts the watches of each organization.
type watches struct {
	mu sync.Mutex
	of map[string]int
}

func (w *watches) enter(organization string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[organization] >= maxWatches {
		return fault.Limit("watches of the journal", heartbeat)
	}
	w.of[organization]++
	return nil
}

func (w *watches) leave(organization string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[organization]--; w.of[organization] == 0 {
		delete(w.of, organization)
	}
}

// WatchJournal sends entries as they come. A consumer that reads slowly holds up its own
// stream alone: no transaction is open while a message waits to leave.
func (s *Server) WatchJournal(req *journalpb.WatchJournalRequest, stream grpc.ServerStreamingServer[journalpb.WatchJournalResponse]) error {
	src, err := s.source(req.GetSource())
	if err != nil {
		return err
	}
	for _, name := range req.GetCollections() {
		if _, err := src.collection(name); err != nil {
			return err
		}
	}
	organization := authz.Caller(stream.Context()).Organization
	if err := s.watches.enter(organization); err != nil {
		return err
	}
	defer s.watches.leave(organization)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	w := &watch{src: src, collections: req.GetCollections(), send: stream.Send}
	w.tenant, w.party = src.tenant(stream.Context())
	if w.position, err = src.start(ctx, req); err == nil {
		w.told = w.position
		first := func(context.Context) ([]string, error) { return []string{w.tenant}, nil }
		err = src.Store.Follow(ctx, heartbeat, first, w.each)
	}
	if stream.Context().Err() == nil && (ctx.Err() != nil || errors.Is(err, store.ErrClosed)) {
		return fault.Unreachable(src.Name) // draining: the consumer comes again
	}
	return err
}

// start returns the position after which a watch begins. One that is still to come was of
// entries that are gone, as where the store was restored to an earlier time: those
// that come in their place would be missed.
func (s *Source) start(ctx context.Context, req *journalpb.WatchJournalRequest) (position int64, err error) {
	position = req.GetAfterRevision()
	if req.GetConsumer() != "" {
		err = s.Store.View(ctx, func(tx *store.Tx) error {
			position = tx.Position(consumerName(req.GetConsumer()))
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	err = s.Store.View(s.inside(ctx), func(tx *store.Tx) error {
		if req.GetConsumer() != "" && position == 0 {
			position = tx.BaseRevision()
		}
		return notAhead(position, tx.Revision())
	})
	return position, err
}

// consumerName is the name under which the position of a consumer is kept. No service has
// a colon in its name.
func consumerName(name string) string { return "consumer:" + name }

// watch is one consumer's reading of one journal.
type watch struct {
	src           *Source
	tenant, party string
	collections   []string // all if none
	position      int64    // up to which entries were looked at
	told          int64    // up to which the consumer was told
	reached       bool     // the consumer was told once that it has all there was
	send          func(*journalpb.WatchJournalResponse) error
}

// each sends what is new, if the journal is among those that changed, and says how far it
// is: at once when the consumer has all there was, and then from time to time.
func (w *watch) each(ctx context.Context, tenants []string) error {
	if len(tenants) > 0 && !slices.Contains(tenants, w.tenant) {
		return nil
	}
	for {
		entries, upTo, err := w.src.Store.EntriesAfter(ctx, w.tenant, w.party, w.position)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := w.entry(ctx, e); err != nil {
				return err
			}
		}
		w.position = upTo
		if len(entries) == 0 {
			break
		}
	}
	if w.reached && len(tenants) > 0 && w.told == w.position {
		return nil
	}
	w.reached = true
	return w.tell(nil, w.position)
}

// entry sends an entry, if the caller may see anything of it that is wanted. Who he is
// and what he may see is asked anew for each.
func (w *watch) entry(ctx context.Context, e *storepb.JournalEntry) error {
	touched := map[string]bool{}
	for _, c := range e.GetChanges() {
		touched[c.GetCollection()] = len(w.collections) == 0 || slices.Contains(w.collections, c.GetCollection())
	}
	l, err := w.src.look(ctx, func(name string) bool { return touched[name] })
	if err != nil {
		return err
	}
	want := wanted{changes: len(w.collections) > 0}
	var shown *journalpb.Entry
	err = w.src.Store.View(w.src.inside(ctx), func(tx *store.Tx) (err error) {
		shown, err = l.entry(tx, e, want)
		return err
	})
	if err != nil {
		return fmt.Errorf("show revision %d: %w", e.GetRevision(), err)
	}
	w.position = e.GetRevision()
	if shown == nil {
		return nil
	}
	return w.tell(shown, e.GetRevision())
}

func (w *watch) tell(e *journalpb.Entry, revision int64) error {
	err := w.send(&journalpb.WatchJournalResponse{Entry: e, Revision: revision, PreviousRevision: w.told})
	w.told = revision
	return err
}

// AcknowledgeJournal keeps the position of a consumer.
func (s *Server) AcknowledgeJournal(ctx context.Context, req *journalpb.AcknowledgeJournalRequest) (*journalpb.AcknowledgeJournalResponse, error) {
	src, err := s.source(req.GetSource())
	if err != nil {
		return nil, err
	}
	err = src.Store.View(src.inside(ctx), func(tx *store.Tx) error { return notAhead(req.GetRevision(), tx.Revision()) })
	if err != nil {
		return nil, err
	}
	resp := &journalpb.AcknowledgeJournalResponse{}
	name := consumerName(req.GetConsumer())
	return resp, src.Store.Update(ctx, func(tx *store.Tx) error {
		before := tx.Position(name)
		if before == 0 && tx.CountPositions("consumer:") >= maxConsumers {
			return fault.Refused("an organization has at most %d consumers: go on with one of those there are", maxConsumers)
		}
		resp.Revision = max(before, req.GetRevision())
		tx.SetPosition(name, resp.GetRevision())
		return nil
	})
}
