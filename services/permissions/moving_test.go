package permissions_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// TestTheMoveOfDocsMoving moves the company of docs/moving.md as the page says.
func TestTheMoveOfDocsMoving(t *testing.T) {
	owner := start(t)
	for _, line := range strings.Split(strings.TrimSpace(example(t, "csv")), "\n") {
		email, name, _ := strings.Cut(line, ",")
		owner.join(&identitypb.CreateUserRequest{Email: email, DisplayName: name}, "")
	}
	file := example(t, "yaml")
	shown := owner.imports(file, &pb.ImportAccessRequest{ValidateOnly: true})
	want := &pb.ImportSummary{}
	mustNot(t, protojson.Unmarshal([]byte(example(t, "json")), want))
	want.Etag, want.Revision = shown.GetSummary().GetEtag(), shown.GetSummary().GetRevision()
	same(t, "the summary", shown.GetSummary(), want)
	made := owner.imports(file, &pb.ImportAccessRequest{Etag: want.GetEtag()})
	if !made.GetSummary().GetApplied() {
		t.Errorf("made: got %v", made.GetSummary())
	}
	// The page has the order of an export, so what is exported of its people is the page.
	shared, users, _ := strings.Cut(file, "users:\n")
	nora, rest, _ := strings.Cut(users, "  - user: theo")
	got := owner.export()
	for _, part := range []string{shared, nora, rest} {
		if !strings.Contains(got, part) {
			t.Errorf("exported\n%s\nwithout\n%s", got, part)
		}
	}
	for _, d := range made.GetDifferences() {
		if len(d.GetGained()) == 0 || len(d.GetGainedMethods()) == 0 {
			t.Errorf("nothing is gained: %v", d)
		}
	}
	if len(made.GetDifferences()) != 3 || slices.ContainsFunc(made.GetUsers(), func(d *pb.UserDifference) bool { return d.GetBefore().GetRole() != "" }) {
		t.Errorf("got %v", made)
	}
}

// example returns the one block of a kind of docs/moving.md.
func example(t *testing.T, kind string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/moving.md")
	mustNot(t, err)
	blocks := regexp.MustCompile("(?s)\n```"+kind+"\n(.*?)```\n").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 1 {
		t.Fatalf("docs/moving.md has %d blocks of %s, want 1", len(blocks), kind)
	}
	return blocks[0][1]
}
