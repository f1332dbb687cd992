package catalog

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestCounts(t *testing.T) {
	origins := map[Origin]int{}
	for _, k := range Keys() {
		origins[k.Origin]++
	}
	got := []int{len(Keys()), origins[Seed], origins[Extension], len(Settings()), len(Features()), len(Roles())}
	if want := []int{171, 112, 59, 16, 7, 9}; !slices.Equal(got, want) {
		t.Errorf("keys, of the seed, extensions, settings, features, roles: got %v, want %v", got, want)
	}
	for _, s := range Settings() {
		if s.AgentOnly != (s.Number >= 9) {
			t.Errorf("setting %d %s: only for agents: %v", s.Number, s.Name, s.AgentOnly)
		}
	}
}

// Sets of grants are stored and sent by number, so a number never changes its
// meaning. A new grant is appended to the golden list by hand, with a number that
// was never used; a line of it is never changed or taken out.
func TestNumbersNeverChange(t *testing.T) {
	want, err := os.ReadFile("testdata/numbers.golden")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, k := range Keys() {
		fmt.Fprintf(&got, "key %d %s\n", k.Number, k.Name)
	}
	for _, s := range Settings() {
		fmt.Fprintf(&got, "setting %d %s\n", s.Number, s.Name)
	}
	for _, f := range Features() {
		fmt.Fprintf(&got, "feature %d %s\n", f.Number, f.Name)
	}
	have, should := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	for _, line := range should {
		if !slices.Contains(have, line) {
			t.Errorf("gone from the catalog: %s", line)
		}
	}
	for _, line := range have {
		if !slices.Contains(should, line) {
			t.Errorf("not in the golden list: %s", line)
		}
	}
}

func TestRequiresIsAcyclic(t *testing.T) {
	keys := map[string]Key{}
	for _, k := range Keys() {
		keys[k.Name] = k
	}
	for name := range keys {
		for at, steps := []string{name}, 0; len(at) > 0; steps++ {
			if steps > len(keys) {
				t.Fatalf("%s requires itself", name)
			}
			k, ok := keys[at[0]]
			if !ok {
				t.Fatalf("%s requires %s, which does not exist", name, at[0])
			}
			at = append(at[1:], k.Requires...)
		}
	}
}

// No two names may be one to a reader who ignores case, blanks and underscores.
func TestNamesCannotBeConfused(t *testing.T) {
	seen := map[string]string{}
	add := func(name string) {
		if other, taken := seen[foldSetting(name)]; taken {
			t.Errorf("%q can be confused with %q", name, other)
		}
		seen[foldSetting(name)] = name
	}
	for _, k := range Keys() {
		add(k.Name)
	}
	for _, s := range Settings() {
		add(s.Name)
	}
	for _, r := range Roles() {
		add(r.Code)
	}
	if len(seen) != 171+16+9 {
		t.Errorf("%d names", len(seen))
	}
}

// Guards in .proto files, ErrorInfo details and the tables are plain text.
func TestNamesArePlain(t *testing.T) {
	for name := range data.grants {
		for _, r := range name {
			if r < ' ' || r > '~' || r == '"' || r == ',' {
				t.Errorf("%q contains %q", name, r)
			}
		}
	}
	for _, k := range Keys() {
		if strings.HasPrefix(fold(k.Name), "setting:") || strings.HasPrefix(fold(k.Name), "feature:") {
			t.Errorf("the key %q looks like another kind of grant", k.Name)
		}
	}
}

