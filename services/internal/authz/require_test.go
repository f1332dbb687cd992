package authz_test

import (
	"fmt"
	"testing"

	_ "latchkey.dev/gen/go/latchkey/identity/v1"
	_ "latchkey.dev/gen/go/latchkey/invoicing/v1"
	_ "latchkey.dev/gen/go/latchkey/permissions/v1"
	_ "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
)

func TestRequirementsAreTheRulesAsData(t *testing.T) {
	all, err := authz.Requirements()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"latchkey.permissions.v1.RoleService/GetRole":          "1 [Organizations: Roles Organization: Users] []",
		"latchkey.permissions.v1.AccessService/Check":          "3 [] [{user_id  [Organization: Users]}]",
		"latchkey.permissions.v1.GrantService/ResolveGrants":   "4 [] []",
		"latchkey.permissions.v1.AccessService/SetUserRole":    "0 [Organization: Users] []",
		"latchkey.invoicing.v1.PartService/LookupParts":        "4 [] []",
		"latchkey.identity.v1.BootstrapService/ClaimOwnership": "5 [] []",
	} {
		if r := all[name]; r != nil && want != "" {
			if got := fmt.Sprint(int(r.Kind), " ", r.Grants, " ", r.Content); got != want {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
		} else if want != "" {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestARequirementPermitsAsTheRuleDoes(t *testing.T) {
	all, err := authz.Requirements()
	if err != nil {
		t.Fatal(err)
	}
	var everything catalog.Set
	for _, k := range catalog.Keys() {
		everything.Add(k.Bit())
	}
	for _, s := range catalog.Settings() {
		if bit, ok := s.Grant(); ok {
			everything.Add(bit)
		}
	}
	for name, r := range all {
		if got, want := r.Permits(everything), r.Kind != authz.RuleInternal; got != want {
			t.Errorf("%s with everything: got %v, want %v", name, got, want)
		}
		if got, want := r.Permits(catalog.Set{}), r.Asks().Empty() && r.Kind != authz.RuleInternal; got != want {
			t.Errorf("%s with nothing: got %v, want %v", name, got, want)
		}
		for bit := range r.Asks().All() {
			var one catalog.Set
			one.Add(bit)
			if got, want := r.Permits(one), r.Kind != authz.RuleAll || r.Asks() == one; got != want {
				t.Errorf("%s with %s alone: got %v, want %v", name, bit, got, want)
			}
			rest := everything
			rest.Remove(bit)
			if got, want := r.Permits(rest), r.Kind != authz.RuleAll && r.Asks() != one; got != want {
				t.Errorf("%s without %s: got %v, want %v", name, bit, got, want)
			}
		}
	}
}
