package permissions

import (
	"slices"
	"testing"
)

func TestReviewCellsAreNoFormulas(t *testing.T) {
	got := harmless([]string{"", "Invoices:Void", "=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "covers = for"})
	want := []string{"", "Invoices:Void", "'=HYPERLINK(1)", "'+1", "'-1", "'@x", "'\tx", "covers = for"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
