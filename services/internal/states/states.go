package states

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
)

// State is the enum of a noun's states.
type State interface {
	~int32
	protoreflect.Enum
}

// Action is one call on a record that has states.
type Action[R proto.Message, S State] struct {
	// Method is the full name that the generated code gives,
	// pb.InvoiceService_VoidInvoice_FullMethodName.
	Method string
	// From are the states in which it may be called; nil means any.
	From []S
	// To is the state after; 0 if it stays, or if the handler decides.
	To S
	// Check says what else must hold between caller and record; nil if nothing. It
	// returns a fault. Who the caller is when the suite acts itself, nobody knows:
	// then Check is not asked.
	Check func(caller *authz.Principal, record R) error
}

// Table is the states of one noun.
type Table[R proto.Message, S State] struct {
	kind    string
	id      func(R) string
	state   func(R) S
	set     func(R, S)
	actions []Action[R, S]
	answers []answers[S] // of Actions, by row
}

// New returns the table of a noun. Kind is its name in errors, "invoice"; set stores
// a state in a record.
func New[R proto.Message, S State](kind string, id func(R) string, state func(R) S, set func(R, S), actions ...Action[R, S]) *Table[R, S] {
	t := &Table[R, S]{kind, id, state, set, actions, make([]answers[S], len(actions))}
	for i := range actions {
		t.prepare(&t.answers[i], &actions[i])
	}
	return t
}

// Apply moves the record by the row of a method, or says why it cannot: the state
// first, then the relation. A method without a row is a bug and panics.
func (t *Table[R, S]) Apply(ctx context.Context, method string, record R) error {
	i := slices.IndexFunc(t.actions, func(a Action[R, S]) bool { return a.Method == method })
	if i < 0 {
		panic("states: " + t.kind + " has no row for " + method)
	}
	a := &t.actions[i]
	if state := t.state(record); !a.startsIn(state) {
		return t.forbids(a, t.id(record), state)
	}
	if err := a.check(authz.Caller(ctx), record); err != nil {
		return err
	}
	if a.To != 0 {
		t.set(record, a.To)
	}
	return nil
}

// Rows returns the table, for tests that walk it.
func (t *Table[R, S]) Rows() []Action[R, S] { return t.actions }

func (a *Action[R, S]) startsIn(state S) bool { return a.From == nil || slices.Contains(a.From, state) }

func (a *Action[R, S]) check(caller *authz.Principal, record R) error {
	if a.Check == nil || caller.ID == "" {
		return nil
	}
	return a.Check(caller, record)
}

func (t *Table[R, S]) forbids(a *Action[R, S], id string, state S) error {
	allowed := make([]string, len(a.From))
	for i, s := range a.From {
		allowed[i] = name(s)
	}
	method := a.Method[strings.LastIndex(a.Method, "/")+1:]
	return &fault.Error{
		Code: codes.FailedPrecondition, Reason: faultpb.Reason_REASON_STATE_FORBIDS,
		Message: fmt.Sprintf("%s needs the %s in state %s; it is %s", method, t.kind, strings.Join(allowed, " or "), name(state)),
		Brief:   "only in state " + strings.Join(allowed, " or "),
		Metadata: map[string]string{
			"kind": t.kind, "id": id, "state": name(state),
			"method": a.Method[1:], "allowed": strings.Join(allowed, ","),
		},
	}
}

// name returns "OPEN" for INVOICE_STATE_OPEN: without the prefix of the zero value.
func name[S State](s S) string {
	values := s.Descriptor().Values()
	prefix := strings.TrimSuffix(string(values.ByNumber(0).Name()), "UNSPECIFIED")
	if v := values.ByNumber(s.Number()); v != nil {
		return strings.TrimPrefix(string(v.Name()), prefix)
	}
	return fmt.Sprint(int32(s))
}
