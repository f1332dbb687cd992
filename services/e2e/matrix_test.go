package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	authzpb "latchkey.dev/gen/go/latchkey/authz/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
)

// TestAccessMatrix calls every method without credentials, with everything but what it
// needs, and with only that; and so for each enum value and guarded field that its
// request can carry. What it needs is read from the descriptors, so a new method is
// in the matrix by being there.
func TestAccessMatrix(t *testing.T) {
	m := &matrix{t: t, server: allParts(t)}
	for _, method := range methods() {
		t.Run(strings.TrimPrefix(method.path(), "/latchkey."), func(t *testing.T) {
			m := &matrix{t: t, server: m.server}
			m.checkRule(method)
			m.checkContent(method)
		})
	}
}

func allParts(t testing.TB) *servertest.Server {
	parts := make([]server.Part, len(names))
	for i, name := range names {
		parts[i] = services[name]
	}
	return servertest.Start(t, parts...)
}

type matrix struct {
	t      *testing.T
	server *servertest.Server
}

// outcome is how a call ended: whether access was decided, and if denied for want of
// which grant.
type outcome struct {
	code   codes.Code
	reason string
	grant  string
	field  string
}

func outcomeOf(err error) outcome {
	st := status.Convert(err)
	o := outcome{code: st.Code()}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			o.reason, o.grant, o.field = info.GetReason(), info.GetMetadata()["grant"], info.GetMetadata()["field"]
		}
	}
	return o
}

// denied tells whether the caller was turned away for want of a grant. What comes
// after access, as an empty request being invalid, is not.
func (o outcome) denied() bool { return o.reason == "GRANT_MISSING" }

func (o outcome) letIn() bool {
	switch o.code {
	case codes.Unauthenticated:
		// That a token is worth nothing, the gate of identity says too, after access: the
		// sessions of this test are not in its store.
		return o.reason == "CREDENTIALS_INVALID"
	case codes.Unimplemented, codes.Internal, codes.Unknown:
		return false
	}
	return !o.denied() && o.reason != "SURFACE_CLOSED" && o.reason != "INTERNAL_ONLY" && o.reason != "FEATURE_NOT_IN_PLAN"
}

// everything is every grant of the catalog.
func everything() []string {
	var all []string
	for _, k := range catalog.Keys() {
		all = append(all, k.Name)
	}
	for _, s := range catalog.Settings() {
		if bit, ok := s.Grant(); ok {
			all = append(all, bit.String())
		}
	}
	for _, f := range catalog.Features() {
		all = append(all, f.Bit().String())
	}
	return all
}

func without(all []string, some ...string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

func (m *matrix) call(conn grpc.ClientConnInterface, method method, req proto.Message) outcome {
	_, err := method.call(m.t.Context(), conn, req)
	return outcomeOf(err)
}

func (m *matrix) as(grants ...string) grpc.ClientConnInterface { return m.server.As(grants...) }

func (m *matrix) wantLetIn(who string, got outcome) {
	m.t.Helper()
	if !got.letIn() {
		m.t.Errorf("%s: got %+v, want to be let in", who, got)
	}
}

func (m *matrix) wantDenied(who string, got outcome, grants ...string) {
	m.t.Helper()
	if got.code != codes.PermissionDenied || !got.denied() || !slices.Contains(grants, got.grant) {
		m.t.Errorf("%s: got %+v, want PermissionDenied naming %q", who, got, grants)
	}
}

// checkRule walks the row of a method by its rule, with an empty request: it is as a
// rule invalid, and nobody who may not call must be told so.
func (m *matrix) checkRule(method method) {
	empty := newMessage(method.Input())
	anonymous := m.call(m.server.Anonymous(), method, empty)
	if method.rule.GetAnyone() {
		m.wantLetIn("anonymous", anonymous)
		return
	}
	if anonymous.code != codes.Unauthenticated || anonymous.reason != "CREDENTIALS_MISSING" {
		m.t.Errorf("anonymous: got %+v, want Unauthenticated", anonymous)
	}
	switch rule := method.rule; {
	case rule.GetInternal():
		if got := m.call(m.as(everything()...), method, empty); got.reason != "INTERNAL_ONLY" {
			m.t.Errorf("user with every grant: got %+v, want INTERNAL_ONLY", got)
		}
		m.wantLetIn("service", m.call(m.server.Service("test"), method, empty))
	case rule.GetSignedIn():
		m.wantLetIn("user without grants", m.call(m.as(), method, empty))
	case rule.GetByContent():
		if got := m.call(m.as(), method, empty); got.code != codes.PermissionDenied {
			m.t.Errorf("user without grants: got %+v, want PermissionDenied", got)
		}
	default:
		m.checkKeys(method, empty)
	}
}

func (m *matrix) checkKeys(method method, empty proto.Message) {
	all, some := method.rule.GetAll(), method.rule.GetAny()
	for _, key := range all {
		m.wantDenied("everything but "+key, m.call(m.as(without(everything(), key)...), method, empty), key)
	}
	if len(all) > 0 {
		m.wantLetIn(fmt.Sprintf("only %q", all), m.call(m.as(all...), method, empty))
	}
	if len(some) > 0 {
		m.wantDenied(fmt.Sprintf("everything but %q", some), m.call(m.as(without(everything(), some...)...), method, empty), some...)
	}
	for _, key := range some {
		m.wantLetIn("only "+key, m.call(m.as(key), method, empty))
	}
}

// asking is a request that asks for grants by its content.
type asking struct {
	where  string // the field, and the value chosen
	req    proto.Message
	grants []string
}

// checkContent walks every guarded field and chosen value of a method's request.
func (m *matrix) checkContent(method method) {
	if method.rule.GetInternal() || method.rule.GetAnyone() {
		return
	}
	base := append(slices.Clone(method.rule.GetAll()), method.rule.GetAny()...)
	for _, a := range askings(method.Input()) {
		for _, grant := range a.grants {
			if slices.Contains(base, grant) {
				continue
			}
			m.wantDenied(a.where+" without "+grant, m.call(m.as(without(everything(), grant)...), method, a.req), grant)
		}
		m.wantLetIn(a.where+fmt.Sprintf(" with only %q", a.grants), m.call(m.as(append(a.grants, base...)...), method, a.req))
	}
}

// askings builds a request for each guarded field and chosen value that a message
// can carry: set, and if the request has a mask, masked.
func askings(d protoreflect.MessageDescriptor) []asking {
	var found []asking
	walk(d, nil, func(path []protoreflect.FieldDescriptor, grants []string, value protoreflect.Value) {
		req := newMessage(d)
		setPath(req.ProtoReflect(), path, value)
		name := pathName(path)
		found = append(found, asking{where: name, req: req, grants: grants})
		mask := d.Fields().ByName("update_mask")
		if mask == nil || len(path) < 2 {
			return
		}
		masked := newMessage(d)
		paths := masked.ProtoReflect().Mutable(mask).Message()
		list := paths.Mutable(paths.Descriptor().Fields().ByName("paths")).List()
		list.Append(protoreflect.ValueOfString(string(path[1].Name())))
		found = append(found, asking{where: "mask of " + string(path[1].Name()), req: masked, grants: within(path[1])})
	})
	return found
}

// walk visits the guarded fields and chosen values of a message, to a depth that no
// request of the suite exceeds.
func walk(d protoreflect.MessageDescriptor, path []protoreflect.FieldDescriptor, visit func([]protoreflect.FieldDescriptor, []string, protoreflect.Value)) {
	if len(path) > 4 {
		return
	}
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		here := append(slices.Clone(path), fd)
		if grants := guards(here); len(guards(here[len(here)-1:])) > 0 {
			visit(here, grants, someValue(fd))
		}
		if fd.Enum() != nil && !fd.IsMap() {
			for j := range fd.Enum().Values().Len() {
				v := fd.Enum().Values().Get(j)
				if key, _ := proto.GetExtension(v.Options(), authzpb.E_Choose).(string); key != "" {
					visit(here, append(guards(here), key), protoreflect.ValueOfEnum(v.Number()))
				}
			}
		}
		if fd.Message() != nil && !fd.IsMap() {
			walk(fd.Message(), here, visit)
		}
	}
}

