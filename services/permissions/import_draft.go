package permissions

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// draftPlan is a plan in the making.
type draftPlan struct {
	revision int64
	at       time.Time // that all is judged at
	until    time.Time
	names    *naming

	people     map[string]*identitypb.Member // by what the file calls them, folded
	roleIDs    map[string]string             // by name, folded: those that there will be
	groupIDs   map[string]string
	afterRoles map[string]*pb.Role // those that change, by id
	afterTeams map[string]*pb.Group
	entries    map[string]int // where the file speaks of a user, by his id

	next       *importPlan
	wasRoles   []*pb.Role // those of next, as they are; nil for new ones
	wasGroups  []*pb.Group
	wasUsers   []*pb.UserAccess
	evaluated  map[string]bool
	stripped   bool            // somebody is an owner no longer
	stay       map[string]bool // who was evaluated and will be an owner
	waiting    map[string]bool // for whom scheduling must be asked
	ended      map[string]bool // fields of the file with overrides that have ended
	shown      map[shape]*pb.AccessDifference
	done, todo int
}

// newPlan plans the change anew.
func (im *importing) newPlan() error {
	im.plan = nil
	im.draftPlan = &draftPlan{
		afterRoles: map[string]*pb.Role{}, afterTeams: map[string]*pb.Group{}, entries: map[string]int{}, next: &importPlan{},
		evaluated: map[string]bool{}, stay: map[string]bool{}, waiting: map[string]bool{}, ended: map[string]bool{},
		shown: map[shape]*pb.AccessDifference{},
	}
	for _, step := range []func() error{im.lookUpMembers, im.begin, im.changeUsers, im.keepOwner, im.describe} {
		if err := step(); err != nil {
			return err
		}
	}
	p := im.next
	p.revision, p.until, p.ended = im.revision, im.until, len(im.ended)
	if err := p.seal(); err != nil {
		return err
	}
	im.plan = p
	return nil
}

