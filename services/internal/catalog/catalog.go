package catalog

import (
	"slices"
	"strings"
)

// Origin tells where a key comes from.
type Origin int

// Seed keys are those of the product's founding documents; Extension keys were
// added for what those documents describe without a key.
const (
	Seed Origin = iota
	Extension
)

// Kind is the type of the value of a setting.
type Kind int

// The kinds. A Bool setting is also a grant. Minutes is two counts, before and
// after. User is the id of a user, or empty.
const (
	Bool Kind = iota
	Choice
	Days
	User
	Minutes
)

// The layers of settings.
const (
	Standard = "standard" // for every user
	Schedule = "schedule" // for users who are linked to a service agent
)

// Key is one permission key.
type Key struct {
	Number      int
	Name        string   // "Organization: Custom Fields", byte for byte
	Area        string   // the section of the catalog it is shown in
	Title       string   // a few words
	Description string   // what a holder can do that others cannot
	Requires    []string // direct parents; the key counts only if they count
	AddOn       string   // feature of the plan it belongs to, or empty
	Origin      Origin
	Service     string // the service that owns what it guards
}

// Bit returns the place of the key in a Set.
func (k Key) Bit() Bit { return Bit(k.Number) }

// Setting is one setting of a user.
type Setting struct {
	Number      int
	Name        string // "see_pricing"; if Bool, the grant is "setting:see_pricing"
	Label       string // what operators know it by: "Pricing"
	Title       string
	Description string
	Layer       string // Standard or Schedule
	Kind        Kind
	AgentOnly   bool     // exists only for users linked to a service agent
	Restricts   bool     // switching it on takes something away
	Choices     []string // if Choice: its values, from the least to the most
}

// Grant returns the place of the setting in a Set, and false if the setting is
// not boolean and so is no grant.
func (s Setting) Grant() (Bit, bool) { return Bit(settingBase + s.Number), s.Kind == Bool }

// Feature is an add-on that an organization's plan may include.
type Feature struct {
	Number      int
	Name, Title string
}

// Bit returns the place of the feature in a Set.
func (f Feature) Bit() Bit { return Bit(featureBase + f.Number) }

// Role is a built-in role with the keys it grants by default. An organization
// may change them.
type Role struct {
	Code        string // "OA"
	Name        string // "Org Admin"
	Description string
	Keys        []string // in order of their numbers
}

// Set returns the keys of the role.
func (r Role) Set() Set { return mustSet(r.Keys) }

// Keys returns every key in order of number. As with all that this package
// returns, the caller may change the copy.
func Keys() []Key {
	keys := slices.Clone(data.keys)
	for i := range keys {
		keys[i] = keys[i].clone()
	}
	return keys
}

// Settings returns every setting in order of number.
func Settings() []Setting {
	settings := slices.Clone(data.settings)
	for i := range settings {
		settings[i] = settings[i].clone()
	}
	return settings
}

// Features returns every add-on feature in order of number.
func Features() []Feature { return slices.Clone(data.features) }

// Roles returns the built-in roles: OA OW US SW SA PM SP PM+ BA.
func Roles() []Role {
	roles := slices.Clone(data.roles)
	for i := range roles {
		roles[i] = roles[i].clone()
	}
	return roles
}

// RegionalManagerKeys returns the keys that the Regional Manager setting adds on
// top of PM or PM+: insights over every property, and nothing else. It is no role.
func RegionalManagerKeys() []string { return slices.Clone(data.regional) }

// Lookup finds a key by what a person typed: case and blanks do not matter.
// Nothing that decides about access may use it; see Grant.
func Lookup(name string) (Key, bool) {
	i, ok := data.keyByFold[fold(name)]
	if !ok {
		return Key{}, false
	}
	return data.keys[i].clone(), true
}

// LookupSetting finds a setting by its name or its label; case, blanks and
// underscores do not matter.
func LookupSetting(name string) (Setting, bool) {
	i, ok := data.settingByFold[foldSetting(name)]
	if !ok {
		return Setting{}, false
	}
	return data.settings[i].clone(), true
}

// LookupRole finds a built-in role by its code, spelled exactly.
func LookupRole(code string) (Role, bool) {
	for _, r := range data.roles {
		if r.Code == code {
			return r.clone(), true
		}
	}
	return Role{}, false
}

// KeyByNumber finds a key by its number.
func KeyByNumber(n int) (Key, bool) {
	i, ok := slices.BinarySearchFunc(data.keys, n, func(k Key, n int) int { return k.Number - n })
	if !ok {
		return Key{}, false
	}
	return data.keys[i].clone(), true
}

// Grant finds a grant by its exact spelling: a key, "setting:" and the name of a
// boolean setting, or "feature:" and the name of a feature.
func Grant(name string) (Bit, bool) {
	b, ok := data.grants[name]
	return b, ok
}

// MustGrant is Grant for names written in the program; it panics if there is
// no such grant.
func MustGrant(name string) Bit {
	b, ok := Grant(name)
	if !ok {
		panic("catalog: " + name + " is not a grant")
	}
	return b
}

func mustSet(names []string) Set {
	s, err := SetOf(names...)
	if err != nil {
		panic("catalog: " + err.Error())
	}
	return s
}

func (k Key) clone() Key {
	k.Requires = slices.Clone(k.Requires)
	return k
}

func (s Setting) clone() Setting {
	s.Choices = slices.Clone(s.Choices)
	return s
}

func (r Role) clone() Role {
	r.Keys = slices.Clone(r.Keys)
	return r
}

// String returns "SEED" or "EXTENSION".
func (o Origin) String() string { return originNames[o] }

// String returns the kind as it stands in settings.tsv.
func (k Kind) String() string { return kindNames[k] }

var (
	originNames = []string{Seed: "SEED", Extension: "EXTENSION"}
	kindNames   = []string{Bool: "bool", Choice: "choice", Days: "days", User: "user", Minutes: "minutes"}
)

// fold makes spellings equal that differ in case and blanks. Only ASCII letters
// are folded: the catalog has no others, and a look-alike must not match.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\u00a0':
			return -1
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return r
	}, name)
}

func foldSetting(name string) string { return strings.ReplaceAll(fold(name), "_", "") }
