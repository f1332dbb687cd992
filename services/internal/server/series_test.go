package server_test

import (
	"slices"
	"testing"
	"time"

	"latchkey.dev/services/internal/server"
)

// The files of three backups, of which the second has a segment that was tried three times and lacks
// one, and the third is gone but for a segment.
var shelved = []string{
	"20260301T080000.000000000Z.000000001.segment", "20260301T080000.000000000Z.backup",
	"20260302T080000.000000000Z.000000001-3.segment", "20260302T080000.000000000Z.000000001.segment",
	"20260302T080000.000000000Z.000000003.segment", "20260302T080000.000000000Z.backup",
	"20260303T080000.000000000Z.000000001.segment",
	".20260301T080000.000000000Z.000000002.segment.part-12", "notes.txt", "20269999T080000.000000000Z.backup", "20260304T080000.000000000Z.backup.old",
	"20260305T080000.000000000Z.backup",
}

func day(n, hour int) time.Time { return time.Date(2026, 3, n, hour, 0, 0, 0, time.UTC) }

func TestFilesOfInstant(t *testing.T) {
	first := []string{"20260301T080000.000000000Z.backup", "20260301T080000.000000000Z.000000001.segment"}
	second := []string{
		"20260302T080000.000000000Z.backup", "20260302T080000.000000000Z.000000001-3.segment",
		"20260302T080000.000000000Z.000000002.segment", "20260302T080000.000000000Z.000000003.segment",
	}
	last := []string{"20260305T080000.000000000Z.backup"}
	for _, c := range []struct {
		at    time.Time
		files []string
		next  string
	}{
		{time.Time{}, last, ""},
		{day(1, 7), first, second[0]},
		{day(1, 8), first, second[0]},
		{day(2, 7), first, second[0]},
		{day(2, 8), second, last[0]},
		{day(4, 8), second, last[0]},
		{day(9, 8), last, ""},
	} {
		if files, next := server.FilesAt(shelved, c.at); !slices.Equal(files, c.files) || next != c.next {
			t.Errorf("at %v: got %v and then %q, want %v and then %q", c.at, files, next, c.files, c.next)
		}
	}
	if files, next := server.FilesAt(nil, day(1, 1)); files != nil || next != "" {
		t.Errorf("of nothing: got %v and then %q", files, next)
	}
}

func TestOutdated(t *testing.T) {
	first := []string{shelved[1], shelved[0], shelved[7]}
	for _, c := range []struct {
		before time.Time
		want   []string
	}{
		{day(1, 7), nil}, {day(1, 8), nil}, {day(2, 7), nil},
		{day(2, 8), first}, {day(4, 8), first},
		{day(5, 8), append(slices.Clone(first), shelved[5], shelved[2], shelved[3], shelved[4], shelved[6])},
	} {
		if got := server.Outdated(shelved, c.before); !slices.Equal(got, c.want) {
			t.Errorf("before %v: got %v, want %v", c.before, got, c.want)
		}
	}
}
