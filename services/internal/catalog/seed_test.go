package catalog

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shared finds a file of the project's founding documents, which lie in a folder
// "shared" beside or above the project, and skips the test if they do not.
func shared(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "shared", "seeds")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Skip("the founding documents (shared/seeds) are not here: nothing to compare with")
		}
		dir = filepath.Dir(dir)
	}
	p, err := os.ReadFile(filepath.Join(dir, "shared", filepath.FromSlash(name)))
	if os.IsNotExist(err) {
		t.Skipf("%s is not here: nothing to compare with", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

const (
	seedFile  = "seeds/serviceminder-user-permissions.txt"
	seedTable = "PermissionWhat it Controls"
)

// compareWithSeed returns what is in the seed's tables and not in keys, or the
// other way round.
//
// The seed was a page with tables and is now text: a row is a key with its
// explanation behind it, without a space, or on the next line. A line of a table
// is therefore a row if a known key stands at its beginning and is followed by
// nothing or by a capital letter; after a key that stands alone, one line
// explains it; and a line that is neither is a key which we do not have.
func compareWithSeed(text string, keys []Key) (problems []string) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	found := map[string]string{} // key to the section it was found in
	var order []string
	var section string
	inTable, explain := false, false
	for i, line := range strings.Split(text, "\n") {
		line = strings.Trim(line, " \t\r\u00a0")
		heading, isHeading := sectionOf(line)
		switch {
		case line == "":
		case line == seedTable:
			inTable, explain = true, false
		case isHeading || strings.HasPrefix(line, "*"):
			section, inTable = heading, false
		case !inTable:
		case explain:
			explain = false
		default:
			key, alone := rowOf(line, keys)
			if key == "" {
				complain("line %d is a permission that the catalog does not have: %q", i+1, line)
			} else if found[key] != "" {
				complain("line %d is a second row of %q: %q", i+1, key, line)
			}
			found[key], explain = section, alone
			order = append(order, key)
		}
	}
	for i, k := range keys {
		if found[k.Name] != k.Area {
			complain("%q of the area %q is in the seed's section %q", k.Name, k.Area, found[k.Name])
		} else if len(order) == len(keys) && order[i] != k.Name {
			complain("%q is in the place of %q", order[i], k.Name)
		}
	}
	return problems
}

// sectionOf returns the area that a heading of the seed begins.
func sectionOf(line string) (string, bool) {
	if name, ok := strings.CutPrefix(line, "Permissions for "); ok {
		return name, true
	}
	name, ok := strings.CutSuffix(line, " Permissions")
	return strings.ReplaceAll(name, "&", "and"), ok
}

// rowOf returns the longest key with which a row can begin, and whether nothing
// follows it.
func rowOf(line string, keys []Key) (key string, alone bool) {
	for _, k := range keys {
		rest, ok := strings.CutPrefix(line, k.Name)
		if ok && len(k.Name) > len(key) && (rest == "" || 'A' <= rest[0] && rest[0] <= 'Z') {
			key, alone = k.Name, rest == ""
		}
	}
	return key, alone
}

func seedKeys() []Key {
	var keys []Key
	for _, k := range Keys() {
		if k.Origin == Seed {
			keys = append(keys, k)
		}
	}
	return keys
}

func TestSeedKeysAreThoseOfTheSeed(t *testing.T) {
	for _, problem := range compareWithSeed(shared(t, seedFile), seedKeys()) {
		t.Error(problem)
	}
}

// The comparison would notice a key more or less, in every form a row can have.
func TestComparisonWithSeedNotices(t *testing.T) {
	text, keys := shared(t, seedFile), seedKeys()
	notices := func(what, text string, keys []Key) {
		if len(compareWithSeed(text, keys)) == 0 {
			t.Errorf("not noticed: %s", what)
		}
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.TrimSpace(line) != seedTable {
			continue
		}
		for _, row := range []string{
			"ExportsDownload everything.", "Exports\nDownload everything.", "Tasks:ReopenOpen a task again.",
			"Tasks:Reopen\nOpen a task again.", "TasksArchiveSee old tasks.", "App:KioskUse the app on a kiosk.",
		} {
			more := strings.Join(append(append(lines[:i+1:i+1], row), lines[i+1:]...), "\n")
			notices(fmt.Sprintf("row %q after line %d", row, i+1), more, keys)
		}
	}
	for i, k := range keys {
		without := append(keys[:i:i], keys[i+1:]...)
		notices("the catalog lacks "+k.Name, text, without)
	}
	first := slices.IndexFunc(lines, func(line string) bool { return strings.TrimSpace(line) == seedTable })
	for i := first; i < len(lines); i++ {
		if key, alone := rowOf(strings.TrimSpace(lines[i]), keys); key != "" && !alone && len(key) > 8 {
			notices("the seed lacks "+key, strings.Join(append(lines[:i:i], lines[i+1:]...), "\n"), keys)
		}
	}
	notices("a key in another section", text, moved(keys))
	notices("nothing at all", "", keys)
}

func moved(keys []Key) []Key {
	keys = slices.Clone(keys)
	keys[0].Area = "Contacts"
	return keys
}

func TestSettingsAreThoseOfTheSeed(t *testing.T) {
	text := shared(t, seedFile)
	count := 0
	for _, line := range strings.Split(text[:strings.Index(text, seedTable)], "\n") {
		if strings.HasPrefix(line, "SettingDescription") {
			count++
		}
	}
	if count != 2 {
		t.Errorf("the seed has %d tables of settings", count)
	}
	for _, s := range Settings() {
		if !strings.Contains(text, "\n"+s.Label) {
			t.Errorf("no line of the seed begins with the setting %q", s.Label)
		}
	}
}
