package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// Arriving is an organization that arrives in a shared tenant from another installation.
type Arriving struct {
	Organization string
	// Checksum names the export that it comes in.
	Checksum []byte
	// Claim is the number of the claim of who brings it.
	Claim int64
	// Brand is the id or the name of what shall own it.
	Brand string
	// Renames are addresses for people who come along, by those that they had.
	Renames map[string]string
	// Seal seals a secret under a name.
	Seal func(name string, secret []byte) ([]byte, error)
	// Method is the method that the journal names.
	Method string
	// Without are kinds that do not come along.
	Without map[Kind]bool
	// Records are its own and those of its people.
	Records []*storepb.BackupRecord

	root   *storepb.BackupRecord
	people [][]*storepb.BackupRecord // of one person each
	rest   []*storepb.BackupRecord
	known  map[string]bool // people who were here before
	left   int64           // records of kinds that do not come along
}

// Admitted says who has come.
type Admitted struct{ Records, Known, New, Left int64 }

// admitBatch is how many records arrive in one transaction, beside those of its last person.
const admitBatch = 200

// Check says what of the records is not as it should be in an export.
func (a *Arriving) Check(s *Schema) error { return a.sort(s) }

// sort puts the records into the order in which they arrive.
//
// SECURITY: whoever wrote the export must not get by it into what is here. So each record
// must belong to the organization, to somebody who joins it, or to a record that does.
func (a *Arriving) sort(s *Schema) error {
	a.root, a.people, a.rest, a.known, a.left = nil, nil, nil, map[string]bool{}, 0
	groups := map[string]*group{}
	var order []*group
	own := map[[2]string]bool{}
	for _, r := range a.Records {
		own[[2]string{r.GetCollection(), r.GetId()}] = true
	}
	for _, r := range a.Records {
		c := s.collection(r.GetCollection())
		if c == nil || c.stay() {
			return notOwn(r, "is of a kind that does not come from another installation")
		}
		if c.kind() != "" && a.Without[c.kind()] {
			a.left++
			continue
		}
		p, err := c.where(r.GetValue())
		switch {
		case err != nil:
			return notOwn(r, err.Error())
		case p.id != r.GetId() || p.person+p.joins != r.GetPerson():
			return notOwn(r, "is not what it says")
		case c.pass() == ofOrganization && p.organization != a.Organization:
			return notOwn(r, "belongs to another organization")
		case c.pass() == ofRecord && !own[[2]string{c.parent(), p.parentID}]:
			return notOwn(r, "belongs to a record that is not in it")
		case c.root():
			a.root = r
		case r.GetPerson() == "":
			a.rest = append(a.rest, r)
		default:
			g := groups[r.GetPerson()]
			if g == nil {
				g = &group{first: r}
				groups[r.GetPerson()], order = g, append(order, g)
			}
			g.add(r, c.people(), p.joins != "")
		}
	}
	for _, g := range order {
		if g.person == nil || !g.joins {
			return notOwn(g.first, "is of somebody who does not come along")
		}
		a.people = append(a.people, append([]*storepb.BackupRecord{g.person}, g.records...))
	}
	if a.root == nil {
		return fault.Invalid("export", "has no record of the organization itself")
	}
	return nil
}

// group are the records of one person.
type group struct {
	first   *storepb.BackupRecord
	person  *storepb.BackupRecord
	joins   bool
	records []*storepb.BackupRecord // the others
}

func (g *group) add(r *storepb.BackupRecord, person, joins bool) {
	if g.joins = g.joins || joins; person {
		g.person = r
		return
	}
	g.records = append(g.records, r)
}

func notOwn(r *storepb.BackupRecord, why string) error {
	return fault.Invalid("export", "has a record, %s %q, that %s", r.GetCollection(), r.GetId(), why)
}

// batches yields what arrives together, after the organization itself.
func (a *Arriving) batches(yield func([]*storepb.BackupRecord) bool) {
	var batch []*storepb.BackupRecord
	for _, records := range a.people {
		if batch = append(batch, records...); len(batch) >= admitBatch {
			if !yield(batch) {
				return
			}
			batch = nil
		}
	}
	for _, r := range a.rest {
		if batch = append(batch, r); len(batch) >= admitBatch {
			if !yield(batch) {
				return
			}
			batch = nil
		}
	}
	if len(batch) > 0 {
		yield(batch)
	}
}

