package permissions

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
)

// delegation decides what one caller may do to the access of others. It compares what
// a user has before and after an edit with what the caller has, now and at each later
// instant at which an override ends, as if the plan had every feature, so that neither
// waiting nor buying one gives more than was decided.
//
// The rules, each of them needed so that no sequence of edits raises anybody:
//
//   - Rank: all that another user has or will have, the caller has now.
//   - Time: what the edit adds at an instant, the caller has now and at that instant. For
//     oneself this means that an edit adds nothing; so it is in an organization other than
//     the one that the caller acts in, too, where he may hold less.
//   - Names: a key that an edit grants or denies by name, the caller holds now.
//   - Denies: an edit neither takes away a deny nor makes a denied key count, unless all
//     that the deny's author has, the caller has.
//   - Settings: an edit raises no setting above the caller's own. Those of service agents
//     may be raised for others, because who is no agent has none.
type delegation struct {
	caller string
	actor  string  // who acts in the caller's name, or empty
	own    *access // the caller's, before the edit
	now    time.Time
	limit  catalog.Set // what the caller's session carries
	// author returns the access of whoever put a deny.
	author func(user string) *access

	present catalog.Set // what the caller can hand out now
	abroad  bool        // the edit is in an organization other than the one own is of
}

func newDelegation(g granter, own *access, now time.Time, author func(string) *access) *delegation {
	d := &delegation{caller: g.id, actor: g.actor, own: own, now: now, limit: g.carries, author: author}
	// What the session does not carry is not handed out, be it that it was opened with
	// less, or that the caller got it only just now.
	carried := own.keys(now, own.plan)
	d.present = own.keys(now, allFeatures).Without(carried.Without(g.carries))
	if g.limited {
		// SECURITY: a session with fewer keys does not carry what the plan lacks now either.
		d.present = d.present.Intersection(g.carries)
	}
	return d
}

// edit is a change of one user's access.
type edit struct {
	user          string
	before, after *access
}

// heldAt returns the keys that the caller can hand out for an instant.
func (d *delegation) heldAt(at time.Time) catalog.Set {
	if at.Equal(d.now) {
		return d.present
	}
	return d.present.Without(d.present.Without(d.own.keys(at, allFeatures)))
}

// check returns nil if the caller may make the edit.
func (d *delegation) check(e edit) error {
	for _, at := range instants(d.now, e.before, e.after, d.own) {
		was, is := e.before.keys(at, allFeatures), e.after.keys(at, allFeatures)
		if e.user != d.caller {
			if err := within(was, d.present, "the user has %s, which you lack"); err != nil {
				return err
			}
		}
		added := is.Without(was)
		if err := within(added, d.heldAt(at), "the user would have %s, which you lack then"); err != nil {
			return err
		}
		if d.abroad && (e.user == d.caller || e.user == d.actor) {
			if err := within(added, catalog.Set{}, "you would have %s in another organization, and nobody raises himself"); err != nil {
				return err
			}
		}
		if err := d.checkAdded(e, added, at); err != nil {
			return err
		}
	}
	if err := d.checkLifted(e); err != nil {
		return err
	}
	return d.checkSettings(e)
}

// assignable returns the keys that the caller may grant or deny by name: those he holds.
func (d *delegation) assignable() catalog.Set {
	keys := d.own.keys(d.now, d.own.plan)
	return keys.Without(keys.Without(d.limit))
}

// names returns nil if the caller may grant or deny these keys by name.
func (d *delegation) names(keys catalog.Set) error {
	for b := range keys.Without(d.assignable()).All() {
		if !d.present.Has(b) {
			return beyond(b, "%s is not yours to give")
		}
		for need := range catalog.Needs(b).Without(d.own.plan).All() {
			if feature, ok := strings.CutPrefix(need.String(), "feature:"); ok {
				return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_FEATURE_NOT_IN_PLAN,
					fmt.Sprintf("the organization's plan does not include %q, which %s needs", feature, b),
					map[string]string{"feature": feature, "grant": b.String()})
			}
		}
	}
	return nil
}

// checkAdded guards the denies on keys that the edit makes count at an instant.
func (d *delegation) checkAdded(e edit, added catalog.Set, at time.Time) error {
	if added.Empty() {
		return nil
	}
	for _, a := range []*access{e.before, e.after} {
		for b := range a.group.denies.All() {
			if added.Has(b) {
				if err := d.mayLift(b, a.group.authors[b.String()]); err != nil {
					return err
				}
			}
		}
		for i := range a.overrides {
			if o := &a.overrides[i]; o.deny && o.counts(at) && added.Has(o.bit) {
				if err := d.mayLift(o.bit, o.author); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// checkLifted guards the denies that were there before the edit and are not after it.
func (d *delegation) checkLifted(e edit) error {
	for i := range e.before.overrides {
		if o := &e.before.overrides[i]; o.deny && o.counts(d.now) && !e.after.hasOverride(o) {
			if err := d.mayLift(o.bit, o.author); err != nil {
				return err
			}
		}
	}
	was, is := &e.before.group, &e.after.group
	lifted := was.denies
	if was.id == is.id {
		lifted = lifted.Without(is.denies)
	}
	for b := range lifted.All() {
		if err := d.mayLift(b, was.authors[b.String()]); err != nil {
			return err
		}
	}
	return nil
}

// hasOverride reports whether there is an equal one.
func (a *access) hasOverride(o *override) bool {
	for i := range a.overrides {
		p := &a.overrides[i]
		if p.bit == o.bit && p.deny == o.deny && p.until.Equal(o.until) && p.author == o.author {
			return true
		}
	}
	return false
}

// mayLift returns nil if the caller may lift a deny of this author.
func (d *delegation) mayLift(b catalog.Bit, author string) error {
	if author == "" || author == d.caller {
		return nil
	}
	a := d.author(author)
	for _, at := range instants(d.now, a) {
		if err := within(a.keys(at, allFeatures), d.present, "the deny of "+b.String()+" is by somebody who has %s, which you lack"); err != nil {
			return err
		}
	}
	return nil
}

// within returns nil if the keys are among those held. Why says in what the first that
// is not matters, with %s for its name.
func within(keys, held catalog.Set, why string) error {
	if held.Contains(keys) {
		return nil
	}
	for b := range keys.Without(held).All() {
		return beyond(b, why)
	}
	return nil
}

func beyond(b catalog.Bit, why string) error { return beyondGrant(b.String(), why) }

func beyondGrant(name, why string) error {
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_BEYOND_OWN_GRANTS,
		fmt.Sprintf(why, name)+": ask somebody who holds it and may hand it out",
		map[string]string{"grant": name})
}
