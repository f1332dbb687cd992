package servicerequest

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// checkAssignment refuses to give a request to one user and offer it to the team at
// the same time.
func checkAssignment(assignee string, open bool) error {
	if assignee != "" && open {
		return fault.Invalid("open_to_team", "must be false if assignee_id is set")
	}
	return nil
}

// lookupFor is lookup for a request that is about to be REQUESTED: of the user whom
// the call names, and of the default assignee of the property. What the caller may
// not see is not looked up; the transaction will refuse it.
func (s *service) lookupFor(ctx context.Context, id, user string) (people, error) {
	fallback, err := store.Read(ctx, s.db, func(tx *store.Tx) (string, error) {
		r, err := findRequest(tx, authz.Caller(ctx), id)
		if err != nil {
			return "", nil
		}
		p, _ := properties.Get(tx, r.GetPropertyId())
		return p.GetDefaultAssigneeId(), nil
	})
	if err != nil {
		return nil, err
	}
	return s.lookup(ctx, user, fallback)
}

// offer says who is to do a request that has just become REQUESTED: whom the call
// names, or whom the request named before, or the default assignee of the property.
// A default assignee who is not active any more is passed over.
func offer(tx *store.Tx, r *pb.ServiceRequest, active people, assignee *string, open *bool) error {
	if err := active.mustHold(deref(assignee)); err != nil {
		return err
	}
	switch {
	case deref(assignee) != "":
		r.AssigneeId, r.OpenToTeam = *assignee, false
	case deref(open):
		r.AssigneeId, r.OpenToTeam = "", true
	case open != nil:
		r.OpenToTeam = false
	}
	if p, _ := properties.Get(tx, r.GetPropertyId()); r.GetAssigneeId() == "" && !r.GetOpenToTeam() && active[p.GetDefaultAssigneeId()] {
		r.AssigneeId = p.GetDefaultAssigneeId()
	}
	r.RequestTime = timestamppb.New(tx.Now())
	return nil
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// accept says when the assignee took the work on, and until when he wants to have it
// done.
func accept(tx *store.Tx, r *pb.ServiceRequest, target *typepb.Date) error {
	today := tx.Now().In(zone(tx, r.GetPropertyId()))
	if err := checkTarget(target, today); err != nil {
		return err
	}
	r.AcceptTime, r.TargetDate = timestamppb.New(tx.Now()), target
	return nil
}

// checkTarget refuses what is no day of the calendar, and days before today.
func checkTarget(d *typepb.Date, today time.Time) error {
	day := time.Date(int(d.GetYear()), time.Month(d.GetMonth()), int(d.GetDay()), 0, 0, 0, 0, time.UTC)
	if day.Day() != int(d.GetDay()) {
		return fault.Invalid("target_date.day", "must be a day of the month")
	}
	first := time.Date(today.Year(), today.Month(), today.Day(), 0, 0, 0, 0, time.UTC)
	if day.Before(first) {
		return fault.Invalid("target_date", "must not be before today, %s, at the property", first.Format(time.DateOnly))
	}
	return nil
}
