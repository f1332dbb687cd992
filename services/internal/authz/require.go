package authz

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"latchkey.dev/services/internal/catalog"
)

// RuleKind is how a method decides who may call it.
type RuleKind = kind

// The kinds of rules.
const (
	RuleAll       = byAll
	RuleAny       = byAny
	RuleByContent = byContent
	RuleSignedIn  = bySignedIn
	RuleInternal  = byInternal
	RuleAnyone    = byAnyone
)

// Requirement is what a method asks of who calls it, as data: for those who answer
// questions about access, and decide nothing by it.
type Requirement struct {
	Method  string // "latchkey.invoicing.v1.InvoiceService/VoidInvoice"
	Kind    RuleKind
	Grants  []catalog.Bit // of RuleAll and RuleAny, in the order of the rule
	Content []ContentRequirement

	named, actions catalog.Set
}

// ContentRequirement is what it takes to send a field or to choose a value.
type ContentRequirement struct {
	Field  string // path from the request, "invoice.lines.unit_price"
	Value  string // name of the chosen value, or empty
	Grants []catalog.Bit
}

// Permits tells whether some request of the method is let through for who holds the
// grants, on a surface that needs none.
func (r *Requirement) Permits(grants catalog.Set) bool {
	switch r.Kind {
	case RuleAll:
		return grants.Contains(r.named)
	case RuleAny:
		return grants.Intersects(r.named)
	case RuleByContent:
		return grants.Intersects(r.actions)
	case RuleInternal:
		return false
	}
	return true
}

// Asks returns the grants that the method is let through by: all of them for RuleAll,
// else one of them. It is empty where no grant is asked for.
func (r *Requirement) Asks() catalog.Set {
	if r.Kind == RuleByContent {
		return r.actions
	}
	return r.named
}

// Requirements returns what every method asks for of the services of the suite whose
// descriptors are linked into the program, by full name. Nobody may change it.
var Requirements = sync.OnceValues(requirements)

func requirements() (map[string]*Requirement, error) {
	services := map[string]grpc.ServiceInfo{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if name := string(f.Services().Get(i).FullName()); strings.HasPrefix(name, "latchkey.") {
				services[name] = grpc.ServiceInfo{}
			}
		}
		return true
	})
	rules, err := Compile(services)
	all := map[string]*Requirement{}
	for _, m := range rules.methods {
		r := &Requirement{Method: m.name[1:], Kind: m.kind, named: m.grants}
		for _, n := range m.named {
			r.Grants = append(r.Grants, n.bit)
		}
		if m.content != nil {
			r.actions = m.content.actions()
			m.content.require(nil, "", nil, &r.Content)
		}
		all[r.Method] = r
	}
	return all, err
}

// require collects what the fields of a shape take. A message inside itself is not
// entered again.
func (s *shape) require(path []*shape, prefix string, above []catalog.Bit, found *[]ContentRequirement) {
	if slices.Contains(path, s) {
		return
	}
	path = append(path, s)
	for _, f := range s.asking {
		name, grants := prefix+string(f.desc.Name()), slices.Clone(above)
		for _, bit := range []*catalog.Bit{f.write, f.read} {
			if bit != nil && !slices.Contains(grants, *bit) {
				grants = append(grants, *bit)
			}
		}
		if f.read != nil || f.write != nil {
			*found = append(*found, ContentRequirement{Field: name, Grants: grants})
		}
		for _, n := range slices.Sorted(maps.Keys(f.choose)) {
			*found = append(*found, ContentRequirement{
				Field: name, Value: f.valueName(n), Grants: append(slices.Clone(grants), f.choose[n]),
			})
		}
		if f.inner != nil {
			f.inner.require(path, name+".", grants, found)
		}
	}
}

func (f *field) valueName(n protoreflect.EnumNumber) string {
	d := f.desc
	if d.IsMap() {
		d = d.MapValue()
	}
	return string(d.Enum().Values().ByNumber(n).Name())
}
