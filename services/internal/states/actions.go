package states

import (
	"context"
	"errors"
	"sync/atomic"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
)

// answers are what Actions says of one row. A page asks for hundreds of them, and
// nearly all are the same: so they are made once, and shared.
type answers[S State] struct {
	allowed   *typepb.AvailableAction
	forbidden map[S]*typepb.AvailableAction // by the state that forbids it
	denied    atomic.Pointer[[]denied]      // by the rule of the method
}

// denied is the answer for one denial of the rule of a method. The rule has a few, and
// returns the same each time.
type denied struct {
	err    error
	answer *typepb.AvailableAction
}

// maxDenied bounds the denials of one row that are remembered.
const maxDenied = 16

func (t *Table[R, S]) prepare(to *answers[S], a *Action[R, S]) {
	to.allowed = &typepb.AvailableAction{Method: a.Method[1:], Allowed: true}
	to.forbidden = map[S]*typepb.AvailableAction{}
	var zero S
	values := zero.Descriptor().Values()
	for i := range values.Len() {
		if state := S(values.Get(i).Number()); !a.startsIn(state) {
			to.forbidden[state] = refused(a.Method, t.forbids(a, "", state))
		}
	}
}

// Actions tells for every row whether the caller could call it on the record now,
// and if not, why: by the rule of the method, the state, and the relation. The messages
// are shared by many records and must not be changed; the slice is the caller's own.
func (t *Table[R, S]) Actions(ctx context.Context, record R) []*typepb.AvailableAction {
	caller, state := authz.Caller(ctx), t.state(record)
	actions := make([]*typepb.AvailableAction, len(t.actions))
	for i := range t.actions {
		a := &t.actions[i]
		if err := authz.Permits(ctx, a.Method); err != nil {
			actions[i] = t.answers[i].ofDenial(a.Method, err)
		} else if !a.startsIn(state) {
			actions[i] = t.ofState(i, state)
		} else if err := a.check(caller, record); err != nil {
			actions[i] = refused(a.Method, err)
		} else {
			actions[i] = t.answers[i].allowed
		}
	}
	return actions
}

// ofState returns the answer where the state forbids a row. A state that this version
// does not know was written by a later one.
func (t *Table[R, S]) ofState(i int, state S) *typepb.AvailableAction {
	if a := t.answers[i].forbidden[state]; a != nil {
		return a
	}
	a := &t.actions[i]
	return refused(a.Method, t.forbids(a, "", state))
}

func (as *answers[S]) ofDenial(method string, err error) *typepb.AvailableAction {
	known := as.denied.Load()
	if known != nil {
		for _, d := range *known {
			if d.err == err {
				return d.answer
			}
		}
	}
	d := denied{err, refused(method, err)}
	list := []denied{d}
	if known != nil {
		list = append(list, *known...)
	}
	if len(list) <= maxDenied {
		as.denied.CompareAndSwap(known, &list) // who loses is remembered the next time
	}
	return d.answer
}

// refused makes the answer for an error. Only what a fault says is for callers.
func refused(method string, err error) *typepb.AvailableAction {
	a := &typepb.AvailableAction{
		Method: method[1:], Reason: fault.ReasonName(faultpb.Reason_REASON_INTERNAL), Explanation: "the suite is at fault",
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		a.Reason, a.Explanation = f.ReasonName(), f.InBrief()
	}
	return a
}
