package store

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// place says of one record where it belongs.
type place struct{ id, organization, person, parentID, joins string }

// where decodes a record and returns where it belongs.
func (c *Collection[T]) where(value []byte) (p place, err error) {
	v := c.typ.New().Interface().(T)
	if err := proto.Unmarshal(value, v); err != nil {
		return p, fmt.Errorf("decode %s: %w", c.name, err)
	}
	of := func(f func(T) string) string {
		if f == nil {
			return ""
		}
		return f(v)
	}
	b := &c.belongs
	return place{c.id(v), of(b.organization), of(b.person), of(b.parentID), of(b.joins)}, nil
}

// The order in which records are selected: each pass needs those before it.
const (
	ofOrganization = iota
	ofPerson
	ofRecord
	passes
)

func (c *Collection[T]) pass() int {
	switch b := &c.belongs; {
	case b.organization != nil:
		return ofOrganization
	case b.person != nil:
		return ofPerson
	}
	return ofRecord
}

func (c *Collection[T]) parent() string { return c.belongs.parent }
func (c *Collection[T]) kind() Kind     { return c.belongs.only }
func (c *Collection[T]) stay() bool     { return c.belongs.stays != "" }
func (c *Collection[T]) root() bool     { return c.belongs.shut != nil }

// opened returns the record with its secret as it is before it is sealed.
func (c *Collection[T]) opened(value []byte, open func(name string, sealed []byte) ([]byte, error)) ([]byte, error) {
	if c.belongs.sealed == nil {
		return value, nil
	}
	v := c.typ.New().Interface().(T)
	if err := proto.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("decode %s: %w", c.name, err)
	}
	field, name := c.belongs.sealed(v)
	secret, err := open(name, *field)
	if err != nil {
		return nil, fmt.Errorf("open the secret of %s %q: %w", c.name, c.id(v), err)
	}
	*field = secret
	return encode(v)
}

// Leaving says which records of a shared tenant to select.
type Leaving struct {
	Organization string
	Kinds        map[Kind]bool
	// Open opens a secret that was sealed under a name.
	Open func(name string, sealed []byte) ([]byte, error)
}

// Selected are the records of a shared tenant that belong to one organization.
type Selected struct {
	Revision int64 // of the tenant, of which the records are
	Records  []*storepb.BackupRecord
}

// HasOrganization reports whether there is an organization in the shared tenant.
func (s *Schema) HasOrganization(ctx context.Context, p Pages, organization string) (bool, error) {
	row, err := getRow(ctx, p, tenantRow(s.shared, spaceRecord, s.rootCollection().Name(), organization))
	return row != nil, err
}

// rootCollection returns that of the organizations themselves.
func (s *Schema) rootCollection() declared {
	for _, c := range s.collections {
		if c.root() {
			return c
		}
	}
	panic("store: no collection of the schema has said that its records are the organizations")
}

// maxSelections bounds how often records are read again that change meanwhile.
const maxSelections = 10

// Select returns what an organization has in the shared tenant, all of one revision.
// Others may write meanwhile: it reads again as long as they change what it selects.
func (s *Schema) Select(ctx context.Context, p Pages, l *Leaving) (*Selected, error) {
	for range maxSelections {
		revision, err := ReadHead(ctx, p, s.shared)
		if err != nil {
			return nil, err
		}
		sel := &selection{schema: s, pages: p, leaving: l, persons: map[string]bool{}, taken: map[Record]bool{}}
		if err := sel.read(ctx); err != nil {
			return nil, err
		}
		last, touched, err := sel.touched(ctx, revision)
		if err != nil {
			return nil, err
		}
		if !touched {
			return &Selected{last, sel.records}, nil
		}
	}
	return nil, errors.New("the organization changes faster than it is read: suspend it first")
}

// selection is the reading of a shared tenant.
type selection struct {
	schema  *Schema
	pages   Pages
	leaving *Leaving
	persons map[string]bool
	taken   map[Record]bool
	records []*storepb.BackupRecord
}

// read selects what belongs to the organization, then to its people, and then to other
// records.
func (s *selection) read(ctx context.Context) error {
	for pass := range passes {
		for _, c := range s.schema.collections {
			if !s.wanted(c) || c.pass() != pass {
				continue
			}
			lo := tenantRow(s.schema.shared, spaceRecord, c.Name())
			err := EachPage(ctx, s.pages, lo, after(lo), func(page []Pair) error {
				for _, row := range page {
					if err := s.take(c, row.Value); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *selection) wanted(c declared) bool {
	return !c.stay() && (c.kind() == "" || s.leaving.Kinds[c.kind()])
}

// has reports whether a record belongs to what was selected.
func (s *selection) has(c declared, p place) bool {
	switch {
	case p.organization != "":
		return p.organization == s.leaving.Organization
	case p.person != "":
		return s.persons[p.person]
	}
	return p.parentID != "" && s.taken[Record{s.schema.shared, c.parent(), p.parentID}]
}

func (s *selection) take(c declared, value []byte) error {
	p, err := c.where(value)
	if err != nil || !s.has(c, p) {
		return err
	}
	if value, err = c.opened(value, s.leaving.Open); err != nil {
		return err
	}
	if p.joins != "" {
		s.persons[p.joins] = true
	}
	s.taken[Record{s.schema.shared, c.Name(), p.id}] = true
	s.records = append(s.records, &storepb.BackupRecord{Collection: c.Name(), Id: p.id, Value: value, Person: p.person + p.joins})
	return nil
}

// touched returns the last revision, and whether an entry after another one changed
// something that belongs to the selection.
func (s *selection) touched(ctx context.Context, revision int64) (last int64, touched bool, err error) {
	for last = revision; ; {
		tail, err := ReadTail(ctx, s.pages, s.schema.shared, last, func(*storepb.JournalEntry) bool { return true })
		if f, ok := errors.AsType[*fault.Error](err); ok && f.Reason == faultpb.Reason_REASON_JOURNAL_COMPACTED {
			return last, true, nil
		}
		if err != nil || len(tail) == 0 {
			return last, false, err
		}
		for _, row := range tail {
			e, err := Entry(row)
			if err != nil {
				return last, false, err
			}
			for _, c := range e.GetChanges() {
				if touched, err := s.touchedBy(c); touched || err != nil {
					return last, touched, err
				}
			}
			last = e.GetRevision()
		}
	}
}

func (s *selection) touchedBy(change *storepb.Change) (bool, error) {
	c := s.schema.collection(change.GetCollection())
	if c == nil || !s.wanted(c) {
		return false, nil
	}
	if s.taken[Record{s.schema.shared, change.GetCollection(), change.GetId()}] {
		return true, nil
	}
	if change.NewValue == nil {
		return len(change.GetNewHash()) > 0, nil // erased: it may have been anybody's
	}
	p, err := c.where(change.GetNewValue())
	return err == nil && s.has(c, p), err
}

// collection returns the collection of a name, or nil.
func (s *Schema) collection(name string) declared {
	for _, c := range s.collections {
		if c.Name() == name {
			return c
		}
	}
	return nil
}
