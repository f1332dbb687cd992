package catalog

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// specRows returns the rows of a table of the specification, by column.
func specRows(t *testing.T, name string) []map[string]string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(shared(t, name)), "\n")
	header := strings.Split(lines[0], "\t")
	var rows []map[string]string
	for _, line := range lines[1:] {
		cells, row := strings.Split(line, "\t"), map[string]string{}
		if len(cells) != len(header) {
			t.Fatalf("%s: %d cells in %q", name, len(cells), line)
		}
		for i, h := range header {
			row[h] = cells[i]
		}
		rows = append(rows, row)
	}
	return rows
}

func TestKeysAreThoseOfTheSpecification(t *testing.T) {
	keys, rows := Keys(), specRows(t, "spec/catalog.tsv")
	if len(keys) != len(rows) {
		t.Fatalf("%d keys, the specification has %d", len(keys), len(rows))
	}
	for i, k := range keys {
		r := rows[i]
		service, _, _ := strings.Cut(r["service"], " ")
		got := []string{
			strconv.Itoa(k.Number), k.Name, k.Origin.String(), k.Area, strings.Join(k.Requires, ","), k.AddOn, k.Service,
		}
		want := []string{r["number"], r["key"], r["origin"], r["area"], r["requires"], r["add_on"], service}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The roles grant what the specification says, PM+ too, which is derived here and
// listed there. "(own)" limits rows and not the key.
func TestRolesAreThoseOfTheSpecification(t *testing.T) {
	sets := map[string]Set{"RM": mustSet(RegionalManagerKeys())}
	for _, r := range Roles() {
		sets[r.Code] = r.Set()
	}
	for _, r := range specRows(t, "spec/catalog.tsv") {
		marks := strings.Fields(strings.ReplaceAll(r["default roles"], "(own)", ""))
		for code, set := range sets {
			want := slices.Contains(marks, code) || slices.Contains(marks, allRoles) && code != "RM"
			if got := set.Has(MustGrant(r["key"])); got != want {
				t.Errorf("%s has %s: got %v, want %v", code, r["key"], got, want)
			}
		}
		for _, code := range marks {
			if _, ok := sets[code]; !ok && code != allRoles {
				t.Errorf("%s: no role %q", r["key"], code)
			}
		}
	}
}

func TestSettingsAreThoseOfTheSpecification(t *testing.T) {
	settings, rows := Settings(), specRows(t, "spec/settings.tsv")
	if len(settings) != len(rows) {
		t.Fatalf("%d settings, the specification has %d", len(settings), len(rows))
	}
	for i, s := range settings {
		r := rows[i]
		label, _, _ := strings.Cut(r["setting"], " (")
		layer := map[string]string{"Standard": Standard, "Schedule/Inventory": Schedule}[r["layer"]]
		got := []string{strconv.Itoa(s.Number), s.Label, s.Layer}
		if want := []string{r["number"], label, layer}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Our texts are our own: no sentence of the founding documents, and no six words
// that stand in a row in one of them.
func TestTextsAreOurOwn(t *testing.T) {
	const run = 6
	sentences, runs := map[string]bool{}, map[string]bool{}
	for _, name := range []string{
		seedFile, "seeds/servusconnect-user-roles.txt", "spec/catalog.tsv", "spec/settings.tsv", "spec/product.md",
	} {
		text := shared(t, name)
		for _, s := range sentencesOf(text) {
			sentences[s] = true
		}
		words := wordsOf(text)
		for i := range max(0, len(words)-run+1) {
			runs[strings.Join(words[i:i+run], " ")] = true
		}
	}
	check := func(name, text string) {
		for _, s := range sentencesOf(text) {
			if sentences[s] {
				t.Errorf("%s: not our own: %q", name, s)
			}
		}
		words := wordsOf(text)
		for i := range max(0, len(words)-run+1) {
			if s := strings.Join(words[i:i+run], " "); runs[s] {
				t.Errorf("%s: not our own: %q", name, s)
			}
		}
	}
	for _, k := range Keys() {
		check(k.Name, k.Description)
	}
	for _, s := range Settings() {
		check(s.Name, s.Description)
	}
	for _, r := range Roles() {
		check(r.Code, r.Description)
	}
}

func wordsOf(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9')
	})
}

func sentencesOf(text string) []string {
	var all []string
	for _, s := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(".;:!?\n\t|", r) }) {
		if words := wordsOf(s); len(words) > 0 {
			all = append(all, strings.Join(words, " "))
		}
	}
	return all
}
