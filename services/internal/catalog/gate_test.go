package catalog

import (
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"
)

// likelySet draws sets that hold much and sets that hold little, so that gates
// open as often as they close.
var likelySet = rapid.Custom(func(t *rapid.T) Set {
	var s Set
	if rapid.Bool().Draw(t, "all but") {
		s = allBelow(setBits)
	}
	for _, b := range rapid.SliceOfN(anyBit, 0, 40).Draw(t, "flipped") {
		if s.Has(b) {
			s.Remove(b)
		} else {
			s.Add(b)
		}
	}
	return s
})

// counts is the rule of product.md, section 1, rule 2, read literally.
func counts(s Set, k Key) bool {
	if !s.Has(k.Bit()) || k.AddOn != "" && !s.Has(MustGrant("feature:"+k.AddOn)) {
		return false
	}
	for _, name := range k.Requires {
		parent, ok := KeyByNumber(int(MustGrant(name)))
		if !ok || !counts(s, parent) {
			return false
		}
	}
	return true
}

func TestGateKeepsExactlyWhatCounts(t *testing.T) {
	keys := Keys()
	rapid.Check(t, func(t *rapid.T) {
		s := likelySet.Draw(t, "s")
		got := Gate(s)
		for _, k := range keys {
			if got.Has(k.Bit()) != counts(s, k) {
				t.Errorf("%s: kept %v, counts %v", k.Name, got.Has(k.Bit()), counts(s, k))
			}
		}
		for b, name := range data.names {
			b := Bit(b)
			switch {
			case name == "" && got.Has(b):
				t.Errorf("bit %d names nothing and was kept", b)
			case name != "" && b >= settingBase && got.Has(b) != s.Has(b):
				t.Errorf("%s is no key and was changed", b)
			}
		}
	})
}

func TestGateLaws(t *testing.T) {
	for name, f := range map[string]func(Set) Set{"Gate": Gate, "Effective": Effective} {
		rapid.Check(t, func(t *rapid.T) {
			s, more := likelySet.Draw(t, "s"), likelySet.Draw(t, "more")
			once := f(s)
			if f(once) != once {
				t.Errorf("%s twice differs from once", name)
			}
			if !f(s.Union(more)).Contains(once) {
				t.Errorf("%s: holding more gave less", name)
			}
			if !Implied(s).Contains(once) {
				t.Errorf("%s added %v", name, once.Without(Implied(s)))
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		if s := likelySet.Draw(t, "s"); !s.Contains(Gate(s)) {
			t.Errorf("Gate added %v", Gate(s).Without(s))
		}
	})
}

func TestWebIncludesApp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := likelySet.Draw(t, "s")
		got := Implied(s)
		want := s
		if s.Has(web) {
			want.Add(app)
		}
		if got != want {
			t.Errorf("%x implies %x, want %x", s, got, want)
		}
	})
	if s := Effective(mustSet([]string{"App"})); s.Has(web) {
		t.Error("App gave Web")
	}
	if s := Effective(mustSet([]string{"Web"})); !s.Has(app) {
		t.Error("Web did not give App")
	}
}

func TestGateExamples(t *testing.T) {
	for _, c := range []struct {
		what       string
		held, want []string
	}{
		{"a narrow key without its base", []string{"Invoices:Void"}, nil},
		{"a narrow key with its base", []string{"Invoices", "Invoices:Void"}, []string{"Invoices", "Invoices:Void"}},
		{"an add-on that the plan lacks", []string{"Routing"}, nil},
		{"an add-on of the plan", []string{"Routing", "feature:routing"}, []string{"Routing", "feature:routing"}},
		{"another add-on", []string{"Routing", "feature:pages"}, []string{"feature:pages"}},
		{"an add-on's child without the add-on", []string{"Campaigns", "Campaigns:Create"}, nil},
		{"an add-on's child without its base", []string{"Campaigns:Create", "feature:campaigns"}, []string{"feature:campaigns"}},
		{"a setting", []string{"setting:see_pricing"}, []string{"setting:see_pricing"}},
	} {
		if got, want := Gate(mustSet(c.held)), mustSet(c.want); got != want {
			t.Errorf("%s: %q became %q, want %q", c.what, c.held, data.namesOf(got), c.want)
		}
	}
}

// The catalog's chains are short today. A longer one, with an add-on in the
// middle, must close behind any link that is missing.
func TestGateFollowsLongChains(t *testing.T) {
	chain := "" +
		"1\tA\tSEED\tx\t\t\ts\tall\tt\td\n" +
		"2\tA:B\tSEED\tx\tA\tpages\ts\tall\tt\td\n" +
		"3\tA:B:C\tSEED\tx\tA:B\t\ts\tall\tt\td\n" +
		"4\tA:B:C:D\tSEED\tx\tA:B:C\t\ts\tall\tt\td\n"
	tab, err := load(with("catalog.tsv", tabbed(keyHeader)+chain))
	if err != nil {
		t.Fatal(err)
	}
	pages := tab.grants["feature:pages"]
	for _, c := range []struct{ held, want []Bit }{
		{[]Bit{1, 2, 3, 4, pages}, []Bit{1, 2, 3, 4, pages}},
		{[]Bit{1, 2, 3, 4}, []Bit{1}},
		{[]Bit{2, 3, 4, pages}, []Bit{pages}},
		{[]Bit{1, 3, 4, pages}, []Bit{1, pages}},
		{[]Bit{1, 2, 4, pages}, []Bit{1, 2, pages}},
	} {
		if got, want := tab.gate(setOfBits(c.held)), setOfBits(c.want); got != want {
			t.Errorf("%v became %x, want %v", c.held, got, c.want)
		}
	}
	if got, want := tab.needs[4], setOfBits([]Bit{1, 2, 3, pages}); got != want {
		t.Errorf("the last key needs %x, want %x", got, want)
	}
}

func setOfBits(bits []Bit) Set {
	var s Set
	for _, b := range bits {
		s.Add(b)
	}
	return s
}

func TestNeeds(t *testing.T) {
	for name, want := range map[string][]string{
		"Web":                  nil,
		"setting:see_pricing":  nil,
		"Invoices:Void":        {"Invoices"},
		"Payments:Refund":      {"Invoices"},
		"ControlPanel:ApiKeys": {"Organization"},
		"Campaigns:Create":     {"Campaigns", "feature:campaigns"},
		"Text Messaging":       {"feature:texting"},
	} {
		if got := Needs(MustGrant(name)); got != mustSet(want) {
			t.Errorf("%s needs %q, want %q", name, data.namesOf(got), want)
		}
	}
}

// with returns the files of the catalog with one of them replaced.
func with(name, content string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for _, file := range []string{"catalog.tsv", "settings.tsv", "features.tsv", "roles.tsv"} {
		p, err := files.ReadFile(file)
		if err != nil {
			panic(err)
		}
		fsys[file] = &fstest.MapFile{Data: p}
	}
	fsys[name] = &fstest.MapFile{Data: []byte(content)}
	return fsys
}
