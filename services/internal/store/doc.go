// Package store keeps protobuf records in an ordered key-value engine.
//
// A service declares its collections and their indexes as package variables and
// uses them inside a transaction; it never sees an engine, a key or a byte.
//
//	var (
//		invoices = store.NewCollection("invoice", (*pb.Invoice).GetId)
//		byNumber = invoices.Unique("number", func(v *pb.Invoice) store.Key { return store.Key{v.GetNumber()} })
//		schema   = store.NewSchema(invoices)
//	)
//
//	func (s *Server) VoidInvoice(ctx context.Context, req *pb.VoidInvoiceRequest) (*pb.VoidInvoiceResponse, error) {
//		return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.VoidInvoiceResponse, error) {
//			inv, ok := invoices.Get(tx, req.GetId())
//			if !ok {
//				return nil, fault.NotFound("invoice", req.GetId())
//			}
//			inv.State = pb.State_STATE_VOID
//			tx.Emit(&pb.InvoiceVoided{Id: inv.GetId()})
//			return &pb.VoidInvoiceResponse{Invoice: inv}, invoices.Put(tx, inv)
//		})
//	}
//
// # What is always true
//
//   - A transaction belongs to one tenant, and cannot name a key of another. Only the
//     note of its call, which it does not see, may be another's.
//   - What a service has declared with [Collection.Always], [Collection.Refers] and [Counts] is true
//     of its records after every commit, and [DB.Verify] says where it is not.
//   - Transactions are serializable, and durable when they have returned. One that
//     failed has changed nothing.
//   - Reads return no errors. A transaction keeps its first engine error; from then
//     on it finds nothing and writes nothing, and that error is what the caller gets,
//     whatever the function returned.
//   - A function may run more than once, so nothing outside may happen in it.
//   - A transaction sees its own writes. A scan sees what was there when it began.
//   - What Get returned may be changed freely; only Put makes a difference.
//   - Each transaction that changes records or emits events has an entry in its
//     tenant's journal, with the next revision and the hash of the entry before.
//     Nothing else takes a revision.
//   - The note of a call is in the commit of the call's first change, under the note's
//     own tenant. Notes and uses are no records: they take no revision, are in no
//     journal, and go after KeepDays days.
//   - Each commit that takes a revision is told to every listener of [DB.Changed].
//   - Where several processes share a store, each that takes part is on one list
//     ([DB.Enter]), and has a fence: a row that is there while it is. A transaction that is
//     fenced commits only while that row is there, and who deletes it waits for those that
//     commit. So nothing is written any more in the name of a replica that was
//     taken off, however long it was frozen.
//
// # What is on disk
//
// A key is a tenant, a byte that names the space, and the parts below, encoded
// as a [Key] is. Messages are those of latchkey.store.v1.
//
//	space            parts                                value
//	a  answer        day, caller, method, request id      Answer
//	b  base          none                                 Base
//	c  head          none                                 Head
//	e  event         revision, index                      EventRow
//	h  history       collection, id, revision             empty, or the hash of the record
//	                                                      whose entry is gone
//	h  party         "", organization, revision           empty
//	i  index         "collection/index", the key, id      empty
//	i  unique index  "collection/index", the key          id
//	j  journal       revision                             JournalEntry
//	n  note          time, id                             what the note says
//	p  position      source                               Position
//	r  record        collection, id                       the record
//	u  use           day, user, grant                     Use
//	v  arrival       organization                         Arrival; while it is imported, and its claim after
//
// Outside of all tenants, after the byte 0x01:
//
//	b  beat          replica                              ReplicaBeat
//	c  claim         name of the work                     ReplicaClaim
//	f  fence         replica                              empty
//	g  signer        none                                 32 random bytes, an Ed25519 seed
//	i  id             none                                 16 random bytes, of no other store
//	k  secret        none                                 64 random bytes, for page tokens
//	l  replicas      none                                 ReplicaList
//	m  counted        file                                 Counted
//	s  schema        none                                 Schema
//	t  tenant        tenant                               empty
//	u  unfinished    none                                 empty; only while a backup is restored
//
// A part is a tag byte and: for a string its bytes, with each 0x00 followed by 0xff,
// and 0x00 0x01; for an integer 8 bytes, big endian, with the sign turned round; for
// a time its seconds as such 8 bytes, and 4 of nanoseconds; for a bool nothing. In a
// descending part every bit is turned round.
package store
