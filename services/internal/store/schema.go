package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// format is the version of the layout of keys and values. Data of a newer format is
// not opened; what reads an older one must know how to.
const format = 1

// Schema is the set of collections that a service keeps.
type Schema struct {
	collections []declared
	opened      atomic.Bool

	perOrganization bool
	shared          string // the tenant that organizations share
}

// declared is a Collection of any type.
type declared interface {
	Name() string
	attach(*Schema)
	traveller
	Has(tx *Tx, id string) bool
	declaredIndexes() []declaredIndex
	invariants() []string
	counted() []tally
	deleteSome(tx *Tx, most int) int
	verify(j *verifier, tx *Tx, record Pair) error
	verifyGone(j *verifier, tx *Tx, history Pair) error
}

// traveller is what a Collection of any type knows of records that leave a shared tenant
// and arrive in another.
type traveller interface {
	said() bool
	pass() int
	parent() string
	kind() Kind
	stay() bool
	root() bool
	people() bool
	where(value []byte) (place, error)
	opened(value []byte, open func(name string, sealed []byte) ([]byte, error)) ([]byte, error)
	takeIn(tx *Tx, value []byte, a *Arriving, shut bool) (problem string, err error)
}

// declaredIndex is an Index of any type.
type declaredIndex interface {
	describe() (name, fingerprint string)
	source(tx *Tx) (lo, hi []byte)
	build(tx *Tx, record Pair) error
	verify(j *verifier, tx *Tx, entry Pair) error
}

// NewSchema declares which collections, each a [Collection], a service keeps. Their
// indexes belong to it, also those declared later, up to the first Open.
func NewSchema(collections ...declared) *Schema {
	s := &Schema{collections: collections}
	names := map[string]bool{}
	for _, c := range collections {
		if names[c.Name()] {
			panic("store: collection " + c.Name() + " is in the schema twice")
		}
		names[c.Name()] = true
		c.attach(s)
	}
	return s
}

// Collections returns the names of the collections, in the order of their declaration.
func (s *Schema) Collections() (names []string) {
	for _, c := range s.collections {
		names = append(names, c.Name())
	}
	return names
}

// Schema returns what the DB keeps.
func (db *DB) Schema() *Schema { return db.schema }

func (c *Collection[T]) attach(s *Schema) {
	if c.schema != nil {
		panic("store: collection " + c.name + " is in two schemas")
	}
	c.schema = s
}

func (c *Collection[T]) declaredIndexes() []declaredIndex {
	var all []declaredIndex
	for _, ix := range c.indexes {
		all = append(all, indexBuilder[T]{ix})
	}
	return all
}

// prepare checks the format, and makes the indexes on disk those declared.
func (db *DB) prepare(ctx context.Context) error {
	db.schema.opened.Store(true)
	declared := map[string]declaredIndex{}
	want := &storepb.Schema{Format: format, Indexes: map[string]string{}}
	for _, c := range db.schema.collections {
		for _, ix := range c.declaredIndexes() {
			name, fingerprint := ix.describe()
			declared[name], want.Indexes[name] = ix, fingerprint
		}
	}
	found, err := db.readSchema(ctx, want)
	if err != nil {
		return fmt.Errorf("read schema: %w", err)
	}
	stale := staleIndexes(found, want)
	if len(stale) == 0 {
		return nil
	}
	// From here on until the end no program, whatever it declares, takes a stale
	// index for complete.
	for _, name := range stale {
		found.Indexes[name] = ""
	}
	if err := db.writeSchema(ctx, found); err != nil {
		return err
	}
	for _, name := range stale {
		if err := db.rebuild(ctx, name, declared[name]); err != nil {
			return fmt.Errorf("build index %s: %w", name, err)
		}
	}
	return db.writeSchema(ctx, want)
}