func TestLookup(t *testing.T) {
	for _, k := range Keys() {
		spread := strings.Join(strings.Split(k.Name, ""), " ")
		for _, typed := range []string{k.Name, strings.ToUpper(k.Name), strings.ToLower(k.Name), "\t" + spread + "\n"} {
			if got, ok := Lookup(typed); !ok || !reflect.DeepEqual(got, k) {
				t.Errorf("%q found %q, %v", typed, got.Name, ok)
			}
		}
		if got, ok := KeyByNumber(k.Number); !ok || !reflect.DeepEqual(got, k) {
			t.Errorf("%d found %q, %v", k.Number, got.Name, ok)
		}
	}
	if k, _ := Lookup("organization:custom fields"); k.Name != "Organization: Custom Fields" {
		t.Errorf("found %q", k.Name)
	}
	// The last has the sign for kelvin in it, which Unicode folds to a k.
	for _, typed := range []string{"", " ", "Invoices:", "setting:see_pricing", "Tas\u212as"} {
		if k, ok := Lookup(typed); ok {
			t.Errorf("%q found %q", typed, k.Name)
		}
	}
	for _, n := range []int{-1, 0, 113, 200, 260, 265, 1 << 40} {
		if k, ok := KeyByNumber(n); ok {
			t.Errorf("%d found %q", n, k.Name)
		}
	}
}

func TestLookupSetting(t *testing.T) {
	for _, s := range Settings() {
		for _, typed := range []string{s.Name, s.Label, strings.ToUpper(s.Label), strings.ReplaceAll(s.Name, "_", " ")} {
			if got, ok := LookupSetting(typed); !ok || !reflect.DeepEqual(got, s) {
				t.Errorf("%q found %q, %v", typed, got.Name, ok)
			}
		}
	}
	if s, ok := LookupSetting("Invoices"); ok {
		t.Errorf("a key found the setting %q", s.Name)
	}
}

func TestLookupRole(t *testing.T) {
	for _, r := range Roles() {
		if got, ok := LookupRole(r.Code); !ok || !reflect.DeepEqual(got, r) {
			t.Errorf("%q found %q, %v", r.Code, got.Code, ok)
		}
	}
	for _, code := range []string{"", "RM", "pm", "PM ", "all"} {
		if r, ok := LookupRole(code); ok {
			t.Errorf("%q found %q", code, r.Code)
		}
	}
}

// SECURITY: what decides about access is spelled exactly, or is nothing.
func TestGrantIsExact(t *testing.T) {
	for name, b := range data.grants {
		if got, ok := Grant(name); !ok || got != b || b.String() != name {
			t.Errorf("%q is bit %d, which is %q", name, got, b)
		}
		for _, wrong := range []string{strings.ToUpper(name), " " + name, name + " ", strings.ToLower(name)} {
			if _, ok := Grant(wrong); ok && wrong != name {
				t.Errorf("%q was taken for %q", wrong, name)
			}
		}
	}
	for _, s := range Settings() {
		if _, ok := Grant("setting:" + s.Name); ok != (s.Kind == Bool) {
			t.Errorf("setting %s of kind %v: a grant: %v", s.Name, s.Kind, ok)
		}
		if b, ok := s.Grant(); ok && b.String() != "setting:"+s.Name {
			t.Errorf("setting %s has the bit of %s", s.Name, b)
		}
	}
	for _, name := range []string{"", "see_pricing", "setting:search_scope", "setting:", "feature:", "routing", "unknown:113"} {
		if b, ok := Grant(name); ok {
			t.Errorf("%q is bit %d", name, b)
		}
	}
	if got := Bit(113).String(); got != "unknown:113" {
		t.Errorf("bit 113 is %q", got)
	}
}

// What callers get is theirs: changing it changes nothing here.
func TestCallersCannotChangeTheCatalog(t *testing.T) {
	Keys()[1].Name = "x"
	narrow, _ := Lookup("Invoices:Void")
	narrow.Requires[0] = "x"
	again, _ := KeyByNumber(narrow.Number)
	again.Requires[0] = "x"
	Keys()[narrow.Number-1].Requires[0] = "x"
	Settings()[4].Choices[0] = "x"
	Features()[0].Name = "x"
	Roles()[0].Keys[0] = "x"
	role, _ := LookupRole("OA")
	role.Keys[0] = "x"
	RegionalManagerKeys()[0] = "x"
	fresh, err := load(files)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(data, fresh) {
		t.Error("the catalog was changed through what it returned")
	}
}

