package identity

import (
	"fmt"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
)

// checkScopes returns the scopes of a new key, whose maker holds these grants.
func checkScopes(names []string, held catalog.Set) (catalog.Set, error) {
	var scopes catalog.Set
	for _, name := range names {
		key, ok := catalog.Lookup(name)
		if !ok || key.Name != name {
			return scopes, fault.Invalid("scopes", "must be keys of the catalog, and %q is none: CatalogService.ListCatalog lists them", name)
		}
		if !held.Has(key.Bit()) {
			return scopes, fault.New(codes.PermissionDenied, faultpb.Reason_REASON_BEYOND_OWN_GRANTS,
				fmt.Sprintf("you do not have the permission %s yourself: a key can have only what you have", name),
				map[string]string{"grant": name})
		}
		scopes.Add(key.Bit())
	}
	for b := range scopes.All() {
		for need := range catalog.Needs(b).OnlyKeys().Without(scopes).All() {
			return scopes, fault.Invalid("scopes", "must name %s too, which %s requires", need, b)
		}
	}
	return scopes, nil
}

// scopesOf reads the scopes of a kept key. A name that is none any more gives nothing.
func scopesOf(names []string) catalog.Set {
	var scopes catalog.Set
	for _, name := range names {
		if b, ok := catalog.Grant(name); ok {
			scopes.Add(b)
		}
	}
	return scopes.OnlyKeys()
}

func scopeNames(scopes catalog.Set) (names []string) {
	for b := range scopes.All() {
		names = append(names, b.String())
	}
	return names
}
