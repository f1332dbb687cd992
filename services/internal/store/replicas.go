package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// ErrTakenOff reports that a transaction did not commit, because the replica that it was
// fenced with is not on the list. [DB.Update] makes it an error that callers may see.
var ErrTakenOff = errors.New("this replica is not on the list")

// maxReplicas bounds the list.
const maxReplicas = 1000

// Replica is one life of one process that shares the store with others.
type Replica struct {
	ID      string // never used again
	Address string // where the others reach it
	Beats   uint64 // grows while it is alive
}

// Replicas are the processes that share the store, as they are on the list.
type Replicas struct {
	// Number grows by one with each change of the list. That of the first list is 1.
	Number uint64
	List   []Replica
	// Claims are the ids of those who do a piece of background work, by its name. Some may
	// be on the list no more.
	Claims map[string]string
}

// Has reports whether a replica is on the list.
func (r *Replicas) Has(id string) bool {
	return slices.ContainsFunc(r.List, func(other Replica) bool { return other.ID == id })
}

// Shared reports whether other processes can have the same store.
func (db *DB) Shared() bool {
	_, ok := db.engine.(Shared)
	return ok
}

// Enter puts a replica on the list, in the place of one with the same address: that
// is a former life of the same process.
func (db *DB) Enter(ctx context.Context, r Replica) (now Replicas, err error) {
	err = db.changeReplicas(ctx, func(list *storepb.ReplicaList) (gone []string, come []Write, err error) {
		for _, former := range list.GetReplicas() {
			if former.GetAddress() == r.Address {
				gone = append(gone, former.GetId())
			}
		}
		if len(list.GetReplicas()) >= maxReplicas+len(gone) {
			return nil, nil, fmt.Errorf("there are %d replicas already", maxReplicas)
		}
		list.Replicas = append(list.Replicas, &storepb.Replica{Id: r.ID, Address: r.Address})
		beat, err := encode(&storepb.ReplicaBeat{Count: 1})
		return gone, []Write{{beatKey(r.ID), beat}, {fenceKey(r.ID), present}}, err
	}, &now)
	return now, err
}

// Listed returns who is on the list.
func (db *DB) Listed(ctx context.Context) (now Replicas, err error) {
	err = db.engine.View(ctx, func(s Snapshot) error {
		list, err := readList(s)
		now = listOf(list)
		return err
	})
	return now, err
}

// Remove takes a replica off the list, if it is on it. When it returns, no transaction
// that is fenced with the replica commits any more.
func (db *DB) Remove(ctx context.Context, id string) (now Replicas, err error) {
	err = db.changeReplicas(ctx, func(*storepb.ReplicaList) ([]string, []Write, error) { return []string{id}, nil, nil }, &now)
	return now, err
}

// changeReplicas changes the list, and tells what it then is. Its change returns who is to
// be taken off, and what else is to be written.
func (db *DB) changeReplicas(ctx context.Context, change func(*storepb.ReplicaList) (gone []string, come []Write, err error), now *Replicas) error {
	return db.system(ctx, func(s Snapshot) ([]Write, error) {
		list, err := readList(s)
		if err != nil {
			return nil, err
		}
		before := proto.CloneOf(list)
		gone, writes, err := change(list)
		if err != nil {
			return nil, err
		}
		list.Replicas = slices.DeleteFunc(list.GetReplicas(), func(r *storepb.Replica) bool { return slices.Contains(gone, r.GetId()) })
		*now = listOf(list)
		if proto.Equal(list, before) {
			return nil, nil
		}
		list.Number++
		now.Number++
		for _, id := range gone {
			writes = append(writes, Write{beatKey(id), nil}, Write{fenceKey(id), nil})
		}
		row, err := encode(list)
		return append(writes, Write{listKey, row}), err
	})
}

// Beat shows that a replica is alive, and returns who else is. It fails with
// ErrTakenOff if the replica is not on the list.
func (db *DB) Beat(ctx context.Context, id string) (now Replicas, err error) {
	err = db.system(ctx, func(s Snapshot) ([]Write, error) {
		list, err := readList(s)
		if err != nil {
			return nil, err
		}
		now = listOf(list)
		if !now.Has(id) {
			return nil, ErrTakenOff
		}
		if err := now.readBeats(s); err != nil {
			return nil, err
		}
		if now.Claims, err = readClaims(s); err != nil {
			return nil, err
		}
		i := slices.IndexFunc(now.List, func(r Replica) bool { return r.ID == id })
		row, err := encode(&storepb.ReplicaBeat{Count: now.List[i].Beats + 1})
		return []Write{{beatKey(id), row}}, err
	})
	return now, err
}