// staleIndexes returns the names of the indexes to build or to drop, in order.
func staleIndexes(found, want *storepb.Schema) []string {
	var stale []string
	for name, fingerprint := range want.GetIndexes() {
		if found.GetIndexes()[name] != fingerprint {
			stale = append(stale, name)
		}
	}
	for name := range found.GetIndexes() {
		if _, ok := want.GetIndexes()[name]; !ok {
			stale = append(stale, name)
		}
	}
	slices.Sort(stale)
	return stale
}

// readSchema returns what is on disk, and takes the secret of page tokens from there.
// An empty store gets the wanted schema and a new secret.
func (db *DB) readSchema(ctx context.Context, want *storepb.Schema) (*storepb.Schema, error) {
	found := &storepb.Schema{}
	var secret []byte
	err := db.engine.View(ctx, func(s Snapshot) (err error) {
		found, secret, err = loadSchema(s)
		return err
	})
	if err != nil {
		return nil, err
	}
	if secret == nil {
		if found, secret, err = db.createSchema(ctx, want); err != nil {
			return nil, err
		}
	}
	if found.GetFormat() > format {
		return nil, newer(found)
	}
	if found.Indexes == nil {
		found.Indexes = map[string]string{}
	}
	db.sealer, err = newSealer(secret)
	return found, err
}

func newer(found *storepb.Schema) error {
	return fmt.Errorf("data is of format %d, written by a newer version; this one knows format %d", found.GetFormat(), format)
}

// CheckSource returns an error if a store cannot be read row by row as this program does: nobody has
// kept anything in it yet, it was not restored whole, or it is of a newer version.
func CheckSource(ctx context.Context, p Pages) error {
	mark, err := getRow(ctx, p, unfinishedKey)
	if err != nil {
		return err
	}
	if mark != nil {
		return errUnfinished
	}
	row, err := getRow(ctx, p, schemaKey)
	if err != nil {
		return err
	}
	if row == nil {
		return errors.New("there is nothing in it, nor has a service ever opened it")
	}
	found := &storepb.Schema{}
	if err := proto.Unmarshal(row, found); err != nil {
		return fmt.Errorf("decode schema: %w", err)
	}
	if found.GetFormat() > format {
		return newer(found)
	}
	return nil
}

// errUnfinished reports what a Replay has left that did not come to its end.
var errUnfinished = errors.New("data was being restored or copied here, and that was interrupted: do it again")

func loadSchema(s Snapshot) (*storepb.Schema, []byte, error) {
	schema := &storepb.Schema{}
	mark, err := s.Get(unfinishedKey)
	if err != nil {
		return nil, nil, err
	}
	if mark != nil {
		return nil, nil, errUnfinished
	}
	row, err := s.Get(schemaKey)
	if err != nil {
		return nil, nil, err
	}
	if err := proto.Unmarshal(row, schema); err != nil {
		return nil, nil, err
	}
	secret, err := s.Get(secretKey)
	return schema, slices.Clone(secret), err
}

// createSchema writes both rows unless somebody else just did.
func (db *DB) createSchema(ctx context.Context, want *storepb.Schema) (found *storepb.Schema, secret []byte, err error) {
	err = db.engine.Update(ctx, func(s Snapshot) ([]Write, error) {
		found, secret, err = loadSchema(s)
		if err != nil || secret != nil {
			return nil, err
		}
		row, err := encode(want)
		if err != nil {
			return nil, err
		}
		found, secret = want, make([]byte, secretSize)
		if _, err := rand.Read(secret); err != nil {
			return nil, err
		}
		return []Write{{schemaKey, row}, {secretKey, secret}}, nil
	})
	return found, secret, err
}

func (db *DB) writeSchema(ctx context.Context, schema *storepb.Schema) error {
	row, err := encode(schema)
	if err != nil {
		return err
	}
	err = db.engine.Update(ctx, func(Snapshot) ([]Write, error) {
		return []Write{{schemaKey, row}}, nil
	})
	if err != nil {
		return fmt.Errorf("write schema: %w", err)
	}
	return nil
}
