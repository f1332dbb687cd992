package store

// A key starts with the tenant as a string part, or with system outside of all
// tenants; then comes one of the space bytes, then parts. doc.go has the table.
const (
	system = 0x01 // below tagString, with which every tenant starts

	spaceAnswer   = 'a'
	spaceBase     = 'b'
	spaceHead     = 'c'
	spaceEvent    = 'e'
	spaceHistory  = 'h'
	spaceIndex    = 'i'
	spaceJournal  = 'j'
	spaceNote     = 'n'
	spacePosition = 'p'
	spaceRecord   = 'r'
	spaceUse      = 'u'
	spaceArrival  = 'v'

	systemBeat       = 'b'
	systemClaim      = 'c'
	systemFence      = 'f'
	systemSigner     = 'g'
	systemID         = 'i'
	systemSecret     = 'k'
	systemReplicas   = 'l'
	systemCounted    = 'm'
	systemSchema     = 's'
	systemTenant     = 't'
	systemUnfinished = 'u'
)

var (
	schemaKey    = []byte{system, systemSchema}
	secretKey    = []byte{system, systemSecret}
	listKey      = []byte{system, systemReplicas}
	signerKey    = []byte{system, systemSigner}
	idKey        = []byte{system, systemID}
	tenantPrefix = []byte{system, systemTenant}
	beatPrefix   = []byte{system, systemBeat}
	claimPrefix  = []byte{system, systemClaim}
	fencePrefix  = []byte{system, systemFence}
	countedRows  = []byte{system, systemCounted}

	unfinishedKey = []byte{system, systemUnfinished}
)

// present is the value of a row whose key says everything.
var present = []byte{}

// row returns the key of a row in a space of the transaction's tenant. The bytes
// are valid until the next call.
func (tx *Tx) row(space byte, parts ...any) []byte {
	b := append(append(tx.scratch[:0], tx.prefix...), space)
	tx.scratch = Key(parts).appendTo(b)
	return tx.scratch
}

// under is like row for a prefix that is encoded already, followed by an id.
func (tx *Tx) under(prefix []byte, id string) []byte {
	b := append(append(tx.scratch[:0], tx.prefix...), prefix...)
	tx.scratch = appendString(b, id)
	return tx.scratch
}

// rows returns the bounds of all rows of a space whose keys start with the parts.
func (tx *Tx) rows(space byte, parts ...any) (lo, hi []byte) {
	b := make([]byte, 0, len(tx.prefix)+64)
	lo = Key(parts).appendTo(append(append(b, tx.prefix...), space))
	return lo, after(lo)
}