// origin is that of the transactions in which it arrives.
func (a *Arriving) origin(s *Schema) Origin {
	return Origin{Tenant: s.shared, Party: a.Organization, Method: a.Method}
}

// mostProblems bounds what is told of what stands against an arrival.
const mostProblems = 1000

// CheckArrival returns what stands against taking an organization in, one line each, and
// whether that was begun before with the same export. If nothing stands against it, it
// notes that it has begun.
func (db *DB) CheckArrival(ctx context.Context, a *Arriving) (problems []string, again bool, err error) {
	if err := a.sort(db.schema); err != nil {
		return nil, false, err
	}
	o := a.origin(db.schema)
	err = db.view(ctx, o, func(tx *Tx) error {
		noted, there := tx.arrival(a.Organization), tx.has(a.root)
		again = bytes.Equal(noted.GetChecksum(), a.Checksum)
		switch {
		case noted.GetClaim() != a.Claim:
			return errTakenOver
		case there && len(noted.GetChecksum()) == 0:
			problems = append(problems, "the organization is there already")
		case there && !again:
			problems = append(problems, "the import of another export of the organization was interrupted: repeat that one")
		}
		return nil
	})
	if err != nil || len(problems) > 0 {
		return problems, false, err
	}
	err = a.each(func(batch []*storepb.BackupRecord) error {
		var found []string
		err := db.read(ctx, o, true, func(tx *Tx) (err error) {
			found, err = a.takeIn(tx, batch)
			return err
		})
		problems = append(problems, found...)
		return err
	})
	if err != nil || len(problems) > 0 {
		return problems[:min(len(problems), mostProblems)], again, err
	}
	return nil, again, db.update(ctx, o, func(tx *Tx) error {
		noted := tx.arrival(a.Organization)
		if noted.GetClaim() != a.Claim {
			return errTakenOver
		}
		noted.Checksum = a.Checksum
		tx.save(tx.row(spaceArrival, a.Organization), noted)
		return nil
	})
}

// each calls f with the organization itself and then with each batch.
func (a *Arriving) each(f func([]*storepb.BackupRecord) error) error {
	err := f([]*storepb.BackupRecord{a.root})
	for batch := range a.batches {
		if err == nil {
			err = f(batch)
		}
	}
	return err
}

// arrival returns what was noted of the arrival of an organization.
func (tx *Tx) arrival(organization string) *storepb.Arrival {
	noted := &storepb.Arrival{}
	tx.load(tx.row(spaceArrival, organization), noted)
	return noted
}

// own wants the arrival to have begun, and to be the caller's.
func (a *Arriving) own(tx *Tx) (*storepb.Arrival, error) {
	noted := tx.arrival(a.Organization)
	switch {
	case !bytes.Equal(noted.GetChecksum(), a.Checksum):
		return nil, fault.Refused("the import of this export has not begun, or is done")
	case noted.GetClaim() != a.Claim:
		return nil, errTakenOver
	}
	return noted, nil
}

func (tx *Tx) has(r *storepb.BackupRecord) bool {
	return tx.get(tx.row(spaceRecord, r.GetCollection(), r.GetId())) != nil
}

// takeIn puts records here. It returns what stands against it, one line each.
func (a *Arriving) takeIn(tx *Tx, records []*storepb.BackupRecord) (problems []string, err error) {
	for _, r := range records {
		c := tx.db.schema.collection(r.GetCollection())
		if c.people() {
			a.known[r.GetPerson()] = tx.has(r)
		}
		if a.known[r.GetPerson()] && c.pass() == ofPerson {
			continue // SECURITY: who is here keeps what is his
		}
		shut := c.root()
		problem, err := c.takeIn(tx, r.GetValue(), a, shut)
		if err != nil {
			return problems, err
		}
		if problem != "" {
			problems = append(problems, problem)
		}
	}
	return problems, nil
}

