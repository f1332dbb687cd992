package server

import (
	"errors"
	"fmt"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"latchkey.dev/services/internal/fault"
)

// newValidate returns the check of a request's form and bounds, as its .proto file
// declares them. It names each field that is wrong.
func newValidate() (func(proto.Message) error, error) {
	v, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("make the validator: %w", err)
	}
	return func(m proto.Message) error {
		err := v.Validate(m)
		if err == nil {
			return nil
		}
		bad, ok := errors.AsType[*protovalidate.ValidationError](err)
		if !ok {
			return fmt.Errorf("validate %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
		}
		violations := make([]fault.Violation, len(bad.Violations))
		for i, b := range bad.Violations {
			violations[i] = fault.Violation{
				Field:    protovalidate.FieldPathString(b.Proto.GetField()),
				Expected: b.Proto.GetMessage(),
			}
		}
		return fault.InvalidAll(violations...)
	}, nil
}