// guards returns the grants of the fields of a path.
func guards(path []protoreflect.FieldDescriptor) []string {
	var grants []string
	for _, fd := range path {
		g, _ := proto.GetExtension(fd.Options(), authzpb.E_Guard).(*authzpb.Guard)
		for _, grant := range []string{g.GetWrite(), g.GetRead()} {
			if grant != "" && !slices.Contains(grants, grant) {
				grants = append(grants, grant)
			}
		}
	}
	return grants
}

// within returns the grants of a field and of all that is inside it.
func within(fd protoreflect.FieldDescriptor) []string {
	grants := guards([]protoreflect.FieldDescriptor{fd})
	if fd.Message() == nil {
		return grants
	}
	walk(fd.Message(), nil, func(path []protoreflect.FieldDescriptor, inner []string, _ protoreflect.Value) {
		for _, g := range guards(path) {
			if !slices.Contains(grants, g) {
				grants = append(grants, g)
			}
		}
	})
	return grants
}

func pathName(path []protoreflect.FieldDescriptor) string {
	parts := make([]string, len(path))
	for i, fd := range path {
		parts[i] = string(fd.Name())
	}
	return strings.Join(parts, ".")
}

// someValue returns a value of a field that is not its default; for lists of its
// element; not valid for messages, which being there is enough for.
func someValue(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x"))
	}
	return protoreflect.Value{}
}

func setPath(m protoreflect.Message, path []protoreflect.FieldDescriptor, value protoreflect.Value) {
	fd, rest := path[0], path[1:]
	switch {
	case fd.IsList() && fd.Message() != nil:
		inner := m.Mutable(fd).List().AppendMutable().Message()
		if len(rest) > 0 {
			setPath(inner, rest, value)
		}
	case fd.IsList():
		m.Mutable(fd).List().Append(value)
	case len(rest) > 0:
		setPath(m.Mutable(fd).Message(), rest, value)
	case fd.Message() != nil:
		m.Mutable(fd)
	default:
		m.Set(fd, value)
	}
}

// TestMatrixSeesWhatRequestsCanCarry holds the generator itself against requests of
// which we know what they ask for.
func TestMatrixSeesWhatRequestsCanCarry(t *testing.T) {
	for name, want := range map[string][]string{
		"ListParts":         {"view [Organization:Parts]", "view [ControlPanel:Parts:Index]"},
		"CreateComment":     {"private [ServiceRequests:Comments:Private]"},
		"UpdatePart":        {"part.price [ControlPanel:Parts:Edit:Pricing setting:see_pricing]", "mask of price [ControlPanel:Parts:Edit:Pricing setting:see_pricing]"},
		"FinishAppointment": {"parts [Appointments:Finish:AddParts]"},
		"UpdateInvoice":     {"invoice.lines.unit_price [setting:see_pricing]", "mask of lines [setting:see_pricing]"},
	} {
		var got []string
		for _, a := range askings(methodByName(t, name).Input()) {
			got = append(got, fmt.Sprint(a.where, " ", a.grants))
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%s asks for %q, want %q among it", name, got, w)
			}
		}
	}
}
