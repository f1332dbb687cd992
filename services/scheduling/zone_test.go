package scheduling

import (
	"testing"
	"time"
)

// TestStartOfDayIsTheFirstInstant walks the days of four years in zones whose clocks
// change at various times, some at midnight, one over a whole day.
func TestStartOfDayIsTheFirstInstant(t *testing.T) {
	for _, name := range []string{
		"UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "Australia/Lord_Howe",
		"America/Sao_Paulo", "America/Havana", "Asia/Beirut", "Africa/Cairo", "Pacific/Apia", "Pacific/Kiritimati", "Etc/GMT+12",
	} {
		loc, err := zone(name, "time_zone")
		if err != nil {
			t.Fatal(err)
		}
		for _, year := range []int{2011, 2017, 2018, 2025} {
			for day := range 366 {
				noon := time.Date(year, 1, 1+day, 12, 0, 0, 0, loc)
				for _, ahead := range []int{0, 1, 8} {
					want := dayNumber(time.Date(year, 1, 1+day+ahead, 0, 0, 0, 0, time.UTC))
					got := startOfDay(noon, ahead, loc)
					if dayNumber(noon) != dayNumber(time.Date(year, 1, 1+day, 0, 0, 0, 0, time.UTC)) {
						continue // the day does not exist there
					}
					if at, before := dayNumber(got.In(loc)), dayNumber(got.Add(-1).In(loc)); at < want || before >= want {
						t.Errorf("startOfDay(%v, %d): got %v, where it is day %d, and %d just before; want the first instant of day %d",
							noon, ahead, got.In(loc), at, before, want)
					}
				}
			}
		}
	}
}

// dayNumber makes the date that clocks show comparable.
func dayNumber(t time.Time) int {
	year, month, day := t.Date()
	return year*10000 + int(month)*100 + day
}

func TestZoneRefusesWhatIsNoName(t *testing.T) {
	for _, name := range []string{"", "Local", "Europe/Atlantis", "../etc/passwd", "CET+3"} {
		if loc, err := zone(name, "time_zone"); err == nil {
			t.Errorf("zone(%q): got %v, want an error", name, loc)
		}
	}
}
