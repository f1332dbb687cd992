package permissions

import (
	"maps"
	"slices"

	_ "latchkey.dev/gen/go/latchkey/event/v1"          // methods, as data
	_ "latchkey.dev/gen/go/latchkey/identity/v1"       // methods, as data
	_ "latchkey.dev/gen/go/latchkey/invoicing/v1"      // methods, as data
	_ "latchkey.dev/gen/go/latchkey/lease/v1"          // methods, as data
	_ "latchkey.dev/gen/go/latchkey/scheduling/v1"     // methods, as data
	_ "latchkey.dev/gen/go/latchkey/servicerequest/v1" // methods, as data

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
)

// methods is what every method of the suite asks for, by full name.
var methods = mustRead()

// askingMethods is those that ask for grants, by name.
var askingMethods = slices.DeleteFunc(slices.Sorted(maps.Keys(methods)), func(name string) bool {
	return methods[name].Asks().Empty()
})

// mustRead panics if a rule is wrong: then no server of the suite starts.
func mustRead() map[string]*authz.Requirement {
	all, err := authz.Requirements()
	if err != nil {
		panic("permissions: " + err.Error())
	}
	return all
}

func findMethod(name string) (*authz.Requirement, error) {
	m := methods[name]
	if m == nil {
		return nil, fault.Invalid("method", "must be the full name of a method of the suite, as latchkey.permissions.v1.AccessService/Check, and %q is none", name)
	}
	return m, nil
}

var ruleKinds = map[authz.RuleKind]pb.RuleKind{
	authz.RuleAll:       pb.RuleKind_RULE_KIND_ALL,
	authz.RuleAny:       pb.RuleKind_RULE_KIND_ANY,
	authz.RuleByContent: pb.RuleKind_RULE_KIND_BY_CONTENT,
	authz.RuleSignedIn:  pb.RuleKind_RULE_KIND_SIGNED_IN,
	authz.RuleInternal:  pb.RuleKind_RULE_KIND_INTERNAL,
	authz.RuleAnyone:    pb.RuleKind_RULE_KIND_ANYONE,
}

// explainMethod says what a method asks for, and what of it the user lacks.
func (v *verdict) explainMethod(m *authz.Requirement) *pb.MethodExplanation {
	e := &pb.MethodExplanation{Method: m.Method, Rule: ruleKinds[m.Kind], Needs: v.needs(m.Grants)}
	for _, c := range m.Content {
		e.Content = append(e.Content, &pb.ContentNeed{Field: c.Field, Value: c.Value, Needs: v.needs(c.Grants)})
	}
	return e
}

func (v *verdict) needs(grants []catalog.Bit) (needs []*pb.GrantNeed) {
	for _, b := range grants {
		n := &pb.GrantNeed{Grant: b.String(), Held: v.set.Has(b)}
		if !n.Held {
			n.Missing = v.explainGrant(b).missing
		}
		needs = append(needs, n)
	}
	return needs
}
