package store

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Kind is what of an organization goes along with it only where that was asked for.
type Kind string

// The kinds. A record of none goes always.
const (
	// Credentials are what people prove with who they are, and that works anywhere.
	Credentials Kind = "credentials"
	// Passkeys prove it too, to the domain that they were made for.
	Passkeys Kind = "passkeys"
	// Keys are what programs prove with who they are.
	Keys Kind = "keys"
)

// belonging says what becomes of the records of a collection of a shared tenant when one
// organization is taken out of it: they belong to an organization, to a person, to another
// record, or they stay.
type belonging[T proto.Message] struct {
	organization func(T) string
	person       func(T) string
	parent       string
	parentID     func(T) string
	stays        string

	only   Kind
	joins  func(T) string
	sealed func(T) (secret *[]byte, name string)
	arrive func(*Tx, T, *Arriving) error
	shut   func(T)
	people bool // the records are the people themselves
}

// said reports whether the collection has said where its records belong.
func (b *belonging[T]) said() bool {
	return b.organization != nil || b.person != nil || b.parent != "" || b.stays != ""
}

func (c *Collection[T]) say(b belonging[T]) *Collection[T] {
	if c.belongs.said() {
		panic("store: collection " + c.name + " says twice where its records belong")
	}
	was := c.belongs
	b.only, b.joins, b.sealed, b.arrive, b.shut, b.people = was.only, was.joins, was.sealed, was.arrive, was.shut, was.people
	c.belongs = b
	return c
}

// OfOrganization declares that a record of a shared tenant goes with the organization that
// it belongs to; "" is none. It returns the collection, as all of these do.
func (c *Collection[T]) OfOrganization(of func(T) string) *Collection[T] {
	return c.say(belonging[T]{organization: of})
}

// OfParty declares that a record goes with its Party.
func (c *Collection[T]) OfParty() *Collection[T] { return c.OfOrganization(c.party) }

// OfPerson declares that a record goes with each organization that a person has joined.
func (c *Collection[T]) OfPerson(of func(T) string) *Collection[T] {
	return c.say(belonging[T]{person: of})
}

// OfRecord declares that a record goes with the one of another collection whose id it names.
func (c *Collection[T]) OfRecord(of declared, id func(T) string) *Collection[T] {
	return c.say(belonging[T]{parent: of.Name(), parentID: id})
}

// Stays declares that no record goes with an organization, and why.
func (c *Collection[T]) Stays(why string) *Collection[T] {
	return c.say(belonging[T]{stays: why})
}

// Only declares of which kind the records are.
func (c *Collection[T]) Only(kind Kind) *Collection[T] {
	c.belongs.only = kind
	return c
}

// Joins declares which person has joined the organization by a record.
func (c *Collection[T]) Joins(person func(T) string) *Collection[T] {
	c.belongs.joins = person
	return c
}

// Sealed declares which field of a record holds a secret that is sealed with the key of the
// installation, and under which name: it leaves open, and is sealed where it arrives.
func (c *Collection[T]) Sealed(field func(T) (secret *[]byte, name string)) *Collection[T] {
	c.belongs.sealed = field
	return c
}

// Arrives declares what is to be done with a record that arrives from another installation,
// in the transaction that puts it here.
func (c *Collection[T]) Arrives(f func(*Tx, T, *Arriving) error) *Collection[T] {
	c.belongs.arrive = f
	return c
}

// Organizations declares that the records are the organizations themselves, and how one is
// made that nobody may enter yet.
func (c *Collection[T]) Organizations(shut func(T)) *Collection[T] {
	c.belongs.shut = shut
	return c
}

// People declares that the records are the people themselves, each under the person's id.
func (c *Collection[T]) People() *Collection[T] {
	c.belongs.people = true
	return c
}

// PerOrganization declares that each tenant is an organization, so that all of it goes with
// that. It returns the schema.
func (s *Schema) PerOrganization() *Schema {
	s.perOrganization = true
	return s
}

// Shares declares that all records are of one tenant, which organizations share. Each
// collection must have said where its records belong. It returns the schema.
func (s *Schema) Shares(tenant string) *Schema {
	for _, c := range s.collections {
		if !c.said() {
			panic(fmt.Sprintf("store: collection %s has not said what becomes of its records when an organization is exported: OfOrganization, OfParty, OfPerson, OfRecord or Stays", c.Name()))
		}
	}
	s.shared = tenant
	return s
}

// Tenancy returns the tenant that organizations share, "" if each tenant is one. False
// means that the schema has not said.
func (s *Schema) Tenancy() (shared string, ok bool) {
	return s.shared, s.shared != "" || s.perOrganization
}

func (c *Collection[T]) said() bool { return c.belongs.said() }
