package permissions

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	permissionsstorepb "latchkey.dev/gen/go/latchkey/permissions/store/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	// decideWithin is how long an edit of a brand's role may take until it is decided.
	// Then somebody else may give it up.
	decideWithin = time.Minute
	// completeWithin bounds how long the call itself completes a change that was decided.
	completeWithin = time.Minute
	// abreast is how many organizations are written at once: they share the syncs of the disk.
	abreast = 16
	// maxRounds is how often the organizations that joined meanwhile are held, too.
	maxRounds = 5
)

// brandEdit is a change of a brand's role. A transaction is of one organization, so it goes
// in steps, each of which can be repeated, and any of which can be the last that this process
// does:
//
//  1. The brand's records note the edit, of which there is one at a time for a role.
//  2. In every organization, one transaction each, it is checked, and a hold is put, which
//     keeps what was checked as it is: who has the role, and what else they have.
//  3. The brand's record of the role changes: now it is decided.
//  4. In every organization its own record of the role becomes what the brand's is, and the
//     hold goes.
//  5. The edit is forgotten.
//
// A refusal in step 2 takes the holds away again. Whatever a crash leaves is completed, or
// given up if it was not decided, by completeEdits.
type brandEdit struct {
	*service
	id     string // of the edit
	brand  string
	role   string
	home   string // the caller's organization
	origin store.Origin
	by     granter
	own    *delegation // by what the caller holds at home

	// change returns the role as it is to be, in a transaction of the brand.
	change func(*store.Tx) (*pb.Role, error)
	// check tells whether the change may be made in an organization; nil if it reaches
	// nobody because the role is new.
	check func(*loader, *pb.Role) error

	before        []string // organizations that the brand was known to have
	organizations []string // those that it has, by identity
	held          map[string]bool
	begun         bool
}

// newBrandEdit returns an edit of a role of the caller's brand that does nothing yet.
func (s *service) newBrandEdit(ctx context.Context, by granter, role string) (*brandEdit, error) {
	brand, err := s.brandOf(ctx)
	if err != nil {
		return nil, err
	}
	origin := store.OriginOf(ctx)
	e := &brandEdit{
		service: s, id: s.newID(), brand: brand, role: role, home: origin.Tenant, origin: origin, by: by, held: map[string]bool{},
	}
	if e.before, err = s.membersOf(ctx, brand); err != nil {
		return nil, err
	}
	if e.organizations, err = s.organizationsOf(ctx); err != nil {
		return nil, err
	}
	return e, s.db.View(ctx, func(tx *store.Tx) error {
		e.own = newLoader(tx).delegation(e.by)
		return nil
	})
}

// delegationIn returns what the caller may do to others' access in an organization: what he
// may at home, by what he holds there.
//
// SECURITY: where he is somebody himself, the edit adds nothing to him.
func (e *brandEdit) delegationIn(l *loader) *delegation {
	if l.tx.Tenant() == e.home {
		return l.delegation(e.by)
	}
	d := *e.own
	d.now, d.author, d.abroad = l.now, l.authors(), true
	return &d
}

// inBrand is the context of a transaction of a brand's own records, for a caller out of one
// of its organizations.
func inBrand(ctx context.Context, brand string) context.Context {
	o := store.OriginOf(ctx)
	o.Tenant, o.Party = brand, o.Tenant
	return store.WithOrigin(ctx, o)
}

// in is the context of a step in an organization, or in the brand's own records. The
// decision of the call is noted where the change is decided, and so not here.
func (e *brandEdit) in(ctx context.Context, tenant string) context.Context {
	o := e.origin
	o.Tenant, o.Party, o.Note = tenant, "", nil
	return store.WithOrigin(ctx, o)
}

// errUnheld is what the decision returns while an organization has no hold.
var errUnheld = errors.New("an organization of the brand is not held")

// makeBrandEdit makes an edit, and returns when it is in force in every organization. A
// repeat gets the first answer, when that is in force.
func makeBrandEdit[R proto.Message](ctx context.Context, e *brandEdit, req proto.Message, respond func(*pb.Role) R) (R, error) {
	var none R
	decide := func(tx *store.Tx) (R, error) {
		r, err := e.change(tx)
		if err != nil {
			return none, err
		}
		return respond(r), roles.Put(tx, r)
	}
	if r, ok := req.(interface{ GetValidateOnly() bool }); ok && r.GetValidateOnly() {
		if _, err := e.tryEverywhere(ctx); err != nil {
			return none, err
		}
		return store.Do(inBrand(ctx, e.brand), e.db, req, decide)
	}
	resp, err := untilHeld(ctx, e, func() (R, error) {
		return store.Do(inBrand(ctx, e.brand), e.db, req, func(tx *store.Tx) (R, error) {
			if err := e.ready(tx); err != nil {
				return none, err
			}
			return decide(tx)
		})
	})
	if err != nil {
		e.giveUp(ctx)
		return none, err
	}
	role := resp.ProtoReflect().Interface().(interface{ GetRole() *pb.Role }).GetRole().GetId() // a repeat's may be another
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), completeWithin)
	defer cancel()
	if err := e.complete(within, e.brand, role); err != nil {
		return none, err
	}
	if err := e.hub.Barrier(ctx); err != nil {
		return none, err
	}
	return resp, nil
}

