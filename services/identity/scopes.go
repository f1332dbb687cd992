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
		scopes.Add(key.Bit())
	}
	if err := checkHeld(scopes, held, heldByCaller); err != nil {
		return scopes, err
	}
	for b := range scopes.All() {
		for need := range catalog.Needs(b).OnlyKeys().Without(scopes).All() {
			return scopes, fault.Invalid("scopes", "must name %s too, which %s requires", need, b)
		}
	}
	return scopes, nil
}

// heldByCaller is why the scopes of a key must be what the caller holds.
const heldByCaller = "you do not have the permission %s yourself: a key can have only what you have"

// checkHeld returns nil if scopes are among what is held. Why says what it means that one
// is not, with %s for its name.
func checkHeld(scopes, held catalog.Set, why string) error {
	for b := range scopes.Without(held).All() {
		return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_BEYOND_OWN_GRANTS, fmt.Sprintf(why, b),
			map[string]string{"grant": b.String()})
	}
	return nil
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
