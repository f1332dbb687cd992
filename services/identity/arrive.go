package identity

import (
	"crypto/rand"
	"fmt"
	"strings"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// What changes of the records of an organization that arrives from another installation.

// importing is why an organization is suspended that is not wholly here, and closed that of
// one which was.
const (
	importing = "It is being imported."
	wasClosed = "It was closed when it was exported."
)

// shut makes an organization one that nobody can enter.
func shut(o *pb.Organization) {
	o.State, o.SuspendReason = suspended, importing
}

// intoBrand gives an organization to a brand of this installation. One that had been closed
// comes as one that is suspended: else it would be erased at once.
func intoBrand(tx *store.Tx, o *pb.Organization, a *store.Arriving) error {
	b, err := brandNamed(tx, a.Brand)
	if err != nil {
		return err
	}
	o.BrandId = b.GetId()
	if o.GetDeleteTime() != nil {
		o.DeleteTime, o.PurgeTime = nil, nil
		o.State, o.SuspendReason = suspended, wasClosed
	}
	return nil
}

// brandNamed finds an open brand by its id or its name.
func brandNamed(tx *store.Tx, name string) (*pb.Brand, error) {
	var there []string
	var found []*pb.Brand
	for b := range brands.All(tx) {
		if b.GetDeleteTime() != nil {
			continue
		}
		if b.GetId() == name {
			return b, nil
		}
		if b.GetName() == name {
			found = append(found, b)
		}
		there = append(there, fmt.Sprintf("%s (%q)", b.GetId(), b.GetName()))
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fault.Invalid("brand", "must be an id, since %d brands are called %q", len(found), name)
	case len(there) == 0:
		return nil, fault.Refused("there is no brand: the suite has to be claimed first")
	}
	return nil, fault.Invalid("brand", "must be the id or the name of one that is here: %s", strings.Join(there, ", "))
}

// clientIntoBrand gives a client of an organization to the brand of that.
func clientIntoBrand(tx *store.Tx, c *pb.OauthClient, a *store.Arriving) error {
	b, err := brandNamed(tx, a.Brand)
	c.BrandId = b.GetId()
	return err
}

// renamed gives somebody who comes along the address that the operator wants.
func renamed(_ *store.Tx, p *pb.Profile, a *store.Arriving) error {
	text, ok := a.Renames[p.GetEmail()]
	if !ok {
		return nil
	}
	email, err := newEmail("renames", text)
	p.Email = email
	return err
}

// asKnown gives a member the address that the person has here.
func asKnown(tx *store.Tx, u *pb.User, _ *store.Arriving) error {
	if p, ok := profiles.Get(tx, u.GetId()); ok {
		u.Email = p.GetEmail()
	}
	return nil
}

// countKind counts the password of somebody who comes along, if another program has made
// its hash.
func countKind(tx *store.Tx, c *identitystorepb.Credential, _ *store.Arriving) error {
	if c.GetImportedKind() == "" {
		return nil
	}
	hash, err := parsePassword(c.GetPasswordHash())
	if err != nil {
		return fault.Invalid("password_hash", "%s", err)
	}
	c.ImportedKind, err = countImported(tx, hash.kind(), exampleOf(c.GetPasswordHash(), func(n int) []byte {
		b := make([]byte, n)
		rand.Read(b) // it never fails
		return b
	}))
	return err
}
