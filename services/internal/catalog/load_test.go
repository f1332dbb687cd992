package catalog

import (
	"strings"
	"testing"
)

func tabbed(header string) string { return strings.ReplaceAll(header, " ", "\t") + "\n" }

// Each mistake that a hand could make in the tables is found.
func TestLoadIsStrict(t *testing.T) {
	const (
		keys     = "catalog.tsv"
		settings = "settings.tsv"
		features = "features.tsv"
		roles    = "roles.tsv"
	)
	for _, c := range []struct{ what, file, from, to, want string }{
		{"header", keys, "number\tkey", "nr\tkey", "header"},
		{"column missing", keys, "\tAppointments\t\t\tscheduling", "\tAppointments\t\tscheduling", "9 columns"},
		{"blank at the end", keys, "\tAppointments\t\t\tscheduling", "\tAppointments \t\t\tscheduling", "stray blanks"},
		{"two blanks", keys, "Organization: Custom Fields\tSEED", "Organization:  Custom Fields\tSEED", "stray blanks"},
		{"carriage return", keys, "Mark vendor invoices paid\t", "Mark vendor\rinvoices paid\t", "stray blanks"},
		{"empty line", keys, "\n2\t", "\n\n2\t", "columns"},
		{"no name", keys, "\n2\tAppointments:Finish:AddParts\t", "\n2\t\t", "column 2 is empty"},
		{"no title", keys, "\tWrite contact notes\t", "\t\t", "column 9 is empty"},
		{"number twice", keys, "\n3\t", "\n2\t", "does not follow"},
		{"wrong order", keys, "\n3\t", "\n300\t", "not a number from"},
		{"number with zero", keys, "\n3\t", "\n03\t", "not a number"},
		{"no number", keys, "\n3\t", "\nthree\t", "not a number"},
		{"number of a setting's bit", keys, "\n259\t", "\n265\t", "not a number from"},
		{"origin", keys, "Web\tSEED", "Web\tseed", "none of"},
		{"unknown parent", keys, "\tInvoices and Payments\tInvoices\t", "\tInvoices and Payments\tInvoice\t", "unknown key"},
		{"parent in another case", keys, "\tInvoices and Payments\tInvoices\t", "\tInvoices and Payments\tinvoices\t", "unknown key"},
		{"requires itself", keys, "Invoices\tSEED\tInvoices and Payments\t\t", "Invoices\tSEED\tInvoices and Payments\tInvoices:Void\t", "requires itself"},
		{"parent twice", keys, "\tProposals\tProposals\t", "\tProposals\tProposals,Proposals\t", "different words"},
		{"unknown add-on", keys, "\trouting\t", "\troutes\t", "unknown add-on"},
		{"same key in another case", keys, "Tasks:Complete\t", "tasks\t", "confused"},
		{"same key with a blank", keys, "Tasks:Complete\t", "Ta sks\t", "confused"},
		{"unknown role", keys, "\tOA,OW,US,SW\t", "\tOA,XX\t", "role XX"},
		{"key given to the united role", keys, "\tOA,OW,US,SW\t", "\tOA,PM+\t", "role PM+"},
		{"setting number", settings, "\n16\t", "\n24\t", "not a number from 1 to 23"},
		{"setting without label", settings, "\tPricing\t", "\t\t", "column 3 is empty"},
		{"layer", settings, "\tschedule\t", "\tinventory\t", "none of"},
		{"kind", settings, "\tminutes\t", "\thours\t", "none of"},
		{"restricts", settings, "\tyes\t", "\t\t", "none of"},
		{"choices of a bool", settings, "\tbool\t\t", "\tbool\ta,b\t", "choices belong"},
		{"choice without choices", settings, "\tchoice\towned,all\t", "\tchoice\t\t", "choices belong"},
		{"setting confused", settings, "\tproposal_scope\t", "\tSearchScope\t", "confused"},
		{"label confused", settings, "\tPull From Queue?\t", "\tsearch scope\t", "confused"},
		{"feature number", features, "\n7\t", "\n32\t", "not a number from 1 to 31"},
		{"feature twice", features, "\ttexting\t", "\trouting\t", "there twice"},
		{"role twice", roles, "\nSA\t", "\nSW\t", "there twice"},
		{"unites an unknown role", roles, "PM,SP", "PM,XX", "cannot unite"},
		{"unites itself", roles, "PM,SP", "PM,PM+", "cannot unite"},
		{"role without a name", roles, "\tOwner\t", "\t\t", "column 2 is empty"},
	} {
		p, err := files.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(p), c.from) {
			t.Errorf("%s: %s does not contain %q", c.what, c.file, c.from)
			continue
		}
		_, err = load(with(c.file, strings.Replace(string(p), c.from, c.to, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.what, err, c.want)
		}
	}
}

func TestLoadNeedsEveryFile(t *testing.T) {
	for _, name := range []string{"catalog.tsv", "settings.tsv", "features.tsv", "roles.tsv"} {
		fsys := with(name, "")
		delete(fsys, name)
		if _, err := load(fsys); err == nil {
			t.Errorf("loaded without %s", name)
		}
		if _, err := load(with(name, "")); err == nil {
			t.Errorf("loaded with an empty %s", name)
		}
	}
}
