package permissions

import (
	"context"
	"iter"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
)

// granter is who edits somebody's access.
type granter struct {
	id      string
	actor   string      // who acts in his name; empty but under impersonation
	carries catalog.Set // what his session carries
	limited bool        // his session carries fewer keys than he may hold
}

func granterOf(ctx context.Context) granter {
	caller := authz.Caller(ctx)
	return granter{id: caller.ID, actor: caller.Actor, carries: caller.Grants, limited: caller.Limited}
}

// delegation returns what a granter may do to others' access.
//
// SECURITY: what he holds is read in the transaction of the edit, so that no edit
// rests on what was taken from him before it. So is what somebody holds who acts in his name,
// and who hands out only what both hold.
func (l *loader) delegation(g granter) *delegation {
	if g.actor != "" {
		actor := l.access(l.user(g.actor))
		g.carries = g.carries.Without(g.carries.OnlyKeys().Without(actor.keys(l.now, actor.plan)))
		g.limited = true
	}
	return newDelegation(g, l.access(l.user(g.id)), l.now, l.authors())
}

// authors returns a function that returns the access of whoever put a deny.
func (l *loader) authors() func(user string) *access {
	authors := map[string]*access{}
	return func(user string) *access {
		if authors[user] == nil {
			authors[user] = l.access(l.user(user))
		}
		return authors[user]
	}
}

// editing is what an edit of a user's access works on.
type editing struct {
	*loader
	user *pb.UserAccess // to be changed
	by   *delegation
}

// editUser edits one user's access, in the order in which every such edit goes: is the
// etag the current one, does the edit itself go, may the granter make it, does one of
// the active members stay an owner.
func (l *loader) editUser(g granter, user, etag string, active map[string]bool, f func(*editing) error) (*pb.UserAccess, error) {
	e := &editing{loader: l, user: l.user(user), by: l.delegation(g)}
	if err := accesses.Match(e.user, etag); err != nil {
		return nil, err
	}
	before := l.access(e.user)
	if err := f(e); err != nil {
		return nil, err
	}
	after := l.access(e.user)
	if err := l.notHeld(before.role, after.role); err != nil {
		return nil, err
	}
	if err := e.by.check(edit{user, before, after}); err != nil {
		return nil, err
	}
	if before.owns(l.now) && !after.owns(l.now) {
		if err := l.keepOwner(active, user); err != nil {
			return nil, err
		}
	}
	return e.user, accesses.Put(l.tx, e.user)
}

// maxHolders bounds the users whom an edit of a role or a group may reach: for about
// half a second nobody else in any organization can write.
const maxHolders = 100_000

// editShared checks an edit of a role or of a group for every user whom it reaches.
// After is l with the edit.
func (l *loader) editShared(by *delegation, after *loader, active map[string]bool, reach ...iter.Seq[*pb.UserAccess]) error {
	reached, stripped := 0, false
	for _, users := range reach {
		for u := range users {
			if reached++; reached > maxHolders {
				return fault.Limit("users whom one edit reaches", 0)
			}
			e := edit{u.GetId(), l.access(u), after.access(u)}
			if err := by.check(e); err != nil {
				return err
			}
			stripped = stripped || e.before.owns(l.now) && !e.after.owns(l.now)
		}
	}
	if stripped {
		return after.keepOwner(active, "")
	}
	return nil
}
