package authz_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"latchkey.dev/services/internal/fault"
)

var contents = []struct {
	name, method, request string
	asks                  string // grants, in any order
}{
	{"a chosen value", "Look", `view: VIEW_ALL`, "all"},
	{"a chosen value in a list", "Look", `views: [VIEW_FREE, VIEW_ALL, VIEW_OPEN]`, "all open"},
	{"a chosen value in a map", "Look", `named_views { key: "a" value: VIEW_OPEN }`, "open"},
	{"a chosen value in a message", "Look", `item { view: VIEW_ALL }`, "all"},
	{"a chosen value deep in messages", "Look", `item { parts { by_name { key: "a" value { view: VIEW_ALL } } } }`, "all"},
	{"a guarded field", "Look", `item { title: "x" }`, "general"},
	{"a guarded field set to nothing", "Look", `item { title: "" }`, "general"},
	{"a guarded message asks for both grants", "Look", `item { unit_price {} }`, "see pricing"},
	{"a guarded list", "Look", `item { notes: "x" }`, "void edit"},
	{"in a message", "Look", `item { box { cost { minor_units: 1 } } }`, "see pricing"},
	{"in a message that holds itself", "Look", `item { box { inner { inner { cost {} } } } }`, "see pricing"},
	{"in a list", "Look", `item { parts {} parts { title: "x" } }`, "general"},
	{"in a map", "Look", `item { by_name { key: "a" value { title: "x" } } }`, "general"},
	{"everything at once", "Look", `view: VIEW_ALL discount: 1 item { title: "x" notes: "y" box { cost {} } }`, "all see general void edit pricing"},

	{"mask of one field", "Update", `item { title: "x" unit_price {} } update_mask { paths: "title" }`, "general"},
	{"mask of a field that the record lacks", "Update", `item {} update_mask { paths: "unit_price" }`, "see pricing"},
	{"mask without a record", "Update", `update_mask { paths: "title" }`, "general"},
	{"mask of two fields", "Update", `update_mask { paths: "title" paths: "unit_price" }`, "general see pricing"},
	{"mask of what is below", "Update", `update_mask { paths: "unit_price.minor_units" }`, "see pricing"},
	{"mask of what is above", "Update", `update_mask { paths: "box" }`, "see pricing"},
	{"mask of what is above, deeper", "Update", `update_mask { paths: "box.inner.inner" }`, "see pricing"},
	{"mask of the guarded in a message", "Update", `update_mask { paths: "box.cost" }`, "see pricing"},
	{"mask of a list of what is guarded", "Update", `update_mask { paths: "parts" }`, "general see pricing void edit"},
	{"mask through a list", "Update", `update_mask { paths: "parts.title" }`, "general see pricing void edit"},
	{"mask of a map", "Update", `update_mask { paths: "by_name" }`, "general see pricing void edit"},
	{"mask of all", "Update", `update_mask { paths: "*" }`, "general see pricing void edit"},
	{"mask of all in a message", "Update", `update_mask { paths: "box.*" }`, "see pricing"},
	{"mask in the names of JSON", "Update", `update_mask { paths: "unitPrice" }`, "see pricing"},
	{"mask of a chosen value", "Update", `item { view: VIEW_ALL } update_mask { paths: "view" }`, "all"},
	{"mask of all, and a chosen value", "Update", `item { view: VIEW_ALL } update_mask { paths: "*" }`, "all general see pricing void edit"},
	{"mask of a message with a chosen value", "Update", `item { parts { view: VIEW_OPEN } } update_mask { paths: "parts" }`, "open general see pricing void edit"},
	{"a chosen value beside the record", "Update", `view: VIEW_OPEN update_mask { paths: "title" }`, "open general"},
	{"no mask: what is set", "Update", `item { title: "x" }`, "general"},
	{"no mask: a message is replaced with all that is in it", "Update", `item { box { colour: "red" } title: "x" }`, "see pricing general"},
	{"no mask: a chosen value", "Update", `item { view: VIEW_ALL }`, "all"},

	{"updates in a list", "UpdateAll", `updates { update_mask { paths: "title" } } updates { item { view: VIEW_OPEN } }`, "general open"},
	{"updates in a list, of all", "UpdateAll", `updates { update_mask { paths: "*" } }`, "general see pricing void edit"},
	{"a record that is itself guarded", "UpdateGuarded", `item {} update_mask { paths: "title" }`, "delete general"},
	{"a record that is itself guarded, no mask", "UpdateGuarded", `item { title: "x" }`, "delete general"},

	{"filter", "Search", `view: VIEW_ALL filter: "unit_price.minor_units > 3"`, "all see"},
	{"filter in any writing", "Search", `view: VIEW_ALL filter: "name = \"a\"\tAND\nunit_price.minor_units>3"`, "all see"},
	{"filter in the names of JSON", "Search", `view: VIEW_ALL filter: "unitPrice.minorUnits > 3"`, "all see"},
	{"filter by what is above", "Search", `view: VIEW_ALL filter: "unit_price = 3"`, "all see"},
	{"filter through messages", "Search", `view: VIEW_ALL filter: "box.inner.cost.minor_units > 3"`, "all see"},
	{"filter by a message with guarded fields", "Search", `view: VIEW_ALL filter: "box != 3"`, "all see"},
	{"filter through a list", "Search", `view: VIEW_ALL filter: "parts.notes : x"`, "all void"},
	{"filter by a name of the record's own", "Search", `view: VIEW_ALL filter: "box.0198a5d2-6c1e = 3"`, "all see"},
	{"order", "Search", `view: VIEW_ALL order_by: "unit_price desc"`, "all see"},
	{"order by the second", "Search", `view: VIEW_ALL order_by: "name, unit_price"`, "all see"},
}

