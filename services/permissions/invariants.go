package permissions

import (
	"fmt"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// What doc.go says that is always true, as far as one can see it in the records: verify asks for it.
var (
	_ = plans.Always("owner", hasOwner)

	_ = accesses.Always("role_id", func(tx *store.Tx, u *pb.UserAccess) string { return lacksRole(tx, u.GetRoleId()) })
	_ = accesses.Always("group_id", func(tx *store.Tx, u *pb.UserAccess) string {
		if g, ok := groups.Get(tx, u.GetGroupId()); u.GetGroupId() != "" && (!ok || g.GetDeleteTime() != nil) {
			return fmt.Sprintf("there is no group %q, or it is deleted", u.GetGroupId())
		}
		return ""
	})

	_ = groups.Always("role_id", func(tx *store.Tx, g *pb.Group) string {
		if g.GetDeleteTime() != nil { // it keeps its role's id, which may go before it
			return ""
		}
		return lacksRole(tx, g.GetRoleId())
	})
	_ = groups.Always("denies", deniesFit)
	_ = groups.Always("purge_time", store.PurgesDeleted[*pb.Group])

	_ = roles.Always("purge_time", store.PurgesDeleted[*pb.Role])
)

// hasOwner holds if somebody is an owner. That he is an active member is known to identity alone. Of
// very many who might be, the first are looked at.
func hasOwner(tx *store.Tx, _ *pb.Plan) string {
	l, n := newLoader(tx), 0
	for u := range l.ownerCandidates() {
		if n++; n > maxCandidates || l.access(u).owns(l.now) {
			return ""
		}
	}
	return fmt.Sprintf("nobody holds %s and %s other than by a role of the brand, and for ever", ownerKey, usersKey)
}

// lacksRole holds if a role is none, built-in, or one that is there. The brand may have deleted one of
// its own while the organization was elsewhere, so of a brand's role nothing is expected.
func lacksRole(tx *store.Tx, id string) string {
	if _, ok := builtIn[id]; ok || id == "" {
		return ""
	}
	r, ok := roles.Get(tx, id)
	switch {
	case ok && r.GetDeleteTime() != nil && r.GetBrandId() == "":
		return fmt.Sprintf("role %q is deleted", id)
	case ok, tx.BaseRevision() > 0: // then it may have been anything
		return ""
	}
	for e := range tx.History(roles.Name(), id) {
		was, err := roles.Decode(e.GetChanges()[0].GetOldValue())
		if err != nil || was.GetId() == "" || was.GetBrandId() != "" {
			return ""
		}
		break
	}
	return fmt.Sprintf("there is no role %q, nor was it one of the brand", id)
}

// deniesFit holds if a group grants nothing that it denies, and it is known who put each deny.
func deniesFit(_ *store.Tx, g *pb.Group) string {
	for _, key := range g.GetDenies() {
		if g.GetDenyAuthors()[key] == "" {
			return fmt.Sprintf("it denies %q, and has no author of that", key)
		}
	}
	both := keySet(g.GetGrants())
	for b := range both.Without(both.Without(keySet(g.GetDenies()))).All() {
		return fmt.Sprintf("it grants and denies %q", b)
	}
	return ""
}
