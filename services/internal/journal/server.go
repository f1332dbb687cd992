package journal

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Server shows the journals of a process.
type Server struct {
	journalpb.UnimplementedJournalServiceServer
	sources   map[string]*Source // by service
	now       func() time.Time
	draining  context.Context // ends when watches have to
	watches   watches
	verifying chan struct{} // holds a token for each that is at it
}

// maxVerifying is how many journals are verified at once.
const maxVerifying = 2

// NewServer returns a server of the journals, whose watches end with draining.
func NewServer(draining context.Context, sources map[string]*Source, now func() time.Time) *Server {
	return &Server{
		sources: sources, now: now, draining: draining,
		watches: watches{of: map[string]int{}}, verifying: make(chan struct{}, maxVerifying),
	}
}

func (s *Server) source(name string) (*Source, error) {
	src, ok := s.sources[name]
	if !ok {
		return nil, fault.NotFound("source of a journal", name)
	}
	return src, nil
}

// ListJournal lists entries.
func (s *Server) ListJournal(ctx context.Context, req *journalpb.ListJournalRequest) (*journalpb.ListJournalResponse, error) {
	src, err := s.source(req.GetSource())
	if err != nil {
		return nil, err
	}
	if req.GetId() != "" && req.GetCollection() == "" {
		return nil, fault.Invalid("collection", "must be set where id is")
	}
	if name := req.GetCollection(); name != "" {
		if _, err := src.collection(name); err != nil {
			return nil, err
		}
	}
	l, err := src.look(ctx, func(name string) bool { return req.GetCollection() == "" || req.GetCollection() == name })
	if err != nil {
		return nil, err
	}
	w := wanted{collection: req.GetCollection(), id: req.GetId(), kind: req.GetKind(), event: req.GetEventType()}
	_, party := src.tenant(ctx)
	which := store.Selection{Party: party, From: instant(req.GetFromTime()), To: instant(req.GetToTime())}
	if w.id != "" {
		which.Collection, which.ID = w.collection, w.id
	}
	return store.Read(src.inside(ctx), src.Store, func(tx *store.Tx) (*journalpb.ListJournalResponse, error) {
		resp := &journalpb.ListJournalResponse{}
		var err error
		resp.NextPageToken, err = store.PageEntries(tx, req, which, func(e *storepb.JournalEntry) (bool, error) {
			if !listed(req, e) || !src.of(tx, e, party) {
				return false, nil
			}
			shown, err := l.entry(tx, e, w)
			if shown != nil {
				resp.Entries = append(resp.Entries, shown)
			}
			return shown != nil, err
		})
		return resp, err
	})
}

func listed(req *journalpb.ListJournalRequest, e *storepb.JournalEntry) bool {
	return (req.GetCallerId() == "" || req.GetCallerId() == e.GetCaller()) &&
		(req.GetActorId() == "" || req.GetActorId() == e.GetActor()) &&
		(req.GetMethod() == "" || req.GetMethod() == e.GetMethod())
}

// of tells whether an entry belongs to the organization, if the source is one for all.
func (s *Source) of(tx *store.Tx, e *storepb.JournalEntry, party string) bool {
	return party == "" || tx.Of(e, party)
}

