package authz

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Redact clears, at any depth of m, what the caller may not see: for what leaves in another
// form than its own, which the guard does not recognize.
//
// SECURITY: in a stream, ask for each message anew, right before it is sent.
func Redact(ctx context.Context, m proto.Message) error {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return fmt.Errorf("redact %s: outside of a call", m.ProtoReflect().Descriptor().FullName())
	}
	s, err := c.rules.shapeOf(m.ProtoReflect().Descriptor())
	if err != nil {
		return fmt.Errorf("redact: %w", err)
	}
	p := c.caller()
	if p.uses != nil {
		p.uses.consultAll(s.reads.Intersection(p.Grants))
	}
	s.redact(m.ProtoReflect(), &p.Grants)
	return nil
}

// shapeOf returns the shape of a message, which is compiled if no method sends or takes it.
func (r *Rules) shapeOf(d protoreflect.MessageDescriptor) (*shape, error) {
	if s, ok := r.shapes[d.FullName()]; ok {
		return s, nil
	}
	if s, ok := r.others.Load(d.FullName()); ok {
		return s.(*shape), nil
	}
	p := newPlan()
	s, err := p.shape(d)
	if err != nil {
		return nil, err
	}
	p.settle()
	r.others.Store(d.FullName(), s)
	return s, nil
}
