package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	authzpb "latchkey.dev/gen/go/latchkey/authz/v1"

	"latchkey.dev/services/internal/catalog"
)

// inHandlers are the grants that no .proto file names, because what they let see or do
// is decided record by record: with each file that asks for them.
var inHandlers = map[string][]string{
	"App":                           {"identity/session.go", "internal/authz/decide.go", "permissions/flip.go"},
	"Web":                           {"identity/session.go", "internal/authz/decide.go", "permissions/explain.go"},
	"ServiceRequests:View:Assigned": {"servicerequest/sight.go"},
	"ServiceRequests:View:Property": {"servicerequest/sight.go"},
	"View:OwnedBy:Me":               {"invoicing/scope.go", "invoicing/vendor_scope.go", "scheduling/scope.go", "servicerequest/sight.go"},
	"View:OwnedBy:Nobody":           {"invoicing/scope.go", "scheduling/scope.go", "servicerequest/sight.go"},
	"View:OwnedBy:Others":           {"invoicing/scope.go", "invoicing/vendor_scope.go", "scheduling/scope.go", "servicerequest/sight.go"},

	"setting:future_visibility": {"scheduling/scope.go"},
	"setting:invoice_approver":  {"invoicing/invoices.go"},

	"setting:login_restrictions": {"identity/hours.go"},
}

// notYet are the grants that can be given and taken and that nothing asks for: what they
// are for is not served yet. A grant that is served comes off the list; none comes on.
var notYet = []string{
	"Appointments:Email", "Appointments:Grid:Last", "Appointments:Grid:Reworks", "Appointments:Notes:Private",
	"Contacts:Create", "Contacts:Documents:ViewPrivate", "Contacts:Delete", "Contacts:Edit",
	"Contacts:Edit:Owned", "Contacts:Edit:Unowned", "Contacts:Grid:All", "Contacts:Grid:Expired",
	"Contacts:Grid:Expiring", "Contacts:Location:Update", "Contacts:Merge", "Contacts:Notes",
	"Contacts:Notes:ViewPrivate", "Contacts:View:CommunicationDetails", "Invoices:ExcludefromEndofPeriod",
	"Invoices:WriteOff", "Pay:Account", "Pay:Reporting", "Payments:Delete", "Payments:Refund",
	"ControlPanel:Parts:Inventory", "ControlPanel:Services:Create", "ControlPanel:Services:Edit:General",
	"ControlPanel:Services:Edit:Pricing", "ControlPanel:Services:Index", "Proposals", "Proposals:BulkAccept",
	"Proposals:Delete", "Proposals:EditAccepted", "Proposals:Email", "Proposals:Grid:All",
	"Proposals:Grid:Accepted", "Proposals:Grid:Open", "Proposals:Grid:OpenProjects",
	"Proposals:Grid:Unscheduled", "Proposals:Grid:Won", "Proposals:MarkComplete", "Proposals:Margins:View",
	"Proposals:Send",
	"Organization: Email Campaigns", "Organization: Email Templates", "Organization: Invoice Terms",
	"Organization: Marketing Tools", "Organization: QBO Connection",
	"Branding: Email Campaigns: Create", "Branding:ReportSubscription", "Campaigns",
	"Campaigns:Create", "Drips", "Feedback", "Issues:Edit", "Pages", "Routing", "Text Messaging", "Calendar",
	"Call Center", "CallCenter:Request Call Credit", "CallCenter:Review Call Audio",
	"Dispatch:Appointments:Notes", "Maps", "Reports", "ServiceAgents:TimeOff:Create", "Subcontractors:Bids",
	"Subcontractor:Review:Bids", "Taskboard:Content:Update", "Tasks", "Tasks:Complete",
	"RecurringServiceRequests", "RecurringServiceRequests:Create", "RecurringServiceRequests:Edit",
	"RecurringServiceRequests:Delete", "MakeReady:Create", "MakeReady:Complete", "MakeReady:Dates:Acknowledge",
	"MakeReady:Templates", "MakeReady:Delete", "Messages", "Messages:Send", "Messages:Broadcast", "Insights",
	"Insights:Property", "Insights:Portfolio", "Insights:Export", "Properties:Vendors:Connect",
	"Properties:Residents:View", "EndOfPeriod:Submit", "setting:transfer_appointments", "setting:limit_slots",
	"setting:search_scope", "setting:include_member_orgs", "setting:proposal_scope", "setting:track_inventory",
	"setting:cc_appointment_confirmations", "setting:self_edit_inventory", "setting:pull_from_queue",
	"setting:hide_future_on_details",
}

