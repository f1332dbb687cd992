package server

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// seriesName is what the names of the files of a backup and its segments begin with: when the
// backup was begun.
const seriesName = "20060102T150405.000000000Z"

func backupName(series string) string { return series + ".backup" }

// segmentName is the name of a segment. The first try to write it is 1.
func segmentName(series string, place, try int) string {
	if try > 1 {
		return fmt.Sprintf("%s.%09d-%d.segment", series, place, try)
	}
	return fmt.Sprintf("%s.%09d.segment", series, place)
}

// fileName matches the names above: series, and of a segment place and try.
var fileName = regexp.MustCompile(`^(\d{8}T\d{6}\.\d{9}Z)\.(?:backup|(\d{9,})(?:-(\d+))?\.segment)$`)

// series is a backup and the segments that continue it.
type series struct {
	name     string
	begun    time.Time
	backup   string      // its name; empty if it is not there
	segments map[int]int // the last try to write each, which has all that those before it had
	last     int         // segment
	all      []string    // names of all its files, the backup's first
}

// seriesOf returns the series that files belong to, in the order of their beginning.
func seriesOf(names []string) (all []*series) {
	found := map[string]*series{}
	for _, name := range names {
		m := fileName.FindStringSubmatch(whole(name))
		if m == nil {
			continue
		}
		begun, err := time.Parse(seriesName, m[1])
		if err != nil {
			continue
		}
		s := found[m[1]]
		if s == nil {
			s = &series{name: m[1], begun: begun, segments: map[int]int{}}
			found[m[1]] = s
		}
		s.add(name, m[2], m[3])
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		all = append(all, found[name])
	}
	return all
}

// whole returns the name that a file gets when it is whole.
func whole(name string) string {
	if hidden, ok := strings.CutPrefix(name, "."); ok {
		name, _, _ = strings.Cut(hidden, partInfix)
	}
	return name
}

func (s *series) add(name, place, try string) {
	switch {
	case whole(name) != name:
	case place == "":
		s.backup = name
		s.all = slices.Insert(s.all, 0, name)
		return
	default:
		n, _ := strconv.Atoi(place) // they are digits
		t, _ := strconv.Atoi(try)
		s.segments[n] = max(s.segments[n], t, 1)
		s.last = max(s.last, n)
	}
	s.all = append(s.all, name)
}

// files returns what is to be restored, in order. A segment that is missing is named.
func (s *series) files() []string {
	names := []string{s.backup}
	for n := 1; n <= s.last; n++ {
		names = append(names, segmentName(s.name, n, s.segments[n]))
	}
	return names
}

// isCut reports whether a segment is missing though there are later ones.
func (s *series) isCut() bool { return len(s.segments) < s.last }

// pick returns the series by which to go to an instant, zero being the end, and the one that
// follows it; nil if there is none.
func pick(all []*series, at time.Time) (one, next *series) {
	for _, s := range all {
		switch {
		case s.backup == "":
		case one == nil || at.IsZero() || !s.begun.After(at):
			one = s
		case next == nil:
			next = s
		}
	}
	return one, next
}

// outdated returns the files that are not needed to go back to an instant, or to later ones:
// those of all series before the last that was begun by then.
func outdated(names []string, before time.Time) (old []string) {
	all := seriesOf(names)
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].backup != "" && !all[i].begun.After(before) {
			for _, s := range all[:i] {
				old = append(old, s.all...)
			}
			break
		}
	}
	return old
}
