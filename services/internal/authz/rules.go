package authz

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	authzpb "latchkey.dev/gen/go/latchkey/authz/v1"

	"latchkey.dev/services/internal/catalog"
)

// kind is which of the fields of a Rule is set.
type kind int

const (
	byAll kind = iota
	byAny
	byContent
	bySignedIn
	byInternal
	byAnyone
)

// method is one method's rule, compiled.
type method struct {
	name    string // "/latchkey.invoicing.v1.InvoiceService/VoidInvoice"
	kind    kind
	grants  catalog.Set // of byAll and byAny
	named   []named     // the same in the order of the rule
	denials denials
	content *content // nil if no request of this method can ask for a grant
	redact  *shape   // nil if no response of this method has a guarded field
	changes bool     // may change something
	log     Log      // nil if nothing is kept of its calls
	meter   *Meter   // of the log
}

// named is a grant that a rule names.
type named struct {
	bit      catalog.Bit
	features []feature // of the plan, without which it cannot count
	denial   error     // for want of it
}

// feature is an add-on that a grant needs.
type feature struct {
	bit    catalog.Bit
	denial error // for want of it in the plan
}

// Rules are the compiled rules of every method that a server serves. They are
// built before serving and only read afterwards.
type Rules struct {
	methods map[string]*method
	shapes  map[protoreflect.FullName]*shape // of all messages that the methods reach
	others  sync.Map                         // of further ones, once they were asked for
}

// open are the services that carry no rules of ours and that anyone may call:
// health says whether a service is up, reflection what its API is.
var open = []string{
	"grpc.health.v1.Health",
	"grpc.reflection.v1.ServerReflection",
	"grpc.reflection.v1alpha.ServerReflection",
}

// Compile reads the rules of every registered method. Its error has a line for each
// method, field and value that is wrong, with the file that it stands in.
func Compile(services map[string]grpc.ServiceInfo) (*Rules, error) {
	r := &Rules{methods: map[string]*method{}}
	p := newPlan()
	var found []protoreflect.MethodDescriptor
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(services)) {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		service, ok := d.(protoreflect.ServiceDescriptor)
		if err != nil || !ok {
			errs = append(errs, fmt.Errorf("service %s: its descriptor is not linked into this program", name))
			continue
		}
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			found = append(found, m)
			_, inputErr := p.shape(m.Input())
			_, outputErr := p.shape(m.Output())
			errs = append(errs, inputErr, outputErr)
		}
	}
	p.settle()
	r.shapes = p.shapes
	for _, d := range found {
		m, err := p.method(d)
		if err != nil {
			errs = append(errs, wrong(d, "method %s: %w", d.FullName(), err))
			continue
		}
		r.methods[m.name] = m
	}
	return r, errors.Join(errs...)
}

func (p *plan) method(d protoreflect.MethodDescriptor) (*method, error) {
	m := &method{name: fmt.Sprintf("/%s/%s", d.Parent().FullName(), d.Name())}
	m.changes = changes(d.Input())
	if slices.Contains(open, string(d.Parent().FullName())) {
		m.kind = byAnyone
		return m, nil
	}
	rule, _ := proto.GetExtension(d.Options(), authzpb.E_Rule).(*authzpb.Rule)
	if err := m.setRule(rule); err != nil {
		return nil, err
	}
	var err error
	if m.content, err = p.contentOf(d); err != nil {
		return nil, err
	}
	if out := p.shapes[d.Output().FullName()]; !out.reads.Empty() {
		m.redact = out
	}
	if m.kind == byContent && (m.content == nil || m.content.actions().Empty()) {
		return nil, errors.New("its rule is by_content, but nothing in its request has a choose option or a guard with write")
	}
	return m, nil
}

func (m *method) setRule(rule *authzpb.Rule) error {
	set := 0
	for k, on := range []bool{
		byAll: len(rule.GetAll()) > 0, byAny: len(rule.GetAny()) > 0, byContent: rule.GetByContent(),
		bySignedIn: rule.GetSignedIn(), byInternal: rule.GetInternal(), byAnyone: rule.GetAnyone(),
	} {
		if on {
			m.kind = kind(k)
			set++
		}
	}
	if set == 0 {
		return errors.New("it has no rule: add option (latchkey.authz.v1.rule)")
	}
	if set > 1 {
		return errors.New("its rule sets more than one of all, any, by_content, signed_in, internal and anyone")
	}
	for _, name := range slices.Concat(rule.GetAll(), rule.GetAny()) {
		bit, err := grant(name)
		if err != nil {
			return fmt.Errorf("its rule: %w", err)
		}
		m.grants.Add(bit)
		m.named = append(m.named, named{bit: bit})
	}
	m.prepareDenials()
	return nil
}

// service returns "latchkey.invoicing.v1.InvoiceService".
func (m *method) service() string { return path.Dir(m.name[1:]) }

// Methods returns the full names of all methods, unordered.
func (r *Rules) Methods() []string { return slices.Collect(maps.Keys(r.methods)) }

// Has tells whether there is a method of the full name.
func (r *Rules) Has(fullMethod string) bool { return r.methods[fullMethod] != nil }
