package permissions

import (
	"fmt"
	"slices"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// setOverride puts an override into a record in place of one of its key, in the
// order of the catalog.
func setOverride(u *pb.UserAccess, o *pb.Override) {
	clearOverride(u, o.GetKey())
	i, _ := slices.BinarySearchFunc(u.Overrides, o, func(a, b *pb.Override) int {
		return int(placeOf(a.GetKey())) - int(placeOf(b.GetKey()))
	})
	u.Overrides = slices.Insert(u.Overrides, i, o)
}

// clearOverride takes the override of a key out of a record.
func clearOverride(u *pb.UserAccess, key string) {
	u.Overrides = slices.DeleteFunc(u.Overrides, func(o *pb.Override) bool { return o.GetKey() == key })
}

// placeOf returns where a stored key stands; one that the catalog lacks comes first.
func placeOf(key string) catalog.Bit {
	b, _ := catalog.Grant(key)
	return b
}

// findKey looks up a key that a person typed.
func findKey(field, name string) (catalog.Key, error) {
	k, ok := catalog.Lookup(name)
	if !ok {
		return k, fault.Invalid(field, "must be a key of the catalog, and %q is none: CatalogService.ListCatalog lists them", name)
	}
	return k, nil
}

// findKeys looks up keys that a person typed. Order and repetition do not matter.
func findKeys(field string, names []string) (catalog.Set, error) {
	var set catalog.Set
	for i, name := range names {
		k, err := findKey(fmt.Sprintf("%s[%d]", field, i), name)
		if err != nil {
			return set, err
		}
		set.Add(k.Bit())
	}
	return set, nil
}
