package identity

import (
	"context"
	"errors"
	"fmt"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/customfield"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// maxKinds is how many kinds of imported hashes there can be at a time: each makes a
// wrong password cost one more hash.
const maxKinds = 4

// newcomer is somebody to import.
type newcomer struct {
	profile *pb.Profile
	name    string       // that the organization knows him by
	hash    passwordHash // nil without a password
	text    string       // of the hash
	example string       // of its kind; empty if such are made here
	values  []*typepb.CustomValue
}

// ImportUsers implements pb.UserServiceServer.
//
// SECURITY: as of CreateUser, whether an address is known elsewhere in the suite changes
// neither the answer nor the work.
func (s *service) ImportUsers(ctx context.Context, req *pb.ImportUsersRequest) (*pb.ImportUsersResponse, error) {
	people, err := s.newcomers(req.GetUsers())
	if err != nil {
		return nil, err
	}
	organization := authz.Caller(ctx).Organization
	for i := range people {
		if err := s.admitNewcomer(ctx, &people[i], organization, req.GetValidateOnly()); err != nil {
			return nil, err
		}
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.ImportUsersResponse, error) {
		if err := checkNewcomers(tx, organization, people); err != nil {
			return nil, err
		}
		resp := &pb.ImportUsersResponse{}
		for i := range people {
			u, added, err := people[i].join(tx, organization)
			if err != nil {
				return nil, err
			}
			if added {
				resp.Added++
			}
			resp.Users = append(resp.Users, shown(ctx, u))
		}
		return resp, nil
	})
}

// newcomers reads whom a request names, and says what is wrong with each.
func (s *service) newcomers(users []*pb.ImportedUser) (people []newcomer, err error) {
	var wrong []fault.Violation
	first := map[string]int{}
	for i, u := range users {
		at := fmt.Sprintf("users[%d].", i)
		email, err := newEmail(at+"email", u.GetEmail())
		if bad, ok := errors.AsType[*fault.Error](err); ok {
			wrong = append(wrong, bad.Violations...)
		} else if before, twice := first[email]; twice {
			wrong = append(wrong, fault.Violation{Field: at + "email", Expected: fmt.Sprintf("must be there once, and is that of users[%d]", before)})
		}
		first[email] = i
		p := newcomer{
			profile: &pb.Profile{Id: s.newPersonID(), Email: email, DisplayName: u.GetDisplayName()},
			name:    u.GetDisplayName(), text: u.GetPasswordHash(), values: u.GetCustomValues(),
		}
		if p.text != "" {
			if p.hash, err = parsePassword(p.text); err != nil {
				wrong = append(wrong, fault.Violation{Field: at + "password_hash", Expected: err.Error()})
			} else if p.hash.kind() != s.hasher.params.kind() {
				p.example = exampleOf(p.text, s.hasher.bytes)
			}
		}
		people = append(people, p)
	}
	if len(wrong) > 0 {
		return nil, fault.InvalidAll(wrong...)
	}
	return people, nil
}

// admitNewcomer checks that the caller may admit somebody, and has permissions forget what
// a former member could do. Of a person who is known it takes the profile.
func (s *service) admitNewcomer(ctx context.Context, p *newcomer, organization string, validateOnly bool) error {
	known, err := read(ctx, s, func(tx *store.Tx) (*pb.Profile, error) { return personOr(tx, p.profile), nil })
	if err != nil {
		return err
	}
	if p.profile.GetId() != known.GetId() {
		p.profile, p.hash = known, nil
	}
	if err := s.checkWithin(ctx, known.GetId()); err != nil {
		return err
	}
	return s.forgetFormer(ctx, organization, known.GetId(), validateOnly)
}

// checkNewcomers says which custom values will not do, of those who are no members yet.
func checkNewcomers(tx *store.Tx, organization string, people []newcomer) error {
	fields := fieldsOf(tx, organization, ofUser)
	var wrong []fault.Violation
	for i, p := range people {
		if _, err := member(tx, organization, p.profile.GetId()); err == nil {
			continue
		}
		err := customfield.Check(fmt.Sprintf("users[%d].custom_values", i), fields, nil, p.values)
		if bad, ok := errors.AsType[*fault.Error](err); ok {
			wrong = append(wrong, bad.Violations...)
		}
	}
	if len(wrong) > 0 {
		return fault.InvalidAll(wrong...)
	}
	return nil
}

// join makes somebody a member, unless he is one, and keeps who is new.
func (p *newcomer) join(tx *store.Tx, organization string) (u *pb.User, added bool, err error) {
	if personOr(tx, p.profile).GetId() != p.profile.GetId() {
		return nil, false, fault.RaceLost("user", p.profile.GetEmail())
	}
	if u, err := member(tx, organization, p.profile.GetId()); err == nil {
		return u, false, nil
	}
	if !profiles.Has(tx, p.profile.GetId()) {
		c, err := p.credential(tx)
		if err != nil {
			return nil, false, err
		}
		if err := putPerson(tx, p.profile, c); err != nil {
			return nil, false, err
		}
	}
	u, err = addMember(tx, organization, p.profile, p.name, p.values)
	return u, true, err
}

// credential returns what proves somebody new, and counts its kind.
func (p *newcomer) credential(tx *store.Tx) (*identitystorepb.Credential, error) {
	if p.hash == nil {
		return nil, nil
	}
	if p.example == "" {
		return &identitystorepb.Credential{PasswordHash: p.text}, nil
	}
	kind, err := countImported(tx, p.hash.kind(), p.example)
	return &identitystorepb.Credential{PasswordHash: p.text, ImportedKind: kind}, err
}

// countImported notes that one hash more of a kind is there, and returns the kind's id.
func countImported(tx *store.Tx, id, example string) (string, error) {
	kind, ok := importedKinds.Get(tx, id)
	if !ok {
		n := 0
		for range importedKinds.All(tx) {
			n++
		}
		if n >= maxKinds {
			return "", fault.Refused("there are %d kinds of imported hashes, and more would make every sign-in too slow: "+
				"have their people sign in first, or import without hashes", n)
		}
		kind = &identitystorepb.ImportedKind{Id: id, Example: example}
	}
	kind.Count++
	return id, importedKinds.Put(tx, kind)
}

// forgetImported notes that one imported hash less is there, if a credential has one.
func forgetImported(tx *store.Tx, c *identitystorepb.Credential) error {
	kind, ok := importedKinds.Get(tx, c.GetImportedKind())
	c.ImportedKind = ""
	if !ok {
		return nil
	}
	if kind.Count--; kind.GetCount() <= 0 {
		importedKinds.Delete(tx, kind.GetId())
		return nil
	}
	return importedKinds.Put(tx, kind)
}

// otherKinds returns a hash of each imported kind that is there, none of which belongs to
// a password.
func otherKinds(tx *store.Tx) (kinds []passwordHash) {
	for kind := range importedKinds.All(tx) {
		if h, err := parsePassword(kind.GetExample()); err == nil {
			kinds = append(kinds, h)
		}
	}
	return kinds
}
