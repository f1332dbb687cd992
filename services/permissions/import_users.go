package permissions

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
)

// importChunk is how many users one transaction of a plan looks at.
const importChunk = 500

// entry returns the path of an element of a list.
func entry(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

func trimmed(name string) string { return strings.TrimSpace(name) }

// normalRole returns a role as an import that changes nothing would leave it.
func normalRole(r *pb.Role) *pb.Role {
	r = proto.CloneOf(r)
	r.Keys, r.Settings = keyNames(keySet(r.GetKeys())), orNone(r.GetSettings())
	return r
}

// normalGroup is normalRole of a group.
func normalGroup(g *pb.Group) *pb.Group {
	g = proto.CloneOf(g)
	g.Grants, g.Denies = keyNames(keySet(g.GetGrants())), keyNames(keySet(g.GetDenies()))
	g.Settings = orNone(g.GetSettings())
	return g
}

// changeUsers plans what becomes of each user whom the file names, or whom a change of a
// role or a group reaches; with IMPORT_MODE_REPLACE of everybody.
func (im *importing) changeUsers() error {
	im.done, im.todo = 0, len(im.entries)
	if im.replace || len(im.afterRoles)+len(im.afterTeams) > 0 {
		if err := im.changeStored(); err != nil {
			return err
		}
	}
	rest := slices.Sorted(maps.Keys(im.entries))
	rest = slices.DeleteFunc(rest, func(id string) bool { return im.evaluated[id] || im.waiting[id] })
	if err := im.changeSome(rest); err != nil {
		return err
	}
	waiting := slices.Sorted(maps.Keys(im.waiting))
	if err := im.askScheduling(waiting); err != nil {
		return err
	}
	if err := im.changeSome(waiting); err != nil {
		return err
	}
	if len(im.next.users) > maxHolders {
		return fault.Limit("users whom one import changes", 0)
	}
	return im.file.failed()
}

// changeStored plans for everybody of whom something is stored.
func (im *importing) changeStored() error {
	for more, last := true, ""; more; {
		more = false
		err := im.view(func(l *loader) error {
			c, n := im.changer(l), 0
			for u := range accesses.Scan(l.tx, recordsAfter(last)) {
				if n++; n > importChunk {
					more = true
					break
				}
				last = u.GetId()
				if err := c.change(u); err != nil {
					return err
				}
			}
			im.done += min(n, importChunk)
			return nil
		})
		if err != nil {
			return err
		}
		if err := im.tell(pb.ImportStage_IMPORT_STAGE_CHECK, im.done, 0); err != nil {
			return err
		}
	}
	return nil
}

// changeSome plans for some users.
func (im *importing) changeSome(ids []string) error {
	for some := range slices.Chunk(ids, importChunk) {
		err := im.view(func(l *loader) error {
			c := im.changer(l)
			for _, id := range some {
				if err := c.change(l.user(id)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		im.done += len(some)
		if err := im.tell(pb.ImportStage_IMPORT_STAGE_CHECK, im.done, 0); err != nil {
			return err
		}
	}
	return nil
}

// changer plans for users in one transaction.
type changer struct {
	*importing
	l, after *loader
	by       *delegation
}

func (im *importing) changer(l *loader) *changer {
	return &changer{im, l, im.after(l), l.delegation(im.by)}
}

// change plans what becomes of one user.
func (c *changer) change(u *pb.UserAccess) error {
	i, named := c.entries[u.GetId()]
	at, is := "user "+u.GetId(), u
	switch {
	case named:
		at = entry("users", i)
		is = c.apply(at, c.file.GetUsers()[i], u)
	case c.replace:
		is = &pb.UserAccess{Id: u.GetId(), ServiceAgentId: u.GetServiceAgentId(), LeaveTime: u.LeaveTime}
	}
	if len(c.file.wrong) > 0 {
		return nil // goes on only to find what else is wrong
	}
	changed := !c.sameAccess(u, is)
	if !changed {
		is = u
		if !c.reaches(u) {
			return nil
		}
	}
	if changed && is.GetServiceAgentId() == "" && c.needsLink(u, is) {
		l, known := c.links[u.GetId()]
		if !known {
			c.waiting[u.GetId()] = true
			return nil
		}
		l.note(is)
		if setting := compileSettings(is.GetSettings()).agentOnly(); setting != "" && is.GetServiceAgentId() == "" {
			return c.file.blame(noServiceAgent(setting), at+".settings."+setting)
		}
	}
	if err := c.check(at, u, is); err != nil {
		if named {
			return c.file.blame(err, at)
		}
		return err
	}
	if changed {
		is.ChangeReason = c.reason
		c.next.users, c.wasUsers = append(c.next.users, is), append(c.wasUsers, u)
	}
	return nil
}

// check checks a change of one user and notes what it does.
func (c *changer) check(at string, was, is *pb.UserAccess) error {
	e := edit{was.GetId(), c.l.access(was), c.after.access(is)}
	var added catalog.Set
	for _, o := range is.GetOverrides() {
		if b, ok := catalog.Grant(o.GetKey()); ok && !proto.Equal(o, overrideIn(was, b)) {
			added.Add(b)
		}
	}
	if err := c.by.names(added); err != nil {
		return err
	}
	if err := c.by.check(e); err != nil {
		return err
	}
	if e.user == c.by.caller {
		if err := noSelfStrip(e.before, e.after, c.at); err != nil {
			return err
		}
	}
	c.evaluated[e.user] = true
	c.stripped = c.stripped || e.before.owns(c.at) && !e.after.owns(c.at)
	if e.after.owns(c.at) && !is.GetLeaveTime().AsTime().After(c.at) {
		c.stay[e.user] = true
	}
	if d := c.differenceOf(&e); d != nil {
		c.next.accesses = append(c.next.accesses, d)
	}
	return nil
}

// shape is all of a change of access that a difference tells.
type shape struct {
	was, is                 catalog.Set
	settingsWas, settingsIs values
}

// differenceOf is difference. Many users have the same before and after, and share what
// is told of it.
func (c *changer) differenceOf(e *edit) *pb.AccessDifference {
	key := shape{settingsWas: e.before.settings(), settingsIs: e.after.settings()}
	key.was, _ = e.before.grants(c.at)
	key.is, _ = e.after.grants(c.at)
	d, known := c.shown[key]
	if !known {
		d = difference("", e.before, e.after, c.after)
		c.shown[key] = d
	}
	if d == nil {
		return nil
	}
	return &pb.AccessDifference{
		UserId: e.user, Gained: d.GetGained(), Lost: d.GetLost(), GainedMethods: d.GetGainedMethods(), LostMethods: d.GetLostMethods(),
		SettingsBefore: d.GetSettingsBefore(), SettingsAfter: d.GetSettingsAfter(),
	}
}

// apply returns what is stored of a user as the file wants it.
func (c *changer) apply(at string, e *pb.UserEntry, u *pb.UserAccess) *pb.UserAccess {
	is := proto.CloneOf(u)
	is.RoleId, is.RegionalManager = c.roleOf(at+".role", e.GetRole()), e.GetRegionalManager()
	if is.GetRegionalManager() && !takesRegional(is.GetRoleId()) {
		c.file.reject(at+".regional_manager", "goes only with the role PM or PM+")
	}
	is.GroupId = ""
	if name := e.GetGroup(); name != "" {
		id, ok := c.groupIDs[foldName(name)]
		if !ok {
			c.file.reject(at+".group", "must be the name of a group of the organization, and %q is none", name)
		}
		is.GroupId = id
	}
	is.Overrides = nil
	c.override(at+".grants", e.GetGrants(), pb.Effect_EFFECT_GRANT, u, is)
	c.override(at+".denies", e.GetDenies(), pb.Effect_EFFECT_DENY, u, is)
	is.Settings = c.settings(at, e.GetSettings(), e.GetInvoiceApprover())
	if is.GetSettings().GetInvoiceApprover() == u.GetId() {
		c.file.reject(at+".invoice_approver", "must be somebody else: nobody approves his own invoices")
	}
	return is
}

// override gives a user overrides that the file names. One that he has already keeps its
// author.
func (c *changer) override(at string, list []*pb.OverrideEntry, effect pb.Effect, was, is *pb.UserAccess) {
	for i, e := range list {
		key, ok := catalog.Lookup(e.GetKey())
		switch {
		case !ok:
			c.file.reject(entry(at, i)+".key", "must be a key of the catalog, and %q is none", e.GetKey())
			continue
		case overrideIn(is, key.Bit()) != nil:
			c.file.reject(entry(at, i)+".key", "must stand once among the grants and denies of a user, and %q is there before", e.GetKey())
			continue
		case e.ExpireTime != nil && e.GetExpireTime().CheckValid() != nil:
			c.file.reject(entry(at, i)+".expire_time", "must be a time of the years 1 to 9999")
			continue
		case e.ExpireTime != nil && !e.GetExpireTime().AsTime().After(c.at):
			c.ended[entry(at, i)] = true
			continue
		}
		o := &pb.Override{
			Key: key.Name, Effect: effect, Reason: e.GetReason(), ExpireTime: e.GetExpireTime(),
			SetBy: c.by.caller, SetTime: timestamppb.New(c.at),
		}
		if old := overrideIn(was, key.Bit()); old != nil && sameOverride(old, o) {
			o = old
		}
		setOverride(is, o)
	}
}

// sameOverride reports whether two overrides say the same, whoever set them.
func sameOverride(a, b *pb.Override) bool {
	return a.GetKey() == b.GetKey() && a.GetEffect() == b.GetEffect() && a.GetReason() == b.GetReason() &&
		proto.Equal(a.GetExpireTime(), b.GetExpireTime())
}

// sameAccess reports whether two records of a user say the same.
func (c *changer) sameAccess(a, b *pb.UserAccess) bool {
	return a.GetRoleId() == b.GetRoleId() && a.GetRegionalManager() == b.GetRegionalManager() && a.GetGroupId() == b.GetGroupId() &&
		slices.EqualFunc(c.l.liveOverrides(a), c.l.liveOverrides(b), sameOverride) &&
		proto.Equal(orNone(a.GetSettings()), orNone(b.GetSettings()))
}

// reaches reports whether a change of a role or a group reaches a user.
func (c *changer) reaches(u *pb.UserAccess) bool {
	if c.afterRoles[u.GetRoleId()] != nil || c.afterTeams[u.GetGroupId()] != nil {
		return true
	}
	return u.GetGroupId() != "" && c.afterRoles[c.l.team(u.GetGroupId()).role.id] != nil
}

// needsLink reports whether it matters to a change if the user is a service agent.
func (c *changer) needsLink(was, is *pb.UserAccess) bool {
	own := compileSettings(is.GetSettings()).agentOnly() != "" && !proto.Equal(orNone(was.GetSettings()), orNone(is.GetSettings()))
	joins := is.GetGroupId() != was.GetGroupId() && c.after.team(is.GetGroupId()).settings.agentOnly() != ""
	return own || joins
}

// askScheduling asks which of some users are service agents.
func (im *importing) askScheduling(users []string) error {
	for i, id := range users {
		agent, err := im.agentOf(im.ctx, id)
		if err != nil {
			return err
		}
		im.links[id] = agent
		if i%importChunk == 0 {
			if err := im.tell(pb.ImportStage_IMPORT_STAGE_LOOK_UP, i, len(users)); err != nil {
				return err
			}
		}
	}
	return nil
}