// Claim makes a replica the one that does a piece of background work, if nobody on
// the list does it, and reports whether it is that one. It fails with ErrTakenOff
// if the replica is not on the list.
func (db *DB) Claim(ctx context.Context, work, id string) (mine bool, err error) {
	err = db.system(ctx, func(s Snapshot) ([]Write, error) {
		list, err := readList(s)
		if err != nil {
			return nil, err
		}
		now := listOf(list)
		if !now.Has(id) {
			return nil, ErrTakenOff
		}
		claim := &storepb.ReplicaClaim{}
		if err := read(s, claimKey(work), claim); err != nil {
			return nil, err
		}
		if mine = claim.GetReplicaId() == id; mine || now.Has(claim.GetReplicaId()) {
			return nil, nil
		}
		mine = true
		row, err := encode(&storepb.ReplicaClaim{ReplicaId: id})
		return []Write{{claimKey(work), row}}, err
	})
	return mine && err == nil, err
}

// Fence has every Update from now on commit only while the replica is on the list. One
// that changes nothing returns only if the replica was on the list as it saw it.
func (db *DB) Fence(id string) { db.fence.Store(&id) }

// fenceOf is the key of a context's fence.
type fenceOf struct{}

// WithFence has the Updates in ctx commit only while the replica is on the list, instead
// of what [DB.Fence] says; an empty id is no fence.
func WithFence(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, fenceOf{}, id)
}

// fenced returns the replica that an Update in ctx is fenced with, or "".
func (db *DB) fenced(ctx context.Context) string {
	if id, ok := ctx.Value(fenceOf{}).(string); ok {
		return id
	}
	if id := db.fence.Load(); id != nil {
		return *id
	}
	return ""
}

// checkFence sees to it that the transaction commits only while its replica is on the
// list. Who writes nothing need only have seen it there.
func (tx *Tx) checkFence(writes bool) {
	id := tx.db.fenced(tx.ctx)
	if id == "" || tx.err != nil {
		return
	}
	if f, ok := tx.snap.(Fencer); ok && writes {
		f.Fence(fenceKey(id))
		return
	}
	on, err := tx.snap.Get(fenceKey(id))
	tx.fail("read", err)
	if on == nil {
		tx.fail("commit", ErrTakenOff)
	}
}

// takenOff makes ErrTakenOff what a caller may see.
func takenOff(err error) error {
	if !errors.Is(err, ErrTakenOff) {
		return err
	}
	return fmt.Errorf("%w: %w", fault.New(codes.Unavailable, faultpb.Reason_REASON_REPLICA_TAKEN_OFF,
		"this process is not one of the service's replicas at the moment: try again", nil), err)
}

// system runs an Update outside of all tenants.
func (db *DB) system(ctx context.Context, f func(Snapshot) ([]Write, error)) error {
	err := db.engine.Update(WithOrigin(ctx, Origin{}), f)
	if errors.Is(err, ErrUnknownOutcome) {
		db.fatal.Do(func() { db.cfg.Fatal(err) })
	}
	return err
}

func readList(s Snapshot) (*storepb.ReplicaList, error) {
	list := &storepb.ReplicaList{}
	return list, read(s, listKey, list)
}

// read decodes a row into m, and leaves m empty if there is none.
func read(s Snapshot, key []byte, m proto.Message) error {
	row, err := s.Get(key)
	if err != nil {
		return err
	}
	return proto.Unmarshal(row, m)
}

func listOf(list *storepb.ReplicaList) Replicas {
	now := Replicas{Number: list.GetNumber()}
	for _, r := range list.GetReplicas() {
		now.List = append(now.List, Replica{ID: r.GetId(), Address: r.GetAddress()})
	}
	return now
}

func (r *Replicas) readBeats(s Snapshot) error {
	keys := make([][]byte, len(r.List))
	for i, replica := range r.List {
		keys[i] = beatKey(replica.ID)
	}
	if remote, ok := s.(Remote); ok {
		if err := remote.Fetch(keys); err != nil {
			return err
		}
	}
	for i, key := range keys {
		beat := &storepb.ReplicaBeat{}
		if err := read(s, key, beat); err != nil {
			return err
		}
		r.List[i].Beats = beat.GetCount()
	}
	return nil
}

func readClaims(s Snapshot) (map[string]string, error) {
	claims := map[string]string{}
	for p, err := range s.Scan(claimPrefix, after(claimPrefix), false) {
		if err != nil {
			return nil, err
		}
		work, _, ok := cutString(p.Key[len(claimPrefix):])
		claim := &storepb.ReplicaClaim{}
		if err := proto.Unmarshal(p.Value, claim); err != nil || !ok {
			return nil, fmt.Errorf("row %x is malformed", p.Key)
		}
		claims[work] = claim.GetReplicaId()
	}
	return claims, nil
}

func beatKey(id string) []byte   { return appendString(bytes.Clone(beatPrefix), id) }
func fenceKey(id string) []byte  { return appendString(bytes.Clone(fencePrefix), id) }
func claimKey(job string) []byte { return appendString(bytes.Clone(claimPrefix), job) }
