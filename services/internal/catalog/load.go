package catalog

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
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

// loader is a table while it is read.
type loader struct {
	table
	own    map[string]Set      // by role: the keys that catalog.tsv gives it
	unites map[string][]string // by role: the roles it is made of, if any
}

// load reads the four files and checks all that doc.go promises of them.
func load(fsys fs.FS) (*table, error) {
	t := &loader{
		table: table{
			grants:        map[string]Bit{},
			keyByFold:     map[string]int{},
			settingByFold: map[string]int{},
		},
		own:    map[string]Set{},
		unites: map[string][]string{},
	}
	for _, step := range []func(fs.FS) error{
		t.readFeatures, t.readSettings, t.readRoles, t.readKeys, t.link, t.unite,
	} {
		if err := step(fsys); err != nil {
			return nil, err
		}
	}
	return &t.table, nil
}

func (t *loader) readFeatures(fsys fs.FS) error {
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

func (t *loader) readSettings(fsys fs.FS) error {
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

func (t *loader) addSetting(s Setting) error {
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

func (t *loader) readKeys(fsys fs.FS) error {
	return eachRow(fsys, "catalog.tsv", keyHeader, func(r row) error {
		k := Key{
			Name: r.text(1), Area: r.text(3), Requires: r.list(4), AddOn: r.cells[5],
			Service: r.text(6), Title: r.text(8), Description: r.text(9),
		}
		k.Number = r.number(0, settingBase-1)
		k.Origin = Origin(r.oneOf(2, originNames...))
		roles := r.list(7)
		if r.err != nil {
			return r.err
		}
		if other, taken := t.keyByFold[fold(k.Name)]; taken {
			return fmt.Errorf("key %q can be confused with %q", k.Name, t.keys[other].Name)
		}
		t.keyByFold[fold(k.Name)] = len(t.keys)
		t.keys = append(t.keys, k)
		if err := t.register(k.Bit(), k.Name); err != nil {
			return err
		}
		return t.give(k, roles)
	})
}

// register gives a grant its bit. No bit is given twice, as the rows of each table
// come in order of number and each kind has its own range.
func (t *loader) register(b Bit, name string) error {
	if _, taken := t.grants[name]; taken {
		return fmt.Errorf("%q is there twice", name)
	}
	t.names[b] = name
	t.grants[name] = b
	t.known.Add(b)
	return nil
}

// link resolves, for every key, what it needs through the whole chain.
func (t *loader) link(fs.FS) error {
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
func (t *loader) collect(k Key, needs *Set, path []string) error {
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

func (t *loader) readRoles(fsys fs.FS) error {
	return eachRow(fsys, "roles.tsv", "code name unites description", func(r row) error {
		role := Role{Code: r.text(0), Name: r.text(1), Description: r.text(3)}
		parts := r.list(2)
		if _, taken := t.own[role.Code]; taken {
			r.fail("the code is there twice")
		}
		if r.err != nil {
			return r.err
		}
		t.own[role.Code] = Set{}
		t.unites[role.Code] = parts
		t.roles = append(t.roles, role)
		return nil
	})
}

// give hands out a key by the roles column of its row. A role that unites others
// may not stand there: it has exactly what they have.
func (t *loader) give(k Key, codes []string) error {
	if len(codes) == 1 && codes[0] == allRoles {
		codes = t.listable()
	}
	for _, code := range codes {
		if code == regionalManager {
			t.regional = append(t.regional, k.Name)
			continue
		}
		set, ok := t.own[code]
		if !ok || len(t.unites[code]) > 0 {
			return fmt.Errorf("no key can be given to the role %s", code)
		}
		set.Add(k.Bit())
		t.own[code] = set
	}
	return nil
}

// listable returns the roles that catalog.tsv may list.
func (t *loader) listable() []string {
	var codes []string
	for _, role := range t.roles {
		if len(t.unites[role.Code]) == 0 {
			codes = append(codes, role.Code)
		}
	}
	return codes
}

// unite completes the roles that are made of others, and names the keys of all.
func (t *loader) unite(fs.FS) error {
	for i, role := range t.roles {
		set := t.own[role.Code]
		for _, code := range t.unites[role.Code] {
			part, ok := t.own[code]
			if !ok || len(t.unites[code]) > 0 {
				return fmt.Errorf("role %s cannot unite %s", role.Code, code)
			}
			set = set.Union(part)
		}
		t.roles[i].Keys = t.namesOf(set)
	}
	return nil
}

func (t *table) namesOf(set Set) []string {
	var names []string
	for b := range set.All() {
		names = append(names, t.names[b])
	}
	return names
}
