package authz

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Redact clears, at any depth of m, what the caller may not see: for what leaves in another
// form than its own, which the guard does not recognize. It fails for a message that no
// method of the process sends or takes, since nothing is known of its guards.
//
// SECURITY: in a stream, ask for each message anew, right before it is sent.
func Redact(ctx context.Context, m proto.Message) error {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return fmt.Errorf("redact %s: outside of a call", m.ProtoReflect().Descriptor().FullName())
	}
	s, ok := c.rules.shapes[m.ProtoReflect().Descriptor().FullName()]
	if !ok {
		return fmt.Errorf("redact %s: no method sends it", m.ProtoReflect().Descriptor().FullName())
	}
	p := c.caller()
	if p.uses != nil {
		p.uses.consultAll(s.reads.Intersection(p.Grants))
	}
	s.redact(m.ProtoReflect(), &p.Grants)
	return nil
}

// Reaches tells whether a method sends or takes the message, at any depth, so that Redact
// knows its guards.
func (r *Rules) Reaches(m proto.Message) bool {
	return r.shapes[m.ProtoReflect().Descriptor().FullName()] != nil
}
