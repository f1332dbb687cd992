package server

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"latchkey.dev/services/internal/fault"
)

var (
	timestampName = (*timestamppb.Timestamp)(nil).ProtoReflect().Descriptor().FullName()
	durationName  = (*durationpb.Duration)(nil).ProtoReflect().Descriptor().FullName()
)

// newValidate returns the check of a request's form and bounds, as its .proto file
// declares them. It names each field that is wrong.
func newValidate() (func(proto.Message) error, error) {
	v, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("make the validator: %w", err)
	}
	var timed timedTypes
	return func(m proto.Message) error {
		var violations []fault.Violation
		if timed.has(m.ProtoReflect().Descriptor()) {
			checkTimes(m.ProtoReflect(), "", &violations)
		}
		err := v.Validate(m)
		if bad, ok := errors.AsType[*protovalidate.ValidationError](err); ok {
			for _, b := range bad.Violations {
				violations = append(violations, fault.Violation{
					Field:    protovalidate.FieldPathString(b.Proto.GetField()),
					Expected: expected(m.ProtoReflect().Descriptor(), b),
				})
			}
			err = nil
		}
		switch {
		case len(violations) > 0:
			return fault.InvalidAll(violations...)
		case err != nil:
			return fmt.Errorf("validate %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
		}
		return nil
	}, nil
}

// expected says what must be sent, where the words of the rule alone do not tell.
func expected(md protoreflect.MessageDescriptor, v *protovalidate.Violation) string {
	fd := v.FieldDescriptor
	switch rule := v.Proto.GetRuleId(); {
	case fd == nil:
		if names := alternatives(md, v.Proto.GetField().GetElements()); len(names) > 0 {
			return "must be one of " + strings.Join(names, ", ") + ": send exactly one of them"
		}
	case fd.Enum() != nil && (rule == "enum.not_in" || rule == "enum.defined_only"):
		return "must be one of " + strings.Join(choices(fd.Enum()), ", ")
	case rule == "string.pattern" && v.RuleValue.String() == notBlank:
		return "must not be blank"
	}
	return v.Proto.GetMessage()
}

// notBlank is the pattern by which .proto files declare that a text is not blank.
const notBlank = `\S`

// alternatives returns the fields of the oneof that a path leads to, or none.
func alternatives(md protoreflect.MessageDescriptor, path []*validate.FieldPathElement) (names []string) {
	for i, e := range path {
		name := protoreflect.Name(e.GetFieldName())
		if i == len(path)-1 {
			if one := md.Oneofs().ByName(name); one != nil {
				for j := range one.Fields().Len() {
					names = append(names, string(one.Fields().Get(j).Name()))
				}
			}
			return names
		}
		fd := md.Fields().ByName(name)
		if fd == nil || fd.Message() == nil || fd.IsMap() {
			return nil
		}
		md = fd.Message()
	}
	return nil
}

// choices returns the names of the values of an enumeration that say something.
func choices(ed protoreflect.EnumDescriptor) (names []string) {
	for i := range ed.Values().Len() {
		if v := ed.Values().Get(i); v.Number() != 0 {
			names = append(names, string(v.Name()))
		}
	}
	return names
}

// timedTypes remembers of each type of request whether it has a timestamp or a duration
// at any depth: most have none, and need not be walked through at every call.
type timedTypes struct{ known sync.Map } // of protoreflect.MessageDescriptor to bool

func (t *timedTypes) has(md protoreflect.MessageDescriptor) bool {
	known, ok := t.known.Load(md)
	if !ok {
		known = hasTime(md, map[protoreflect.FullName]bool{})
		t.known.Store(md, known)
	}
	return known.(bool)
}

// hasTime looks for a time in a type and in those of its fields that were not seen yet.
func hasTime(md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if name := md.FullName(); seen[name] {
		return false
	} else if seen[name] = true; name == timestampName || name == durationName {
		return true
	}
	for i := range md.Fields().Len() {
		if fd := md.Fields().Get(i); fd.Message() != nil && hasTime(fd.Message(), seen) {
			return true
		}
	}
	return false
}

// checkTimes adds a violation for each timestamp and duration, at any depth, that is
// out of the range that its type documents: no declared bound speaks of that.
func checkTimes(m protoreflect.Message, path string, violations *[]fault.Violation) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() == nil || fd.IsMap() {
			return true
		}
		name := path + string(fd.Name())
		if !fd.IsList() {
			checkTime(v.Message(), name, violations)
			return true
		}
		for i := range v.List().Len() {
			checkTime(v.List().Get(i).Message(), fmt.Sprintf("%s[%d]", name, i), violations)
		}
		return true
	})
}

func checkTime(m protoreflect.Message, name string, violations *[]fault.Violation) {
	switch v := m.Interface().(type) {
	case *timestamppb.Timestamp:
		if v.CheckValid() != nil {
			*violations = append(*violations, fault.Violation{Field: name, Expected: "must be a time from 0001-01-01 to 9999-12-31, with 0 to 999,999,999 nanoseconds"})
		}
	case *durationpb.Duration:
		if v.CheckValid() != nil {
			*violations = append(*violations, fault.Violation{Field: name, Expected: "must be a duration of at most 10,000 years, with seconds and nanoseconds of one sign"})
		}
	default:
		checkTimes(m, name+".", violations)
	}
}
