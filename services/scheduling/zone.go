package scheduling

import (
	"time"
	_ "time/tzdata" // the image has no zones of its own

	"latchkey.dev/services/internal/fault"
)

// zone returns the time zone with a name of the IANA database.
func zone(name, field string) (*time.Location, error) {
	loc, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return nil, fault.Invalid(field, `must be the name of a time zone of the IANA database, such as "Europe/Berlin"`)
	}
	return loc, nil
}

// startOfDay returns the first instant of the day that lies days after that of t, in
// the zone of loc. Midnight may come twice there, or never.
func startOfDay(t time.Time, days int, loc *time.Location) time.Time {
	first, _ := shown(civil(t, days, loc), loc)
	return first
}

// civil returns midnight, as clocks show it, of the day that lies days after that of t.
func civil(t time.Time, days int, loc *time.Location) time.Time {
	year, month, day := t.In(loc).Date()
	return time.Date(year, month, day+days, 0, 0, 0, 0, time.UTC)
}

// shown returns the first and the last instant at which clocks in the zone of loc show a
// time, or both times when they are put forward over it. The time is written as if it
// were one of UTC.
func shown(clock time.Time, loc *time.Location) (first, last time.Time) {
	// No zone is more than 15 hours ahead of UTC, so the time has not come here.
	at := clock.Add(-15 * time.Hour).In(loc)
	for {
		_, offset := at.Zone()
		_, end := at.ZoneBounds()
		start := clock.Add(-time.Duration(offset) * time.Second)
		skipped := start.Before(at) // clocks were put forward over it, or it came before
		if skipped && !first.IsZero() {
			return first, last
		}
		if skipped {
			start = at
		}
		if end.IsZero() || start.Before(end) {
			if first.IsZero() {
				first = start.UTC()
			}
			last = start.UTC()
			if skipped || end.IsZero() || end.Sub(start) > 24*time.Hour {
				return first, last
			}
		}
		at = end
	}
}
