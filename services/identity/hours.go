package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// hoursEvery is how long what was found out about the hours of a session holds at most:
// from then on it is asked for again.
const hoursEvery = 5 * time.Minute

// hours is when somebody may use the app, as was found out just now.
type hours struct {
	always bool
	closed bool // the surface is closed to the person, whatever the hour
	// start and end are of the span that is now, or comes next. Zero if none is known of.
	start, end time.Time
	zone       string
}

func (h *hours) cover(now time.Time) bool {
	return h.always || !now.Before(h.start) && now.Before(h.end)
}

// bound returns when what ends at a time ends within the hours: a token that is verified
// offline says so itself.
func (h *hours) bound(end time.Time) time.Time {
	if !h.always && h.end.Before(end) {
		return h.end
	}
	return end
}

// restricts tells whether the setting login_restrictions is about sessions of a surface.
//
// SECURITY: what a program calls itself is its own word, so that for whoever may not use
// the web it is the app.
func restricts(surface pb.Surface, grants catalog.Set) bool {
	return surface == pb.Surface_SURFACE_APP || surface == pb.Surface_SURFACE_API && !grants.Has(webKey)
}

// hoursOf finds out when somebody may use a session of a surface, and whether at all.
func (s *service) hoursOf(ctx context.Context, organization, user string, surface pb.Surface) (*hours, error) {
	grants, settings, err := s.accessOf(ctx, organization, user)
	if err != nil {
		return nil, err
	}
	h, err := s.hoursBy(ctx, organization, user, surface, grants, settings)
	if err == nil && checkSurface(surface, grants) != nil {
		h.closed = true
	}
	return h, err
}

// hoursBy is hoursOf for whoever knows already what permissions says.
func (s *service) hoursBy(ctx context.Context, organization, user string, surface pb.Surface, grants catalog.Set, settings *permissionspb.EffectiveSettings) (*hours, error) {
	bounds := settings.GetLoginRestrictions()
	if bounds == nil || !restricts(surface, grants) {
		return &hours{always: true}, nil
	}
	now := s.now()
	resp, err := s.agents.LookupWorkDays(inTenant(ctx, organization), &schedulingpb.LookupWorkDaysRequest{
		UserId: user, Time: timestamppb.New(now),
	})
	if err != nil {
		return nil, unanswered(ctx, "scheduling", "look up work days", err)
	}
	if resp.GetServiceAgentId() == "" {
		return &hours{always: true}, nil // the setting exists for service agents only
	}
	h := &hours{zone: resp.GetTimeZone()}
	h.start, h.end = openHours(resp.GetWorkDays(), bounds, now)
	return h, nil
}

// openHours returns the span around the work of days in which now is, or else the next one;
// zero if there is none. Spans that touch are one.
func openHours(days []*schedulingpb.WorkDay, bounds *permissionspb.LoginRestrictions, now time.Time) (start, end time.Time) {
	before := time.Duration(bounds.GetBeforeMinutes()) * time.Minute
	after := time.Duration(bounds.GetAfterMinutes()) * time.Minute
	for _, day := range days {
		from, to := day.GetStartTime().AsTime().Add(-before), day.GetEndTime().AsTime().Add(after)
		switch {
		case start.IsZero() || !now.Before(end): // the spans so far are over
			start, end = from, to
		case !from.After(end): // and so is none of them
			if from.Before(start) {
				start = from
			}
			if to.After(end) {
				end = to
			}
		}
	}
	if !now.Before(end) {
		return time.Time{}, time.Time{}
	}
	return start, end
}

// keepHours keeps with a session when it may be used, and nothing if that is always.
func keepHours(tx *store.Tx, session string, h *hours) error {
	if h == nil || h.always {
		sessionHours.Delete(tx, session)
		return nil
	}
	return sessionHours.Put(tx, h.record(session))
}

func (h *hours) record(session string) *identitystorepb.SessionHours {
	kept := &identitystorepb.SessionHours{Id: session, TimeZone: h.zone}
	if !h.start.IsZero() {
		kept.StartTime, kept.EndTime = timestamppb.New(h.start), timestamppb.New(h.end)
	}
	return kept
}