// TestEveryGrantIsUsed holds each key and setting of the catalog against what asks for
// it: a rule, a guard or a chosen value in the .proto files, a key that counts only with
// it, or a handler.
func TestEveryGrantIsUsed(t *testing.T) {
	declared := declaredGrants()
	for _, k := range catalog.Keys() {
		for _, above := range k.Requires {
			if declared[k.Name] || inHandlers[k.Name] != nil {
				declared[above] = true
			}
		}
	}
	sources := handlerSources(t)
	all := map[string]bool{}
	for _, k := range catalog.Keys() {
		all[k.Name] = true
		checkUse(t, k.Name, declared[k.Name], quoting(sources, k.Name))
	}
	for _, s := range catalog.Settings() {
		name := "setting:" + s.Name
		all[name] = true
		// Permissions computes the settings, which is no use of them.
		found := slices.DeleteFunc(quoting(sources, s.Name, name), func(f string) bool { return strings.HasPrefix(f, "permissions/") })
		checkUse(t, name, declared[name], found)
	}
	for _, name := range slices.Concat(notYet, slices.Collect(maps.Keys(inHandlers))) {
		if !all[name] {
			t.Errorf("%q is on a list here, but not in the catalog", name)
		}
	}
	t.Logf("%d of %d grants are not served yet", len(notYet), len(all))
}

// checkUse checks that a grant is on the one list that it belongs on. Found are the
// handlers' files that name it.
func checkUse(t *testing.T, name string, declared bool, found []string) {
	t.Helper()
	late, listed := slices.Contains(notYet, name), inHandlers[name]
	switch {
	case declared && (late || listed != nil):
		t.Errorf("%q is used in the .proto files: take it off the lists here", name)
	case declared:
	case late && listed != nil:
		t.Errorf("%q is on both lists", name)
	case late && len(found) > 0:
		t.Errorf("%q is asked for in %q: take it off notYet, and list the files in inHandlers", name, found)
	case !late && !slices.Equal(found, listed):
		t.Errorf("%q is asked for in the files %q, listed are %q", name, found, listed)
	case !late && listed == nil:
		t.Errorf("nothing asks for %q: let something, or the catalog promises what is not there", name)
	}
}

// declaredGrants are those that the .proto files name.
func declaredGrants() map[string]bool {
	grants := map[string]bool{}
	for _, m := range methods() {
		for _, g := range slices.Concat(m.rule.GetAll(), m.rule.GetAny()) {
			grants[g] = true
		}
	}
	protoregistry.GlobalTypes.RangeMessages(func(m protoreflect.MessageType) bool {
		for i := range m.Descriptor().Fields().Len() {
			for _, g := range guards([]protoreflect.FieldDescriptor{m.Descriptor().Fields().Get(i)}) {
				grants[g] = true
			}
		}
		return true
	})
	protoregistry.GlobalTypes.RangeEnums(func(e protoreflect.EnumType) bool {
		for i := range e.Descriptor().Values().Len() {
			g, _ := proto.GetExtension(e.Descriptor().Values().Get(i).Options(), authzpb.E_Choose).(string)
			grants[g] = true
		}
		return true
	})
	return grants
}

// handlerSources are the files, by their path in services and without comments, in which
// a handler or the guard can ask for a grant.
func handlerSources(t *testing.T) map[string]string {
	t.Helper()
	sources := map[string]string{}
	for _, folder := range append(slices.Clone(names), "internal/authz", "internal/server", "internal/states") {
		files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(folder), "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s has no files, %v", folder, err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			sources[filepath.ToSlash(strings.TrimPrefix(f, ".."+string(filepath.Separator)))] = comments.ReplaceAllString(string(text), "")
		}
	}
	return sources
}

var comments = regexp.MustCompile(`//.*`)

// quoting returns the files, in order, that have one of the words in quotes.
func quoting(sources map[string]string, words ...string) []string {
	var found []string
	for _, file := range slices.Sorted(maps.Keys(sources)) {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(sources[file], strconv.Quote(w)) }) {
			found = append(found, file)
		}
	}
	return found
}