// GetEntry returns one entry.
func (s *Server) GetEntry(ctx context.Context, req *journalpb.GetEntryRequest) (*journalpb.GetEntryResponse, error) {
	src, err := s.source(req.GetSource())
	if err != nil {
		return nil, err
	}
	l, err := src.look(ctx, func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	_, party := src.tenant(ctx)
	return store.Read(src.inside(ctx), src.Store, func(tx *store.Tx) (*journalpb.GetEntryResponse, error) {
		if req.GetRevision() > tx.Revision() {
			return nil, noEntry(req.GetRevision())
		}
		e := tx.EntryWithPayloads(req.GetRevision())
		if tx.Failed() != nil || !src.of(tx, e, party) {
			return nil, noEntry(req.GetRevision())
		}
		shown, err := l.entry(tx, e, wanted{})
		if err == nil && shown == nil {
			err = noEntry(req.GetRevision())
		}
		return &journalpb.GetEntryResponse{Entry: shown}, err
	})
}

func noEntry(revision int64) error {
	return fault.NotFound("entry of the journal", strconv.FormatInt(revision, 10))
}

// record is one record that a caller asks about.
type record struct {
	src  *Source
	of   *collection
	id   string
	look *look
}

// record finds out whether the caller may get such records at all.
func (s *Server) record(ctx context.Context, req interface {
	GetSource() string
	GetCollection() string
	GetId() string
}) (*record, error) {
	src, err := s.source(req.GetSource())
	if err != nil {
		return nil, err
	}
	of, err := src.collection(req.GetCollection())
	if err != nil {
		return nil, err
	}
	if err := authz.Permits(ctx, of.get); err != nil {
		return nil, err
	}
	l, err := src.look(ctx, func(name string) bool { return name == of.name })
	return &record{src: src, of: of, id: req.GetId(), look: l}, err
}

// find returns NOT_FOUND unless the record exists for the caller, or did when it was
// there last.
func (r *record) find(tx *store.Tx) error {
	var last *storepb.Change
	for e := range tx.History(r.of.name, r.id) {
		last = e.GetChanges()[0]
		break
	}
	visible, err := r.look.sights[r.of.name].exists(tx, r.id, last)
	if err == nil && !visible {
		err = fault.NotFound(r.of.name, r.id)
	}
	return err
}

// ListHistory lists the changes of one record.
func (s *Server) ListHistory(ctx context.Context, req *journalpb.ListHistoryRequest) (*journalpb.ListHistoryResponse, error) {
	r, err := s.record(ctx, req)
	if err != nil {
		return nil, err
	}
	return store.Read(r.src.inside(ctx), r.src.Store, func(tx *store.Tx) (*journalpb.ListHistoryResponse, error) {
		if err := r.find(tx); err != nil {
			return nil, err
		}
		resp := &journalpb.ListHistoryResponse{}
		var err error
		which := store.Selection{Collection: r.of.name, ID: r.id}
		resp.NextPageToken, err = store.PageEntries(tx, req, which, func(e *storepb.JournalEntry) (bool, error) {
			shown, err := r.look.entry(tx, e, wanted{collection: r.of.name, id: r.id})
			if shown != nil {
				resp.Entries = append(resp.Entries, shown)
			}
			return shown != nil, err
		})
		return resp, err
	})
}

// GetRecordAt returns a record as it was.
func (s *Server) GetRecordAt(ctx context.Context, req *journalpb.GetRecordAtRequest) (*journalpb.GetRecordAtResponse, error) {
	r, err := s.record(ctx, req)
	if err != nil {
		return nil, err
	}
	if r.of.secret {
		return nil, fault.Invalid("collection", "must be one whose records are no secret")
	}
	return store.Read(r.src.inside(ctx), r.src.Store, func(tx *store.Tx) (*journalpb.GetRecordAtResponse, error) {
		if err := r.find(tx); err != nil {
			return nil, err
		}
		revision, err := revisionOf(tx, req)
		if err != nil {
			return nil, err
		}
		m, ok := r.of.at(tx, r.id, revision)
		if !ok || !r.look.sights[r.of.name].sees(tx, m) {
			return nil, fault.NotFound(r.of.name, r.id)
		}
		resp := &journalpb.GetRecordAtResponse{Revision: revision}
		resp.Record, err = r.look.record(m)
		return resp, err
	})
}

// revisionOf returns the revision that a request for a past record means.
func revisionOf(tx *store.Tx, req *journalpb.GetRecordAtRequest) (int64, error) {
	if at := req.GetTime(); at != nil {
		switch {
		case at.CheckValid() != nil:
			return 0, fault.Invalid("time", "must be a time of the years 1 to 9999")
		case at.AsTime().After(tx.Now()):
			return 0, fault.Invalid("time", "must not be in the future")
		}
		return tx.RevisionAt(at.AsTime()), nil
	}
	return req.GetRevision(), notAhead(req.GetRevision(), tx.Revision())
}

// notAhead refuses a revision that is still to come.
func notAhead(revision, head int64) error {
	if revision <= head {
		return nil
	}
	return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_REVISION_AHEAD,
		fmt.Sprintf("revision %d is still to come: the last is %d", revision, head), map[string]string{
			"min_revision": strconv.FormatInt(revision, 10), "revision": strconv.FormatInt(head, 10),
		})
}

func instant(t *timestamppb.Timestamp) time.Time {
	if !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}
