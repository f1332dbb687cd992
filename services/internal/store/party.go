package store

import (
	"maps"
	"slices"
)

// partyRows stands in history rows where others have the name of a collection. Their ids
// are the organizations that an entry belongs to.
const partyRows = ""

// Party declares which organization a record belongs to, where the tenant is not one:
// entries that change it are found by it. "" is none. It returns the collection.
func (c *Collection[T]) Party(of func(T) string) *Collection[T] {
	c.party = of
	return c
}

// involve notes to which organizations the entry of the transaction will belong.
func (c *Collection[T]) involve(tx *Tx, v T) {
	if c.party != nil {
		tx.Involve(c.party(v))
	}
}

// Involve notes that the entry of the transaction, if it will have one, belongs to an
// organization too. It does nothing for the tenant itself and for "".
func (tx *Tx) Involve(organization string) {
	tx.mustWrite()
	if organization == "" || organization == tx.Tenant() {
		return
	}
	if tx.parties == nil {
		tx.parties = map[string]bool{}
	}
	tx.parties[organization] = true
}

// partiesOf returns the organizations that the entry belongs to, in order: those of its
// records, and that of its caller.
func (tx *Tx) partiesOf() []string {
	tx.Involve(tx.origin.Party)
	return slices.Sorted(maps.Keys(tx.parties))
}

// partyRow is where an entry is found by an organization that it belongs to.
func partyRow(tenant, party string, revision int64) []byte {
	return tenantRow(tenant, spaceHistory, partyRows, party, revision)
}