// lookUpMembers asks identity for everybody whom the file names.
func (im *importing) lookUpMembers() error {
	im.people = map[string]*identitypb.Member{}
	wanted := map[string]bool{}
	for _, r := range im.file.GetRoles() {
		wanted[foldName(r.GetInvoiceApprover())] = true
	}
	for _, g := range im.file.GetGroups() {
		wanted[foldName(g.GetInvoiceApprover())] = true
	}
	for _, u := range im.file.GetUsers() {
		wanted[foldName(u.GetUser())], wanted[foldName(u.GetInvoiceApprover())] = true, true
	}
	delete(wanted, "")
	var ids, emails []string
	for name := range wanted {
		if uuid.Validate(name) == nil && len(name) == 36 {
			ids = append(ids, name)
		} else {
			emails = append(emails, name)
		}
	}
	for some := range slices.Chunk(ids, maxLookup) {
		if err := im.ask(&identitypb.LookupMembersRequest{UserIds: some}, len(wanted)); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(emails, maxLookup) {
		if err := im.ask(&identitypb.LookupMembersRequest{Emails: some}, len(wanted)); err != nil {
			return err
		}
	}
	return nil
}

func (im *importing) ask(req *identitypb.LookupMembersRequest, total int) error {
	req.IncludeDeactivated = true
	found, err := im.lookUp(im.ctx, req)
	if err != nil {
		return err
	}
	for _, m := range found {
		im.people[m.GetUserId()], im.people[m.GetEmail()] = m, m
	}
	im.done += len(req.GetUserIds()) + len(req.GetEmails())
	return im.tell(pb.ImportStage_IMPORT_STAGE_LOOK_UP, im.done, total)
}

// member returns the id of the member whom a field of the file names, or rejects it.
func (im *importing) member(field, name string) string {
	if name == "" {
		return ""
	}
	m := im.people[foldName(name)]
	if m == nil {
		im.file.reject(field, "must be a member of the organization, by his address or his id, and %q is none", name)
	}
	return m.GetUserId()
}

// begin notes what access is now, and plans the roles and groups.
func (im *importing) begin() error {
	return im.db.View(im.ctx, func(tx *store.Tx) (err error) {
		l := newLoader(tx)
		im.revision, im.at = tx.Revision(), l.now
		if im.names, err = newNaming(l); err != nil {
			return err
		}
		for _, m := range im.people {
			im.names.users[m.GetUserId()] = m.GetEmail()
		}
		// SECURITY: an edit of the brand rests on what the organization has.
		for h := range roleHolds.All(tx) {
			return fault.RaceLost("role", h.GetId())
		}
		by := l.delegation(im.by)
		if ends := instants(im.at, by.own); len(ends) > 1 {
			im.until = ends[1]
		}
		if err := im.changeRoles(l, by); err != nil {
			return err
		}
		if err := im.changeGroups(l, by); err != nil {
			return err
		}
		im.findUsers()
		return im.file.failed()
	})
}

// changeRoles plans the roles.
func (im *importing) changeRoles(l *loader, by *delegation) error {
	im.roleIDs = map[string]string{}
	now := map[string]*pb.Role{}
	for r := range roleByName.Scan(l.tx, roleByName.Range(false)) {
		if r.GetBrandId() != "" {
			im.roleIDs[ofBrand+foldName(r.GetName())] = r.GetId()
			continue
		}
		now[foldName(r.GetName())] = r
		im.roleIDs[foldName(r.GetName())] = r.GetId()
	}
	named := map[string]bool{}
	for i, e := range im.file.GetRoles() {
		at, name := entry("roles", i), foldName(e.GetName())
		switch {
		case isCode(name):
			im.file.reject(at+".name", "must not be the code of a built-in role, and %q is one", e.GetName())
		case strings.HasPrefix(name, ofBrand):
			im.file.reject(at+".name", "must not begin with %q: a role of the brand is named by who has it, and not defined", ofBrand)
		case named[name]:
			im.file.reject(at+".name", "must stand in the file once, and %q is there before", e.GetName())
		}
		named[name] = true
		was, is := now[name], &pb.Role{Id: im.newID()}
		if was != nil {
			is = proto.CloneOf(was)
		}
		is.Name, is.Description = trimmed(e.GetName()), e.GetDescription()
		keys := im.keys(at+".keys", e.GetKeys())
		is.Keys, is.Settings = keyNames(keys), im.settings(at, e.GetSettings(), e.GetInvoiceApprover())
		im.roleIDs[name] = is.GetId()
		if was != nil && proto.Equal(is, normalRole(was)) {
			continue
		}
		if err := by.names(keys.Without(keySet(was.GetKeys()))); err != nil {
			return im.file.blame(err, at)
		}
		im.changeRole(was, is)
	}
	for name, was := range now {
		if im.replace && !named[name] {
			is := proto.CloneOf(was)
			is.DeleteTime, is.PurgeTime = timestamppb.New(im.at), timestamppb.New(im.at.Add(purgeAfter))
			delete(im.roleIDs, name)
			im.changeRole(was, is)
		}
	}
	if len(im.next.roles) == 0 {
		return nil
	}
	return authz.Permits(im.ctx, pb.RoleService_UpdateRole_FullMethodName)
}

func (im *importing) changeRole(was, is *pb.Role) {
	is.ChangeReason = im.reason
	im.next.roles, im.wasRoles = append(im.next.roles, is), append(im.wasRoles, was)
	im.afterRoles[is.GetId()] = is
	im.names.roles[is.GetId()] = is.GetName()
}

// changeGroups plans the groups.
func (im *importing) changeGroups(l *loader, by *delegation) error {
	after := im.after(l)
	im.groupIDs = map[string]string{}
	now := map[string]*pb.Group{}
	for g := range groupByName.Scan(l.tx, groupByName.Range(false)) {
		now[foldName(g.GetName())] = g
		im.groupIDs[foldName(g.GetName())] = g.GetId()
	}
	named := map[string]bool{}
	for i, e := range im.file.GetGroups() {
		at, name := entry("groups", i), foldName(e.GetName())
		if named[name] {
			im.file.reject(at+".name", "must stand in the file once, and %q is there before", e.GetName())
		}
		named[name] = true
		was, is := now[name], &pb.Group{Id: im.newID()}
		if was != nil {
			is = proto.CloneOf(was)
		}
		im.fillGroup(at, e, is)
		im.groupIDs[name] = is.GetId()
		if was != nil && proto.Equal(is, normalGroup(was)) {
			continue
		}
		if len(im.file.wrong) > 0 {
			continue // what is wrong is told of all, before whether he may
		}
		if err := after.checkGroup(by, was, is); err != nil {
			return im.file.blame(err, at)
		}
		im.changeGroup(was, is)
	}
	for name, was := range now {
		if im.replace && !named[name] {
			is := proto.CloneOf(was)
			is.DeleteTime, is.PurgeTime = timestamppb.New(im.at), timestamppb.New(im.at.Add(purgeAfter))
			delete(im.groupIDs, name)
			im.changeGroup(was, is)
		}
	}
	return nil
}

// fillGroup gives a group what the file says of it.
func (im *importing) fillGroup(at string, e *pb.GroupEntry, g *pb.Group) {
	grants, denies := im.keys(at+".grants", e.GetGrants()), im.keys(at+".denies", e.GetDenies())
	for b := range grants.Intersection(denies).All() {
		im.file.reject(at+".denies", "must not hold %q, which the group grants", b)
	}
	g.Name, g.Description = trimmed(e.GetName()), e.GetDescription()
	g.RoleId = im.roleOf(at+".role", e.GetRole())
	g.Grants, g.Denies = keyNames(grants), keyNames(denies)
	g.Settings = im.settings(at, e.GetSettings(), e.GetInvoiceApprover())
}

func (im *importing) changeGroup(was, is *pb.Group) {
	is.ChangeReason = im.reason
	im.next.groups, im.wasGroups = append(im.next.groups, is), append(im.wasGroups, was)
	im.afterTeams[is.GetId()] = is
	im.names.groups[is.GetId()] = is.GetName()
}

// findUsers finds whom the entries of users are about.
func (im *importing) findUsers() {
	for i, e := range im.file.GetUsers() {
		id := im.member(entry("users", i)+".user", e.GetUser())
		if first, twice := im.entries[id]; twice && id != "" {
			im.file.reject(entry("users", i)+".user", "must stand in the file once, and %q is %s", e.GetUser(), entry("users", first))
			continue
		}
		im.entries[id] = i
	}
	delete(im.entries, "")
}

// settings returns the settings of a layer, with the approver whom the file names beside
// them.
func (im *importing) settings(at string, s *pb.UserSettings, approver string) *pb.UserSettings {
	if s.GetInvoiceApprover() != "" {
		im.file.reject(at+".settings.invoice_approver", "must stand beside the settings, by the address of a member")
	}
	id := im.member(at+".invoice_approver", approver)
	if id == "" {
		return orNone(s)
	}
	s = proto.CloneOf(s)
	if s == nil {
		s = &pb.UserSettings{}
	}
	s.InvoiceApprover = &id
	return s
}

// keys returns the keys that a field of the file names.
func (im *importing) keys(field string, names []string) catalog.Set {
	var set catalog.Set
	for i, name := range names {
		k, ok := catalog.Lookup(name)
		if !ok {
			im.file.reject(entry(field, i), "must be a key of the catalog, and %q is none", name)
			continue
		}
		set.Add(k.Bit())
	}
	return set
}

// roleOf returns the id of the role that a field of the file names.
func (im *importing) roleOf(field, name string) string {
	if _, ok := builtIn[name]; ok || name == "" {
		return name
	}
	id, ok := im.roleIDs[foldName(name)]
	if !ok {
		im.file.reject(field, "must be the code of a built-in role, the name of one of the organization's own, or %q and the name of one of the brand's, and %q is none", ofBrand, name)
	}
	return id
}

// after returns a loader as l of the records as they are to be.
func (im *importing) after(l *loader) *loader {
	a := &loader{tx: l.tx, now: l.now, plan: l.plan, roles: map[string]baseline{}, teams: map[string]team{}}
	for id, r := range im.afterRoles {
		a.roles[id] = baseline{}
		if r.GetDeleteTime() == nil {
			a.roles[id] = compileRole(r)
		}
	}
	for id, g := range im.afterTeams {
		a.teams[id] = team{}
		if g.GetDeleteTime() == nil {
			a.teams[id] = compileGroup(g, a.role(g.GetRoleId()))
		}
	}
	return a
}

// keepOwner fails if the organization would be left without an owner.
func (im *importing) keepOwner() error {
	if !im.stripped {
		return nil
	}
	var ids []string
	err := im.view(func(l *loader) error {
		ids = l.owners()
		return nil
	})
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return im.evaluated[id] })
	ids = append(ids, slices.Sorted(maps.Keys(im.stay))...)
	for some := range slices.Chunk(ids, maxLookup) {
		persons, err := im.persons(im.ctx, some...)
		if err != nil || slices.Contains(slices.Collect(maps.Values(persons)), true) {
			return err
		}
	}
	return lastOwner()
}

// noSelfStrip fails if the import would take from the caller what it takes to import.
func noSelfStrip(before, after *access, at time.Time) error {
	if before.keys(at, before.plan).Has(usersKey) && !after.keys(at, after.plan).Has(usersKey) {
		return fault.Refused("the import would take %s from yourself: have somebody else do it", usersKey)
	}
	return nil
}
