package authz

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// DecisionHeader is the trailer that tells callers the id of the decision on their call.
const DecisionHeader = "latchkey-decision-id"

// Log keeps the decisions on the methods of one service of the suite.
type Log interface {
	// Note returns the note that keeps a decision. It gives the decision an id and a
	// time, unless it has them.
	Note(d *Decision) (*store.Note, error)
	// Write commits a note alone, in place of one of the same decision.
	Write(ctx context.Context, n *store.Note) error
	// Meter counts the calls that are not decisions of their own.
	Meter() *Meter
}

// Decision is what was decided on one call of an identified caller.
type Decision struct {
	ID           string
	Time         time.Time
	Organization string
	User         string
	Actor        string
	Session      string
	Service      string // the service of the suite that called, or empty
	Surface      Surface
	Limited      bool   // the session carries fewer keys than the user may hold
	Method       string // "latchkey.invoicing.v1.InvoiceService/VoidInvoice"
	Grants       []string
	Revision     int64 // of the organization's permissions
	RequestID    string
	Code         codes.Code
	// Of a denial:
	Denied  bool
	Reason  faultpb.Reason
	Missing string // the grant
	Field   string // that asked for it
}

// LogTo says by gRPC service where decisions on its methods are kept, nil for nowhere.
// It is called once, before the first call.
func (r *Rules) LogTo(log func(service string) Log) {
	meters := map[*Meter]bool{}
	for _, m := range r.methods {
		l := log(m.service())
		if l == nil {
			continue
		}
		m.log, m.meter = l, l.Meter()
		if !meters[m.meter] {
			m.meter.index = len(meters)
			meters[m.meter] = true
		}
	}
	if len(meters) > maxLogs {
		panic("authz: more logs than services")
	}
}

// changes tells whether a method may change something: then its request, or a message
// directly in it, has a request_id.
func changes(input protoreflect.MessageDescriptor) bool {
	for i := range input.Fields().Len() {
		fd := input.Fields().Get(i)
		if fd.Name() == "request_id" || fd.Message() != nil && !fd.IsMap() && fd.Message().Fields().ByName("request_id") != nil {
			return true
		}
	}
	return false
}

// entry is the entry of one call in the log.
type entry struct {
	method *method
	Decision
	note *store.Note
}

// enters opens the entry of a call that was let in: for a mutation the note of its
// decision; others are counted, and have none.
func (g *Guard) enters(ctx context.Context, m *method, who *known, needs catalog.Set) (*entry, error) {
	if m.log == nil || who.Organization == "" {
		return nil, nil
	}
	if who.uses != nil {
		if err := m.meter.count(who.uses, m.uses(who.Principal, needs), m.changes); err != nil {
			return nil, err
		}
	}
	if !m.changes {
		return nil, nil
	}
	e := g.newEntry(ctx, m, who.Principal, needs)
	var err error
	if e.note, err = m.log.Note(&e.Decision); err != nil {
		return nil, unwritten(err)
	}
	return e, nil
}

// uses returns the grants by which a caller was let in: what the request asked for,
// what the rule names, of several that would do the first he holds, and the key of the
// session's surface.
func (m *method) uses(p *Principal, needs catalog.Set) catalog.Set {
	switch m.kind {
	case byAll:
		needs = needs.Union(m.grants)
	case byAny:
		for i := range m.named {
			if p.Grants.Has(m.named[i].bit) {
				needs.Add(m.named[i].bit)
				break
			}
		}
	case byContent:
	default:
		return needs
	}
	switch p.Surface {
	case SurfaceWeb:
		needs.Add(webKey)
	case SurfaceApp:
		needs.Add(appKey)
	}
	return needs
}

