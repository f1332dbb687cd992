package authz

import (
	"errors"
	"fmt"
	"slices"

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
	name     string // "/latchkey.invoicing.v1.InvoiceService/VoidInvoice"
	kind     kind
	grants   catalog.Set // of byAll and byAny
	order    []catalog.Bit
	features []featureNeed // add-on features without which the grants of byAll cannot count
	content  *content      // nil if no request of this method can ask for a grant
	redact   *redaction    // nil if no response of this method has a guarded field
}

type featureNeed struct{ feature, key catalog.Bit }

// Rules are the compiled rules of every method that a server serves. They are
// built before serving and only read afterwards.
type Rules struct {
	methods map[string]*method
	plans   *plans
}

// open are the services that carry no rules of ours and that anyone may call:
// health says whether a service is up, reflection what its API is.
var open = []string{
	"grpc.health.v1.Health",
	"grpc.reflection.v1.ServerReflection",
	"grpc.reflection.v1alpha.ServerReflection",
}

// Compile reads the rules of every registered method. Its error names each method,
// field and value that is wrong, and where it stands.
func Compile(services map[string]grpc.ServiceInfo) (*Rules, error) {
	r := &Rules{methods: map[string]*method{}, plans: newPlans()}
	var errs []error
	for name := range services {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", name, err))
			continue
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			m, err := r.compile(methods.Get(i))
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", methods.Get(i).ParentFile().Path(), methods.Get(i).FullName(), err))
				continue
			}
			r.methods[m.name] = m
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return compare(a.Error(), b.Error()) })
	return r, errors.Join(errs...)
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (r *Rules) compile(d protoreflect.MethodDescriptor) (*method, error) {
	m := &method{name: fmt.Sprintf("/%s/%s", d.Parent().FullName(), d.Name())}
	if slices.Contains(open, string(d.Parent().FullName())) {
		m.kind = byAnyone
		return m, nil
	}
	if err := m.setRule(ruleOf(d)); err != nil {
		return nil, err
	}
	var err error
	if m.content, err = r.plans.contentOf(d); err != nil {
		return nil, err
	}
	if m.redact, err = r.plans.redactionOf(d.Output()); err != nil {
		return nil, err
	}
	if m.kind == byContent && m.content == nil {
		return nil, errors.New("its rule is by_content, but nothing in its request has a guard or a choice")
	}
	return m, nil
}

func ruleOf(d protoreflect.MethodDescriptor) *authzpb.Rule {
	rule, _ := proto.GetExtension(d.Options(), authzpb.E_Rule).(*authzpb.Rule)
	return rule
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
			return err
		}
		m.grants.Add(bit)
		m.order = append(m.order, bit)
		if m.kind == byAll {
			m.features = append(m.features, featuresOf(bit)...)
		}
	}
	return nil
}

// featuresOf returns the add-on features that the grant and the keys above it need.
func featuresOf(bit catalog.Bit) []featureNeed {
	needs := catalog.Needs(bit)
	var found []featureNeed
	for _, f := range catalog.Features() {
		if needs.Has(f.Bit()) {
			found = append(found, featureNeed{f.Bit(), bit})
		}
	}
	return found
}

func grant(name string) (catalog.Bit, error) {
	bit, ok := catalog.Grant(name)
	if !ok {
		return 0, fmt.Errorf("it names the grant %q, which the catalog does not hold (spelling, case and blanks count)", name)
	}
	return bit, nil
}

// Methods returns the full names of all methods, unordered.
func (r *Rules) Methods() []string {
	names := make([]string, 0, len(r.methods))
	for name := range r.methods {
		names = append(names, name)
	}
	return names
}
