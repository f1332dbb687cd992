// Package mask applies update masks (AIP-134): all of the masked fields change, or
// none.
package mask

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"latchkey.dev/services/internal/fault"
)

// Apply copies the masked fields of src into dst. A masked field that src lacks is
// cleared. Without a mask the fields that src has are copied, of those that may
// change. Mutable lists the fields that may change; "*" masks them all. Fails with
// fault.Invalid of "update_mask" for a path that is unknown or may not change, and then
// changes nothing.
func Apply(dst, src proto.Message, m *fieldmaskpb.FieldMask, mutable ...string) error {
	to, from := dst.ProtoReflect(), src.ProtoReflect()
	paths, err := expand(from, m, mutable)
	if err != nil {
		return err
	}
	// A copy, so that dst does not share what the caller's message holds.
	from = proto.Clone(src).ProtoReflect()
	for _, path := range paths {
		copyPath(to, from, strings.Split(path, "."))
	}
	return nil
}

func expand(src protoreflect.Message, m *fieldmaskpb.FieldMask, mutable []string) ([]string, error) {
	if m == nil {
		return slices.DeleteFunc(slices.Clone(mutable), func(name string) bool {
			return !src.Has(src.Descriptor().Fields().ByName(protoreflect.Name(name)))
		}), nil
	}
	if slices.Contains(m.GetPaths(), "*") {
		return mutable, nil
	}
	for _, path := range m.GetPaths() {
		if err := checkPath(src.Descriptor(), path, mutable); err != nil {
			return nil, err
		}
	}
	return m.GetPaths(), nil
}

func checkPath(d protoreflect.MessageDescriptor, path string, mutable []string) error {
	parts := strings.Split(path, ".")
	if !slices.Contains(mutable, parts[0]) {
		return fault.Invalid("update_mask", "%q cannot be changed here; these can: %s", path, strings.Join(mutable, ", "))
	}
	for i, part := range parts {
		fd := d.Fields().ByName(protoreflect.Name(part))
		if fd == nil {
			return fault.Invalid("update_mask", "%q names no field of %s", path, d.Name())
		}
		if i == len(parts)-1 {
			return nil
		}
		if fd.Message() == nil || fd.IsList() || fd.IsMap() {
			return fault.Invalid("update_mask", "%q leads through %s, which has no fields to name", path, part)
		}
		d = fd.Message()
	}
	return nil
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
