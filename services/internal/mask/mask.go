// Package mask applies update masks (AIP-134): all of the masked fields change, or
// none.
package mask

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"latchkey.dev/services/internal/fault"
)

// Apply copies the masked fields of src into dst, which share nothing afterwards. A
// masked field that src lacks is cleared. Without a mask the fields that src has are
// copied, of those that may change. Mutable lists the fields that may change, each a
// field of the message itself; "*" masks them all. Fails with fault.Invalid of
// "update_mask" for a path that is unknown or may not change, and then changes nothing.
func Apply(dst, src proto.Message, m *fieldmaskpb.FieldMask, mutable ...string) error {
	d := src.ProtoReflect().Descriptor()
	for _, name := range mutable {
		if d.Fields().ByName(protoreflect.Name(name)) == nil {
			panic(fmt.Sprintf("mask: %s has no field %s", d.FullName(), name))
		}
	}
	paths, err := expand(src.ProtoReflect(), m, mutable)
	if err != nil {
		return err
	}
	from := proto.Clone(src).ProtoReflect()
	for _, path := range paths {
		copyPath(dst.ProtoReflect(), from, strings.Split(path, "."))
	}
	return nil
}

// expand returns the paths to copy.
func expand(src protoreflect.Message, m *fieldmaskpb.FieldMask, mutable []string) ([]string, error) {
	if m == nil {
		return slices.DeleteFunc(slices.Clone(mutable), func(name string) bool {
			return !src.Has(src.Descriptor().Fields().ByName(protoreflect.Name(name)))
		}), nil
	}
	all := false
	for _, path := range m.GetPaths() {
		if path == "*" {
			all = true
		} else if err := checkPath(src.Descriptor(), path, mutable); err != nil {
			return nil, err
		}
	}
	if all {
		return mutable, nil
	}
	return m.GetPaths(), nil
}

func checkPath(d protoreflect.MessageDescriptor, path string, mutable []string) error {
	if len(path) > maxPath {
		path = path[:maxPath] + "..."
	}
	name, rest, deeper := strings.Cut(path, ".")
	if !slices.Contains(mutable, name) {
		return fault.Invalid("update_mask", "%q cannot be changed here; these can: %s", path, strings.Join(mutable, ", "))
	}
	for {
		fd := d.Fields().ByName(protoreflect.Name(name))
		switch {
		case fd == nil:
			return fault.Invalid("update_mask", "%q names no field of %s", path, d.Name())
		case !deeper:
			return nil
		case fd.Message() == nil || fd.IsList() || fd.IsMap():
			return fault.Invalid("update_mask", "%q leads through %s, which has no fields to name", path, name)
		case isValue(fd.Message()):
			return fault.Invalid("update_mask", "%q leads into %s, which changes only as a whole", path, name)
		}
		d = fd.Message()
		name, rest, deeper = strings.Cut(rest, ".")
	}
}

// maxPath is how much of a path is looked at, and said back if it is wrong. No field
// lies deeper.
const maxPath = 200

// isValue reports whether a message is a value and no record: an amount, a day, a
// moment. With a part of it changed alone it could be one that no request may have.
func isValue(d protoreflect.MessageDescriptor) bool {
	p := d.ParentFile().Package()
	return p == "latchkey.type.v1" || p == "google.protobuf"
}

func copyPath(dst, src protoreflect.Message, path []string) {
	fd := dst.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	switch {
	case len(path) > 1 && (src.Has(fd) || dst.Has(fd)):
		copyPath(dst.Mutable(fd).Message(), src.Get(fd).Message(), path[1:])
	case len(path) > 1:
	case src.Has(fd):
		dst.Set(fd, src.Get(fd))
	default:
		dst.Clear(fd)
	}
}