// Admit takes an organization in for which CheckArrival has found nothing. It is shut
// until all of it is here. When it is, only the claim is noted of its arrival. It can be called
// again after it was interrupted.
func (db *DB) Admit(ctx context.Context, a *Arriving) (done Admitted, err error) {
	if err := a.sort(db.schema); err != nil {
		return done, err
	}
	o := a.origin(db.schema)
	err = a.each(func(batch []*storepb.BackupRecord) error {
		return db.update(ctx, o, func(tx *Tx) error {
			if _, err := a.own(tx); err != nil {
				return err
			}
			problems, err := a.takeIn(tx, batch)
			if err == nil && len(problems) > 0 {
				err = fault.Refused("%s", problems[0])
			}
			return err
		})
	})
	if err != nil {
		return done, err
	}
	done.Records, done.Left = int64(len(a.Records))-a.left, a.left
	for _, known := range a.known {
		if known {
			done.Known++
		} else {
			done.New++
		}
	}
	return done, db.update(ctx, o, func(tx *Tx) error {
		noted, err := a.own(tx)
		if err != nil {
			return err
		}
		if noted.Checksum = nil; noted.GetClaim() == 0 {
			tx.del(tx.row(spaceArrival, a.Organization))
		} else {
			tx.save(tx.row(spaceArrival, a.Organization), noted)
		}
		problem, err := db.schema.rootCollection().takeIn(tx, a.root.GetValue(), a, false)
		if err == nil && problem != "" {
			err = fault.Refused("%s", problem)
		}
		return err
	})
}

func (c *Collection[T]) people() bool { return c.belongs.people }

// takeIn puts a record here that was kept in another installation, with its own times. If
// something else is in its place it returns what, and puts nothing.
func (c *Collection[T]) takeIn(tx *Tx, value []byte, a *Arriving, shut bool) (problem string, err error) {
	v, ok := c.decode(tx, value)
	if !ok {
		return "", tx.err
	}
	id := c.id(v)
	stored := tx.get(tx.under(c.prefix, id))
	old, exists := c.decodeAny(tx, stored)
	if exists && !c.sameOwner(old, v) {
		return fmt.Sprintf("%s %q is there already, and is somebody else's", c.name, id), nil
	}
	if c.belongs.arrive != nil {
		if err := c.belongs.arrive(tx, v, a); err != nil {
			if f, ok := errors.AsType[*fault.Error](err); ok {
				return f.Error(), nil
			}
			return "", err
		}
	}
	if shut {
		c.belongs.shut(v)
	}
	if c.belongs.sealed != nil {
		field, name := c.belongs.sealed(v)
		if *field, err = a.Seal(name, *field); err != nil {
			return "", err
		}
	}
	if other, ix := c.taken(tx, id, v); ix != nil {
		return fmt.Sprintf("%s %q: %s %s belongs to %s %q here", c.name, id, ix.short, ix.text(v), c.name, other), nil
	}
	return "", c.putAsIs(tx, id, stored, old, exists, v)
}

// putAsIs writes a record as Put does, but that its times stay.
func (c *Collection[T]) putAsIs(tx *Tx, id string, stored []byte, old T, exists bool, v T) error {
	m := v.ProtoReflect()
	if c.fields.etag != nil {
		if exists {
			copyField(c.fields.etag, m, old.ProtoReflect())
			if b, err := c.fields.bytes(m); err == nil && bytes.Equal(b, stored) {
				return tx.err
			}
		}
		// Not that of the other installation, which may come again here.
		m.Set(c.fields.etag, protoreflect.ValueOfString(tx.etag()))
	}
	b, err := c.fields.bytes(m)
	if err != nil {
		return fmt.Errorf("encode %s %q: %w", c.name, id, err)
	}
	if err := c.reindex(tx, id, c.entries(tx, old, exists, id), c.entries(tx, v, true, id)); err != nil {
		return err
	}
	tx.put(tx.under(c.prefix, id), b)
	c.involve(tx, v)
	return tx.err
}

// sameOwner reports whether two records with one id belong to the same.
func (c *Collection[T]) sameOwner(a, b T) bool {
	return proto.Equal(a, b) || c.owner(a) == c.owner(b)
}

func (c *Collection[T]) owner(v T) string {
	switch b := &c.belongs; {
	case b.organization != nil:
		return b.organization(v)
	case b.person != nil:
		return b.person(v)
	default:
		return b.parentID(v)
	}
}

// taken returns who has a key of the record in a unique index, and which, or nil.
func (c *Collection[T]) taken(tx *Tx, id string, v T) (other string, taken *Index[T]) {
	for _, ix := range c.indexes {
		if !ix.unique {
			continue
		}
		for _, key := range ix.entries(tx, v, id) {
			if other := tx.get(key); other != nil && string(other) != id {
				return string(other), ix
			}
		}
	}
	return "", nil
}

// text tells a person what key a record has.
func (ix *Index[T]) text(v T) string {
	for _, key := range ix.keys(v) {
		return fmt.Sprintf("%v", key...)
	}
	return ""
}