func TestRolesUnite(t *testing.T) {
	set := func(code string) Set {
		r, ok := LookupRole(code)
		if !ok {
			t.Fatalf("no role %s", code)
		}
		return r.Set()
	}
	if got, want := set("PM+"), set("PM").Union(set("SP")); got != want {
		t.Errorf("PM+ has %q too much and lacks %q", data.namesOf(got.Without(want)), data.namesOf(want.Without(got)))
	}
	if rest := data.namesOf(set("OW").Without(set("OA"))); !slices.Equal(rest, []string{"Organization: Owner"}) {
		t.Errorf("an Owner has more than an Org Admin: %q", rest)
	}
	rm := mustSet(RegionalManagerKeys())
	for b := range rm.All() {
		if k, _ := KeyByNumber(int(b)); k.Area != "Insights" {
			t.Errorf("the Regional Manager setting adds %s", b)
		}
	}
	for _, code := range []string{"PM", "PM+"} {
		if more := data.namesOf(rm.Without(set(code))); !slices.Equal(more, []string{"Insights:Portfolio"}) {
			t.Errorf("the Regional Manager setting adds %q to %s", more, code)
		}
	}
}

// What the second seed says of its roles.
func TestRolesOfTheField(t *testing.T) {
	for _, c := range []struct {
		code       string
		has, lacks []string
	}{
		{"PM", []string{"Web", "ServiceRequests:Create", "ServiceRequests:Assign", "ServiceRequests:Review"}, []string{"ServiceRequests:Work"}},
		{"SP", []string{"App", "ServiceRequests:Work", "ServiceRequests:View:Assigned"}, []string{"Web", "ServiceRequests:Create", "ServiceRequests:Assign", "ServiceRequests:View:Property"}},
		{"PM+", []string{"Web", "App", "ServiceRequests:Work", "ServiceRequests:Create", "ServiceRequests:Assign", "ServiceRequests:Review"}, nil},
		{"SA", []string{"App"}, []string{"Web", "Organization"}},
		{"SW", []string{"Web"}, []string{"Organization"}},
		{"US", []string{"Web"}, []string{"Organization"}},
		{"OA", []string{"Web", "Organization", "Organization: Users"}, []string{"Organizations: Roles", "Branding", "ServiceRequests:Work"}},
	} {
		r, _ := LookupRole(c.code)
		if missing := mustSet(c.has).Without(r.Set()); !missing.Empty() {
			t.Errorf("%s lacks %q", c.code, data.namesOf(missing))
		}
		if extra := mustSet(c.lacks); r.Set().Intersects(extra) {
			t.Errorf("%s has one of %q", c.code, c.lacks)
		}
	}
}

// A role gives no key that would not count in an organization with every add-on.
func TestRolesCountInFull(t *testing.T) {
	for _, r := range Roles() {
		set := r.Set()
		for _, f := range Features() {
			set.Add(f.Bit())
		}
		if lost := Implied(set).Without(Effective(set)); !lost.Empty() {
			t.Errorf("%s: %q do not count", r.Code, data.namesOf(lost))
		}
		if !slices.Equal(r.Keys, data.namesOf(r.Set())) {
			t.Errorf("%s: the keys are not in order of number", r.Code)
		}
	}
}

func TestTextsAreThereAndDiffer(t *testing.T) {
	titles, descriptions := map[string]string{}, map[string]string{}
	check := func(name, title, description string) {
		if title == "" || len(title) > 40 || strings.HasSuffix(title, ".") || strings.EqualFold(title, description) {
			t.Errorf("%s has the title %q", name, title)
		}
		if len(description) < 25 || len(description) > 240 || !strings.HasSuffix(description, ".") {
			t.Errorf("%s has the description %q", name, description)
		}
		if other := descriptions[fold(description)]; other != "" {
			t.Errorf("%s and %s have the same description", name, other)
		}
		descriptions[fold(description)] = name
		if other := titles[fold(title)]; other != "" {
			t.Errorf("%s and %s have the same title", name, other)
		}
		titles[fold(title)] = name
	}
	for _, k := range Keys() {
		check(k.Name, k.Title, k.Description)
	}
	for _, s := range Settings() {
		check(s.Name, s.Title, s.Description)
	}
	for _, r := range Roles() {
		check("role "+r.Code, "role "+r.Name, r.Description)
	}
}
