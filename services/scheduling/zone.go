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
	year, month, day := t.In(loc).Date()
	midnight := time.Date(year, month, day+days, 0, 0, 0, 0, time.UTC) // as clocks show it
	// No zone is more than 15 hours ahead of UTC, so the day has not begun here.
	at := midnight.Add(-15 * time.Hour).In(loc)
	for {
		_, offset := at.Zone()
		_, end := at.ZoneBounds()
		start := midnight.Add(-time.Duration(offset) * time.Second)
		if start.Before(at) {
			start = at // clocks were put forward over midnight
		}
		if end.IsZero() || start.Before(end) {
			return start.UTC()
		}
		at = end
	}
}
