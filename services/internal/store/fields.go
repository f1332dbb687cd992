package store

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fields are the fields of a record that the store sets by convention; nil if its
// message lacks them.
type fields struct {
	created, updated protoreflect.FieldDescriptor // Timestamp create_time, update_time
	etag             protoreflect.FieldDescriptor // string etag
	actions          protoreflect.FieldDescriptor // repeated available_actions
}

func fieldsOf(d protoreflect.MessageDescriptor) fields {
	timestamp := (&timestamppb.Timestamp{}).ProtoReflect().Descriptor().FullName()
	timeField := func(name protoreflect.Name) protoreflect.FieldDescriptor {
		fd := d.Fields().ByName(name)
		if fd == nil || fd.IsList() || fd.Message() == nil || fd.Message().FullName() != timestamp {
			return nil
		}
		return fd
	}
	f := fields{created: timeField("create_time"), updated: timeField("update_time")}
	if fd := d.Fields().ByName("etag"); fd != nil && fd.Kind() == protoreflect.StringKind && !fd.IsList() {
		f.etag = fd
	}
	if fd := d.Fields().ByName("available_actions"); fd != nil && fd.IsList() {
		f.actions = fd
	}
	return f
}

// bytes returns what is stored of m: all but what is computed on leaving.
func (f *fields) bytes(m protoreflect.Message) ([]byte, error) {
	if f.actions == nil || !m.Has(f.actions) {
		return encode(m.Interface())
	}
	rest := m.New()
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd != f.actions {
			rest.Set(fd, v)
		}
		return true
	})
	rest.SetUnknown(m.GetUnknown())
	return encode(rest.Interface())
}

// adopt gives m what old has of the fields that change with each write, so that
// their bytes are equal if nothing else differs.
func (f *fields) adopt(m, old protoreflect.Message) {
	if f.created != nil && !m.Has(f.created) {
		copyField(f.created, m, old)
	}
	copyField(f.updated, m, old)
	copyField(f.etag, m, old)
}

// stamp sets what changes with each write.
func (f *fields) stamp(m protoreflect.Message, tx *Tx) {
	if f.created != nil && !m.Has(f.created) {
		m.Set(f.created, protoreflect.ValueOfMessage(timestamppb.New(tx.now).ProtoReflect()))
	}
	if f.updated != nil {
		m.Set(f.updated, protoreflect.ValueOfMessage(timestamppb.New(tx.now).ProtoReflect()))
	}
	if f.etag != nil {
		m.Set(f.etag, protoreflect.ValueOfString(tx.etag()))
	}
}

func copyField(fd protoreflect.FieldDescriptor, to, from protoreflect.Message) {
	switch {
	case fd == nil:
	case !from.Has(fd):
		to.Clear(fd)
	case fd.Message() != nil:
		to.Set(fd, protoreflect.ValueOfMessage(proto.Clone(from.Get(fd).Message().Interface()).ProtoReflect()))
	default:
		to.Set(fd, from.Get(fd))
	}
}