// hoursKept returns what was last found out about a session.
func hoursKept(tx *store.Tx, session string) (*hours, bool) {
	if session == "" {
		return nil, false
	}
	kept, ok := sessionHours.Get(tx, session)
	if !ok {
		return nil, false
	}
	h := &hours{zone: kept.GetTimeZone()}
	if kept.GetStartTime() != nil {
		h.start, h.end = kept.GetStartTime().AsTime(), kept.GetEndTime().AsTime()
	}
	return h, true
}

// hoursOfSession finds out when a session may be used, and keeps it. Where nobody can
// say, what was last found out goes on to count, which ends by itself.
func (s *service) hoursOfSession(ctx context.Context, session *pb.Session) (*hours, error) {
	id := session.GetId()
	if id == "" || session.GetActorId() != "" || session.GetSurface() == pb.Surface_SURFACE_WEB {
		return nil, nil
	}
	found, err := s.hoursOf(ctx, session.GetOrganizationId(), session.GetUserId(), session.GetSurface())
	kept, readErr := read(ctx, s, func(tx *store.Tx) (*hours, error) {
		h, _ := hoursKept(tx, id)
		return h, nil
	})
	switch {
	case readErr != nil:
		return nil, readErr
	case err != nil && kept != nil:
		return kept, nil
	case err != nil:
		return nil, err
	case kept != nil:
		kept.closed = found.closed // which is not kept
	}
	if kept == nil && found.always || kept != nil && *kept == *found {
		return found, nil
	}
	return found, s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		if !sessions.Has(tx, id) {
			return nil
		}
		return keepHours(tx, id, found)
	})
}

// hoursOfToken finds out when what is called by a token may be used.
func (s *service) hoursOfToken(ctx context.Context, id string) (*hours, error) {
	var session *pb.Session
	feed, err := read(ctx, s, func(tx *store.Tx) (*pb.CalendarConnection, error) {
		t, _ := tokens.Get(tx, id)
		session, _ = sessions.Get(tx, t.GetSessionId())
		feed, _ := calendars.Get(tx, t.GetSessionId())
		return feed, nil
	})
	switch {
	case err != nil:
		return nil, err
	case feed != nil:
		return s.hoursOfCalendar(ctx, feed)
	}
	return s.hoursOfSession(ctx, session)
}

// hoursAt is what counts for a subject: what was asked just now, or else what is kept with
// the session, or with that of whoever acts.
func hoursAt(tx *store.Tx, s subject) *hours {
	if s.hours != nil {
		return s.hours
	}
	for _, session := range []string{s.session, s.actorSession} {
		if h, ok := hoursKept(tx, session); ok {
			return h
		}
	}
	return &hours{always: true}
}

// surfaceClosed holds when somebody can have no session at all, as was found out just now.
func surfaceClosed(_ *store.Tx, s subject) bool { return s.hours != nil && s.hours.closed }

// outsideHours holds when a service agent may not use the app now.
func outsideHours(tx *store.Tx, s subject) bool { return !hoursAt(tx, s).cover(tx.Now()) }

// tellHours says when it may be used instead.
func tellHours(tx *store.Tx, s subject) error {
	h := hoursAt(tx, s)
	if h.start.IsZero() {
		return outsideWorkHours("you can use the app only around your work of the day, and none is planned for the next days", map[string]string{})
	}
	loc, err := time.LoadLocation(h.zone)
	if err != nil {
		loc = time.UTC // the zone is gone from a newer database
	}
	from, until := h.start.In(loc), h.end.In(loc)
	return outsideWorkHours(
		fmt.Sprintf("you can use the app only around your work of the day: from %s until %s (%s)",
			from.Format("2006-01-02 15:04"), until.Format("2006-01-02 15:04"), loc),
		map[string]string{"from": from.Format(time.RFC3339), "until": until.Format(time.RFC3339), "time_zone": loc.String()})
}

func outsideWorkHours(message string, metadata map[string]string) error {
	metadata["setting"] = "login_restrictions"
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_OUTSIDE_WORK_HOURS, message, metadata)
}

// isOutsideHours tells whether that is why somebody was refused.
func isOutsideHours(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Reason == faultpb.Reason_REASON_OUTSIDE_WORK_HOURS
}