func (g *Guard) newEntry(ctx context.Context, m *method, p *Principal, needs catalog.Set) *entry {
	e := &entry{method: m, Decision: Decision{
		Organization: p.Organization, User: p.ID, Actor: p.Actor, Session: p.SessionID, Service: p.Service,
		Surface: p.Surface, Limited: p.Limited, Method: m.name[1:], Revision: p.Revision,
	}}
	if p.Service != "" {
		e.User, e.Actor = header(ctx, CallerHeader), header(ctx, ActorHeader)
	}
	if g.RequestID != nil {
		e.RequestID = g.RequestID(ctx)
	}
	for i := range m.named {
		e.Grants = append(e.Grants, m.named[i].bit.String())
	}
	e.ask(needs)
	return e
}

// ask adds what the content of a request asked for. A note that lacks it is dropped.
func (e *entry) ask(needs catalog.Set) {
	for bit := range needs.All() {
		if name := bit.String(); !slices.Contains(e.Grants, name) {
			e.Grants = append(e.Grants, name)
			e.note = nil
		}
	}
}

// denies completes the log for a call that ends before its handler is reached.
func (g *Guard) denies(ctx context.Context, m *method, who *known, needs catalog.Set, err error) error {
	return g.settle(ctx, m, who, needs, nil, err)
}

// settle completes the log for a call that ends with err. What it returns is what the
// caller is told: a decision that cannot be kept fails the call.
func (g *Guard) settle(ctx context.Context, m *method, who *known, needs catalog.Set, e *entry, err error) error {
	denial := denialOf(err)
	if e == nil && (denial == nil || m.log == nil || who == nil || who.Organization == "") {
		return err
	}
	if e == nil {
		e = g.newEntry(ctx, m, who.Principal, needs)
	}
	if e.note == nil || err != nil {
		e.end(ctx, denial, err)
		var failed error
		if e.note, failed = m.log.Note(&e.Decision); failed != nil {
			return unwritten(failed)
		}
	}
	if !e.note.Written() {
		// The caller may be gone; what was decided is kept all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
		defer cancel()
		if failed := m.log.Write(ctx, e.note); failed != nil {
			return unwritten(failed)
		}
	}
	// Fails only outside of a call, as in tests of the guard alone.
	_ = grpc.SetTrailer(ctx, metadata.Pairs(DecisionHeader, e.ID))
	return err
}

// writeTime bounds how long a decision takes to write.
const writeTime = 5 * time.Second

// end notes how the call ended.
func (e *entry) end(ctx context.Context, denial *fault.Error, err error) {
	sealed, _ := fault.Seal(ctx, err, "")
	e.Code = status.Code(sealed)
	if denial != nil {
		e.Denied, e.Reason = true, denial.Reason
		e.Missing, e.Field = denial.Metadata["grant"], denial.Metadata["field"]
	}
}

// denialOf returns the denial that an error is, or nil.
func denialOf(err error) *fault.Error {
	if err == nil {
		return nil
	}
	f, ok := errors.AsType[*fault.Error](err)
	if ok && (f.Code == codes.PermissionDenied || f.Reason == faultpb.Reason_REASON_FEATURE_NOT_IN_PLAN) {
		return f
	}
	return nil
}

// unwritten is what a caller is told whose decision could not be kept.
func unwritten(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Code == codes.ResourceExhausted {
		return f
	}
	return &fault.Error{
		Code: codes.Unavailable, Reason: faultpb.Reason_REASON_DECISION_UNWRITTEN,
		Message: "the decision on the call could not be kept, and so it failed: repeat it with the same request_id",
	}
}

// errPanic stands for the panic of a handler, which goes on after it was logged.
var errPanic = errors.New("the handler panicked")

// logged runs the handler of a call that has an entry, and completes it.
func (g *Guard) logged(ctx context.Context, m *method, who *known, e *entry, handle func() error) error {
	ended := false
	defer func() {
		if !ended {
			_ = g.settle(ctx, m, who, catalog.Set{}, e, errPanic)
		}
	}()
	err := handle()
	ended = true
	return g.settle(ctx, m, who, catalog.Set{}, e, err)
}
