package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// commit completes the transaction's writes and returns them in the order of
// their keys. What it writes itself:
//
//   - if records changed or events were emitted: the journal's entry and new head,
//     a history row for each change and each party, a row for each event;
//   - in the first transaction of a tenant: its row in the registry;
//   - in the first of an origin with a note: the note;
//   - in one that writes what a process counted: how far it has come.
//
// If it is fenced, it fails if the replica is not on the list.
func (tx *Tx) commit() []Write {
	tx.fetchWritten()
	changes := tx.recordChanges()
	if len(changes)+len(tx.events) > 0 {
		tx.appendEntry(changes)
	}
	writes := tx.effects()
	if len(writes) > 0 {
		writes = tx.carry(tx.register(writes))
		for _, w := range tx.beside {
			writes = insert(writes, w)
		}
	}
	tx.checkFence(len(writes) > 0)
	if tx.err != nil {
		return nil
	}
	return writes
}

// recordChanges returns what happened to records, in the order of their keys.
func (tx *Tx) recordChanges() []*storepb.Change {
	var changes []*storepb.Change
	lo, hi := tx.rows(spaceRecord)
	own := tx.overlay.root.walk(lo, hi, false)
	for w := own.next(); w != nil; w = own.next() {
		old, err := tx.snap.Get(w.key)
		tx.fail("read", err)
		if old == nil && w.value == nil {
			continue // created and deleted again
		}
		collection, rest, _ := cutString(w.key[len(lo):])
		id, _, _ := cutString(rest)
		c := &storepb.Change{
			Collection: collection, Id: id,
			OldHash: sum(old), NewHash: sum(w.value),
			OldValue: old, NewValue: w.value,
		}
		if tx.erased[string(w.key)] {
			c.OldValue, c.NewValue = nil, nil
		}
		changes = append(changes, c)
	}
	return changes
}

// sum returns the SHA-256 of the bytes, or nil if they are nil.
func sum(b []byte) []byte {
	if b == nil {
		return nil
	}
	h := sha256.Sum256(b)
	return h[:]
}

// appendEntry writes the journal's entry for the changes and the events.
func (tx *Tx) appendEntry(changes []*storepb.Change) {
	tx.entered = true
	head := tx.journalHead()
	e := &storepb.JournalEntry{
		Revision:     head.GetRevision() + 1,
		CommitTime:   timestamppb.New(tx.now),
		Caller:       tx.origin.Caller,
		Actor:        tx.origin.Actor,
		Method:       tx.origin.Method,
		RequestId:    tx.requestID,
		Changes:      changes,
		Positions:    tx.positions,
		Parties:      tx.partiesOf(),
		PreviousHash: head.GetHash(),
	}
	if tx.requestID != "" {
		e.RequestParty = tx.origin.Party
	}
	for i, ev := range tx.events {
		e.Events = append(e.Events, &storepb.Event{Type: ev.GetType(), Hash: ev.GetHash()})
		tx.save(tx.row(spaceEvent, e.GetRevision(), i), &storepb.EventRow{
			Type: ev.GetType(), Payload: ev.GetPayload(), CommitTime: e.GetCommitTime(), Caller: e.GetCaller(),
		})
	}
	for _, c := range changes {
		tx.put(tx.row(spaceHistory, c.GetCollection(), c.GetId(), e.GetRevision()), present)
	}
	for _, party := range e.GetParties() {
		tx.put(tx.row(spaceHistory, partyRows, party, e.GetRevision()), present)
	}
	e.Hash = entryHash(e)
	tx.save(tx.row(spaceJournal, e.GetRevision()), e)
	tx.save(tx.row(spaceHead), &storepb.Head{Revision: e.GetRevision(), Hash: e.GetHash()})
}

// effects returns the writes, without deletions of what does not exist.
func (tx *Tx) effects() []Write {
	var writes []Write
	own := tx.overlay.root.walk(tx.prefix, after(tx.prefix), false)
	for w := own.next(); w != nil; w = own.next() {
		if w.value == nil {
			old, err := tx.snap.Get(w.key)
			tx.fail("read", err)
			if old == nil {
				continue
			}
		}
		writes = append(writes, Write{w.key, w.value})
	}
	return writes
}

// register puts the tenant into the registry if it may not be there yet: with its
// first entry, and with what may come before it, answers and positions.
func (tx *Tx) register(writes []Write) []Write {
	if tx.journalHead().GetRevision() > 0 {
		return writes
	}
	return append([]Write{{registryKey(tx.Tenant()), present}}, writes...)
}

func registryKey(tenant string) []byte { return appendString(bytes.Clone(tenantPrefix), tenant) }

// Emit adds an event to the transaction's journal entry and to the tenant's feed.
func (tx *Tx) Emit(msg proto.Message) {
	tx.mustWrite()
	b, err := encode(msg)
	tx.fail("encode event", err)
	tx.events = append(tx.events, &storepb.Event{
		Type: string(msg.ProtoReflect().Descriptor().FullName()), Payload: b, Hash: sum(b),
	})
}

// entryHash returns the hash of all of the entry but its hash, its values and its
// events' payloads. It goes field by field, each with its length, and not over the
// wire format, which protobuf does not promise to keep.
func entryHash(e *storepb.JournalEntry) []byte {
	h := hasher{Hash: sha256.New()}
	h.int(e.GetRevision())
	h.int(e.GetCommitTime().GetSeconds())
	h.int(int64(e.GetCommitTime().GetNanos()))
	h.string(e.GetCaller())
	h.string(e.GetActor())
	h.string(e.GetMethod())
	h.string(e.GetRequestId())
	h.int(int64(len(e.GetChanges())))
	for _, c := range e.GetChanges() {
		h.string(c.GetCollection())
		h.string(c.GetId())
		h.bytes(c.GetOldHash())
		h.bytes(c.GetNewHash())
	}
	h.int(int64(len(e.GetEvents())))
	for _, ev := range e.GetEvents() {
		h.string(ev.GetType())
		h.bytes(ev.GetHash())
	}
	h.bytes(e.GetPreviousHash())
	for _, source := range slices.Sorted(maps.Keys(e.GetPositions())) {
		h.string(source)
		h.int(e.GetPositions()[source])
	}
	if parties := e.GetParties(); len(parties) > 0 {
		h.int(-1) // no length of a position's source
		for _, party := range parties {
			h.string(party)
		}
	}
	if party := e.GetRequestParty(); party != "" {
		h.int(-2) // no length of a party
		h.string(party)
	}
	return h.Sum(nil)
}

type hasher struct {
	hash.Hash
	buf []byte
}

func (h *hasher) int(i int64) {
	h.buf = binary.BigEndian.AppendUint64(h.buf[:0], uint64(i))
	h.Write(h.buf)
}

func (h *hasher) string(s string) {
	h.int(int64(len(s)))
	h.buf = append(h.buf[:0], s...)
	h.Write(h.buf)
}

func (h *hasher) bytes(b []byte) {
	h.int(int64(len(b)))
	h.Write(b)
}