// TestContent sends requests to methods that anyone may call who holds what the
// request itself asks for, and names all of that: with it the request passes, and
// without any one of it it does not, for want of that one.
func TestContent(t *testing.T) {
	rules := shopRules(t)
	for _, c := range contents {
		t.Run(c.name, func(t *testing.T) {
			msg := input(t, c.method, c.request)
			if err := rules.CheckRequest(method(c.method), holder(t, c.asks), msg); err != nil {
				t.Errorf("holder of %s: %v", c.asks, err)
			}
			for _, lacking := range strings.Fields(c.asks) {
				rest := strings.Join(strings.Fields(strings.ReplaceAll(" "+c.asks+" ", " "+lacking+" ", " ")), " ")
				err := rules.CheckRequest(method(c.method), holder(t, rest), msg)
				wantMissing(t, err, longNames(lacking)[0], method(c.method))
			}
			// Whoever holds all but that is asked for holds too little.
			others := grantsOf(t, "general pricing see all open void edit delete").Without(grantsOf(t, c.asks))
			p := holder(t, "")
			p.Grants = others
			if err := rules.CheckRequest(method(c.method), p, msg); err == nil {
				t.Errorf("holder of all but %s was let through", c.asks)
			}
		})
	}
}

// wantMissing checks that err denies a method for want of a grant.
func wantMissing(t *testing.T, err error, grant, method string) {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	switch {
	case !ok || f.Code != codes.PermissionDenied || f.ReasonName() != "GRANT_MISSING":
		t.Errorf("without %s: got %v, want PERMISSION_DENIED, GRANT_MISSING", grant, err)
	case f.Metadata["grant"] != grant || f.Metadata["method"] != method[1:]:
		t.Errorf("without %s: got metadata %v, want that grant and %s", grant, f.Metadata, method[1:])
	}
}

