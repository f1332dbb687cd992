package catalog

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

//go:embed catalog.tsv settings.tsv features.tsv roles.tsv
var files embed.FS

// regionalManager stands in the roles column of catalog.tsv for the setting of
// that name, and allRoles for every role.
const (
	regionalManager = "RM"
	allRoles        = "all"
)

// table is the parsed catalog with its indexes.
type table struct {
	keys     []Key
	settings []Setting
	features []Feature
	roles    []Role
	regional []string

	names         [setBits]string // name of each grant, "" where there is none
	grants        map[string]Bit
	keyByFold     map[string]int // index in keys
	settingByFold map[string]int // index in settings
	known         Set            // every grant
	gated         []Bit          // keys that need something, and
	needs         [setBits]Set   // what each needs, through the whole chain
}

// data is the catalog of this program.
var data = mustLoad()

func mustLoad() *table {
	t, err := load(files)
	if err != nil {
		panic("catalog: " + err.Error())
	}
	return t
}

// load reads the four files and checks all that doc.go promises of them.
func load(fsys fs.FS) (*table, error) {
	t := &table{
		grants:        map[string]Bit{},
		keyByFold:     map[string]int{},
		settingByFold: map[string]int{},
	}
	for _, step := range []func(fs.FS) error{t.readFeatures, t.readSettings, t.readKeys, t.link, t.readRoles} {
		if err := step(fsys); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *table) readFeatures(fsys fs.FS) error {
	return eachRow(fsys, "features.tsv", "number name title", func(r row) error {
		f := Feature{Name: r.text(1), Title: r.text(2)}
		f.Number = r.number(0, setBits-featureBase-1)
		if r.err != nil {
			return r.err
		}
		t.features = append(t.features, f)
		return t.register(f.Bit(), "feature:"+f.Name)
	})
}

func (t *table) readSettings(fsys fs.FS) error {
	const header = "number name label layer kind choices restricts title description"
	return eachRow(fsys, "settings.tsv", header, func(r row) error {
		s := Setting{Name: r.text(1), Label: r.text(2), Title: r.text(7), Description: r.text(8)}
		s.Number = r.number(0, featureBase-settingBase-1)
		s.Layer = []string{Standard, Schedule}[r.oneOf(3, Standard, Schedule)]
		s.Kind = Kind(r.oneOf(4, kindNames...))
		s.Choices = r.list(5)
		s.Restricts = r.oneOf(6, "no", "yes") == 1
		s.AgentOnly = s.Layer == Schedule
		if (s.Kind == Choice) != (len(s.Choices) > 1) {
			r.fail("choices belong to the kind choice, and to no other")
		}
		if r.err != nil {
			return r.err
		}
		return t.addSetting(s)
	})
}

func (t *table) addSetting(s Setting) error {
	i := len(t.settings)
	t.settings = append(t.settings, s)
	for _, name := range []string{s.Name, s.Label} {
		j, taken := t.settingByFold[foldSetting(name)]
		if taken && j != i {
			return fmt.Errorf("setting %q can be confused with %q", name, t.settings[j].Name)
		}
		t.settingByFold[foldSetting(name)] = i
	}
	if b, ok := s.Grant(); ok {
		return t.register(b, "setting:"+s.Name)
	}
	return nil
}

const keyHeader = "number key origin area requires add_on service roles title description"

func (t *table) readKeys(fsys fs.FS) error {
	return eachRow(fsys, "catalog.tsv", keyHeader, func(r row) error {
		k := Key{
			Name: r.text(1), Area: r.text(3), Requires: r.list(4), AddOn: r.cells[5],
			Service: r.text(6), Title: r.text(8), Description: r.text(9),
		}
		k.Number = r.number(0, settingBase)
		k.Origin = Origin(r.oneOf(2, originNames...))
		if r.err != nil {
			return r.err
		}
		if other, taken := t.keyByFold[fold(k.Name)]; taken {
			return fmt.Errorf("key %q can be confused with %q", k.Name, t.keys[other].Name)
		}
		t.keyByFold[fold(k.Name)] = len(t.keys)
		t.keys = append(t.keys, k)
		return t.register(k.Bit(), k.Name)
	})
}

// register gives a grant its bit. Rows must come in order of number, so a number
// that is used twice is found with it.
func (t *table) register(b Bit, name string) error {
	if t.names[b] != "" {
		return fmt.Errorf("%q has the number of %q", name, t.names[b])
	}
	if _, taken := t.grants[name]; taken {
		return fmt.Errorf("%q is there twice", name)
	}
	t.names[b] = name
	t.grants[name] = b
	t.known.Add(b)
	return nil
}

// link resolves, for every key, what it needs through the whole chain.
func (t *table) link(fs.FS) error {
	for _, k := range t.keys {
		var needs Set
		if err := t.collect(k, &needs, nil); err != nil {
			return err
		}
		if !needs.Empty() {
			t.needs[k.Bit()] = needs
			t.gated = append(t.gated, k.Bit())
		}
	}
	return nil
}

// collect adds to needs what k needs. Path is the keys on the way down to k.
func (t *table) collect(k Key, needs *Set, path []string) error {
	if slices.Contains(path, k.Name) {
		return fmt.Errorf("%q requires itself", k.Name)
	}
	if k.AddOn != "" {
		feature, ok := t.grants["feature:"+k.AddOn]
		if !ok {
			return fmt.Errorf("%q has the unknown add-on %q", k.Name, k.AddOn)
		}
		needs.Add(feature)
	}
	for _, name := range k.Requires {
		i, ok := t.keyByFold[fold(name)]
		if !ok || t.keys[i].Name != name {
			return fmt.Errorf("%q requires the unknown key %q", k.Name, name)
		}
		needs.Add(t.keys[i].Bit())
		if err := t.collect(t.keys[i], needs, append(path, k.Name)); err != nil {
			return err
		}
	}
	return nil
}

// readRoles reads the roles, then hands out the keys by the roles column of
// catalog.tsv. A role that unites others is listed there for no key: it has
// exactly what they have.
func (t *table) readRoles(fsys fs.FS) error {
	own := map[string]Set{}
	unites := map[string][]string{}
	err := eachRow(fsys, "roles.tsv", "code name unites description", func(r row) error {
		role := Role{Code: r.text(0), Name: r.text(1), Description: r.text(3)}
		if _, taken := own[role.Code]; taken {
			r.fail("the code is there twice")
		}
		if r.err != nil {
			return r.err
		}
		own[role.Code] = Set{}
		unites[role.Code] = r.list(2)
		t.roles = append(t.roles, role)
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.readDefaults(fsys, own, unites); err != nil {
		return err
	}
	for i, role := range t.roles {
		set := own[role.Code]
		for _, code := range unites[role.Code] {
			part, ok := own[code]
			if !ok || len(unites[code]) > 0 {
				return fmt.Errorf("role %s cannot unite %s", role.Code, code)
			}
			set = set.Union(part)
		}
		t.roles[i].Keys = t.namesOf(set)
	}
	return nil
}

// readDefaults fills own with the keys that catalog.tsv gives to each role.
func (t *table) readDefaults(fsys fs.FS, own map[string]Set, unites map[string][]string) error {
	give := func(code string, b Bit) {
		set := own[code]
		set.Add(b)
		own[code] = set
	}
	i := -1
	return eachRow(fsys, "catalog.tsv", keyHeader, func(r row) error {
		i++
		key := t.keys[i]
		codes := r.list(7)
		if len(codes) == 1 && codes[0] == allRoles {
			for code := range own {
				give(code, key.Bit())
			}
			return nil
		}
		for _, code := range codes {
			_, ok := own[code]
			switch {
			case code == regionalManager:
				t.regional = append(t.regional, key.Name)
			case !ok || len(unites[code]) > 0:
				return fmt.Errorf("no key can be given to the role %s", code)
			default:
				give(code, key.Bit())
			}
		}
		return nil
	})
}

func (t *table) namesOf(set Set) []string {
	var names []string
	for b := range set.All() {
		names = append(names, t.names[b])
	}
	return names
}

// row is one line of a table. The first thing wrong with it is kept in err.
type row struct {
	cells []string
	err   error
}

func (r *row) fail(why string) {
	if r.err == nil {
		r.err = errors.New(why)
	}
}

// text returns a cell that may not be empty.
func (r *row) text(i int) string {
	if r.cells[i] == "" {
		r.fail(fmt.Sprintf("column %d is empty", i+1))
	}
	return r.cells[i]
}

// number returns a cell that must be a number from 1 to most.
func (r *row) number(i, most int) int {
	n, err := strconv.Atoi(r.cells[i])
	if err != nil || n < 1 || n > most || strconv.Itoa(n) != r.cells[i] {
		r.fail(fmt.Sprintf("%q is not a number from 1 to %d", r.cells[i], most))
		return 0
	}
	return n
}

// oneOf returns which of the words a cell is.
func (r *row) oneOf(i int, words ...string) int {
	n := slices.Index(words, r.cells[i])
	if n < 0 {
		r.fail(fmt.Sprintf("%q is none of %q", r.cells[i], words))
		return 0
	}
	return n
}

// list returns the parts of a cell, which are separated by commas.
func (r *row) list(i int) []string {
	if r.cells[i] == "" {
		return nil
	}
	parts := strings.Split(r.cells[i], ",")
	for j, p := range parts {
		if p == "" || p != strings.TrimSpace(p) || slices.Contains(parts[:j], p) {
			r.fail(fmt.Sprintf("%q is not a list of different words", r.cells[i]))
		}
	}
	return parts
}

// eachRow calls f for each line after the header. The lines must be in the order
// of the number in their first column, if it is one.
func eachRow(fsys fs.FS, name, header string, f func(row) error) error {
	content, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	if lines[0] != strings.ReplaceAll(header, " ", "\t") {
		return fmt.Errorf("%s: the header is %q", name, lines[0])
	}
	columns, last := strings.Count(lines[0], "\t")+1, 0
	for i, line := range lines[1:] {
		r := row{cells: strings.Split(line, "\t")}
		err := r.checkForm(columns, &last)
		if err == nil {
			err = f(r)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, i+2, err)
		}
	}
	return nil
}

func (r *row) checkForm(columns int, last *int) error {
	if len(r.cells) != columns {
		return fmt.Errorf("%d columns instead of %d", len(r.cells), columns)
	}
	for _, c := range r.cells {
		if c != strings.Join(strings.Fields(c), " ") {
			return fmt.Errorf("stray blanks in %q", c)
		}
	}
	if n, err := strconv.Atoi(r.cells[0]); err == nil {
		if n <= *last {
			return fmt.Errorf("number %d does not follow %d", n, *last)
		}
		*last = n
	}
	return nil
}