// untilHeld decides an edit, and holds the organizations that lack a hold, until none does.
func untilHeld[R any](ctx context.Context, e *brandEdit, decide func() (R, error)) (R, error) {
	var none R
	for range maxRounds {
		resp, err := decide()
		if !errors.Is(err, errUnheld) {
			return resp, err
		}
		if err := e.hold(ctx); err != nil {
			return none, err
		}
	}
	return none, fault.RaceLost("role", e.role)
}

// ready returns nil if all that goes before the decision is done, and notes the decision.
func (e *brandEdit) ready(tx *store.Tx) error {
	if !e.begun {
		return errUnheld
	}
	edit, ok := roleEdits.Get(tx, e.role)
	if !ok || edit.GetEditId() != e.id || edit.GetGivenUp() {
		return fault.RaceLost("role", e.role)
	}
	for _, id := range membersIn(tx) {
		if e.check != nil && !e.held[id] {
			return errUnheld
		}
	}
	edit.Decided = true
	return roleEdits.Put(tx, edit)
}

// hold begins the edit if it is not, and holds every organization that it does not hold.
func (e *brandEdit) hold(ctx context.Context) error {
	var members []string
	var is *pb.Role
	err := e.db.Update(e.in(ctx, e.brand), func(tx *store.Tx) (err error) {
		if is, err = e.change(tx); err != nil {
			return err
		}
		if !e.begun {
			if err := e.begin(tx); err != nil {
				return err
			}
		}
		members = membersIn(tx)
		return nil
	})
	if err != nil {
		return err
	}
	e.begun = true
	if e.check == nil {
		return nil
	}
	members = slices.DeleteFunc(members, func(id string) bool { return e.held[id] })
	for _, id := range members {
		e.held[id] = true // or may be, if it fails
	}
	return each(members, func(organization string) error {
		return e.db.Update(e.in(ctx, organization), func(tx *store.Tx) error { return e.holdIn(tx, is) })
	})
}

// begin notes the edit, and which organizations the brand has by now.
func (e *brandEdit) begin(tx *store.Tx) error {
	if _, busy := roleEdits.Get(tx, e.role); busy {
		return fault.RaceLost("role", e.role)
	}
	if err := keepMembers(tx, e.before, e.organizations); err != nil {
		return err
	}
	return roleEdits.Put(tx, &permissionsstorepb.RoleEdit{
		Id: e.role, EditId: e.id, Caller: e.origin.Caller, Actor: e.origin.Actor, Method: e.origin.Method, StartTime: timestamppb.New(tx.Now()),
	})
}

// holdIn checks the edit in an organization and holds it there.
func (e *brandEdit) holdIn(tx *store.Tx, is *pb.Role) error {
	// SECURITY: another's hold stays. If it is of an edit that was given up, it goes soon.
	if h, ok := roleHolds.Get(tx, e.role); ok && h.GetEditId() != e.id {
		return fault.RaceLost("role", e.role)
	}
	if err := e.check(newLoader(tx), is); err != nil {
		return err
	}
	return roleHolds.Put(tx, &permissionsstorepb.RoleHold{
		Id: e.role, EditId: e.id, BrandId: e.brand, StartTime: timestamppb.New(tx.Now()),
	})
}

// tryEverywhere checks the edit in every organization and changes nothing. It returns the
// role as it is to be.
func (e *brandEdit) tryEverywhere(ctx context.Context) (is *pb.Role, err error) {
	err = e.db.View(e.in(ctx, e.brand), func(tx *store.Tx) (err error) {
		is, err = e.change(tx)
		return err
	})
	if err != nil || e.check == nil {
		return is, err
	}
	return is, each(e.organizations, func(organization string) error {
		return e.db.View(e.in(ctx, organization), func(tx *store.Tx) error { return e.check(newLoader(tx), is) })
	})
}

// giveUp takes back what an edit has done that was not decided. What it cannot take back
// completeEdits does later.
func (e *brandEdit) giveUp(ctx context.Context) {
	if !e.begun {
		return
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), completeWithin)
	defer cancel()
	edit := &permissionsstorepb.RoleEdit{Id: e.role, EditId: e.id, Caller: e.origin.Caller, Actor: e.origin.Actor, Method: e.origin.Method}
	if err := e.service.giveUp(within, e.brand, edit); err != nil {
		e.log.WarnContext(ctx, "an edit of a brand's role is not taken back yet", "role", e.role, "error", err)
	}
}

// each calls f for every organization, several at once, and returns the first error.
func each(organizations []string, f func(string) error) error {
	var wait sync.WaitGroup
	var mu sync.Mutex
	var first error
	turns := make(chan struct{}, abreast)
	for _, id := range organizations {
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			if err := f(id); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = err
				}
			}
		})
	}
	wait.Wait()
	return first
}