// TestContentAsksForNothing sends what anybody may.
func TestContentAsksForNothing(t *testing.T) {
	rules := shopRules(t)
	for _, c := range []struct{ name, method, request string }{
		{"nothing", "Whoami", ``},
		{"fields without a guard", "Whoami", `id: "1" item { id: "1" name: "x" stamp { text: "x" } box { colour: "red" } }`},
		{"values without a choice", "Whoami", `view: VIEW_FREE views: [VIEW_FREE, VIEW_UNSPECIFIED] item { view: VIEW_FREE }`},
		{"a value that nobody knows", "Whoami", `view: 77 named_views { key: "a" value: 77 }`},
		{"mask of what is not guarded", "UpdateAll", `updates { item { title: "x" unit_price {} } update_mask { paths: "name" paths: "box.colour" } }`},
		{"mask of nothing", "UpdateAll", `updates { item { title: "x" } update_mask {} }`},
		{"mask that leads nowhere", "UpdateAll", `updates { update_mask { paths: "" paths: "." paths: "bogus" paths: "name.title" paths: "stamp.title" } }`},
		{"no mask, nothing guarded set", "UpdateAll", `updates { item { id: "1" name: "x" } }`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := rules.CheckRequest(method(c.method), holder(t, ""), input(t, c.method, c.request)); err != nil {
				t.Errorf("%s: %v", c.request, err)
			}
		})
	}
}

// A filter may name a guarded field's text in quotes: that is a value.
func TestQuotedTextIsNoField(t *testing.T) {
	rules := shopRules(t)
	msg := input(t, "Search", `view: VIEW_ALL filter: "name = \"unit_price\""`)
	if err := rules.CheckRequest(method("Search"), holder(t, "all"), msg); err != nil {
		t.Error(err)
	}
}

func TestDenialNamesTheField(t *testing.T) {
	rules := shopRules(t)
	for _, c := range []struct{ method, request, field string }{
		{"Look", `item { title: "x" }`, "title"},
		{"Look", `view: VIEW_ALL`, "view"},
		{"Update", `update_mask { paths: "unit_price.minor_units" }`, "unit_price"},
		{"Update", `update_mask { paths: "box" }`, "box"},
		{"Search", `order_by: "unit_price"`, "order_by"},
	} {
		err := rules.CheckRequest(method(c.method), holder(t, ""), input(t, c.method, c.request))
		f, ok := errors.AsType[*fault.Error](err)
		if !ok || f.Metadata["field"] != c.field || !strings.Contains(f.Message, c.method+" with "+c.field+" needs ") {
			t.Errorf("%s: got %v, %v, want it to name the field %s", c.request, err, f.Metadata, c.field)
		}
	}
}

// TestByContent looks at requests that carry nothing which could be granted.
func TestByContent(t *testing.T) {
	rules := shopRules(t)
	for _, c := range []struct {
		name, method, request, holds string
		code                         codes.Code
		message                      string
	}{
		{"nothing, by whom nothing could be allowed", "Look", ``, "parts", codes.PermissionDenied, "needs the permission"},
		{"nothing, by whom something could be", "Look", ``, "open", codes.InvalidArgument, "view or views or named_views or item: must be set"},
		{"nothing, by whom something nested could be", "Look", ``, "general", codes.InvalidArgument, "must be set"},
		{"what may only be seen is not asked to do anything", "Look", `discount: 1`, "see", codes.PermissionDenied, "needs the permission"},
		{"a filter is not asked to do anything", "Search", `filter: "unit_price = 1"`, "see", codes.PermissionDenied, "needs the permission"},
		{"a value without a choice", "Look", `view: VIEW_FREE`, "", codes.PermissionDenied, "needs the permission"},
		{"an empty mask", "Update", `item { title: "x" } update_mask {}`, "general", codes.InvalidArgument, "update_mask: must be set"},
		{"a mask of what is not guarded", "Update", `update_mask { paths: "name" }`, "general", codes.InvalidArgument, "update_mask: must be set"},
		{"a mask of what is not guarded, by anybody", "Update", `update_mask { paths: "name" }`, "", codes.PermissionDenied, "needs the permission"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := rules.CheckRequest(method(c.method), holder(t, c.holds), input(t, c.method, c.request))
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Code != c.code || !strings.Contains(f.Message, c.message) {
				t.Errorf("%q by holder of %q: got %v, want %v, %q", c.request, c.holds, err, c.code, c.message)
			}
		})
	}
}
