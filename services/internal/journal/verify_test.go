package journal_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc/codes"

	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/invoicing"
)

// in starts the service in a folder, always with the same organization.
func in(t *testing.T, folder string) *world {
	t.Helper()
	s := servertest.StartIn(t, folder, time.Now, invoicing.Part)
	return &world{s.InOrganization(servertest.UUID(1)), t}
}

// A checkpoint is a note that anybody can verify with the public key.
func TestCheckpoint(t *testing.T) {
	w := start(t)
	maker, boss := w.as(makes...), w.as(owner, "Organization")
	empty, err := boss.verify("")
	if err != nil || empty.GetRevision() != 0 {
		t.Fatalf("an empty journal: got %v, %v", empty, err)
	}
	maker.part("Valve")
	maker.part("Hose")
	got, err := boss.verify("")
	if err != nil || got.GetRevision() != 2 || got.GetHeadRevision() != 2 || got.GetBaseRevision() != 0 || got.GetCheckpointProven() {
		t.Fatalf("got %v, %v", got, err)
	}
	key, err := maker.journal.GetCheckpointKey(t.Context(), &journalpb.GetCheckpointKeyRequest{Source: source})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(key.GetVerifierKey())
	if err != nil {
		t.Fatalf("key %q: %v", key.GetVerifierKey(), err)
	}
	n, err := note.Open([]byte(got.GetCheckpoint()), note.VerifierList(verifier))
	if err != nil {
		t.Fatalf("checkpoint\n%s: %v", got.GetCheckpoint(), err)
	}
	if lines := strings.Split(n.Text, "\n"); lines[0] != "latchkey.dev/journal/invoicing/"+w.Organization || lines[1] != "2" {
		t.Errorf("got the lines %q", lines)
	}
	maker.part("Clamp")
	for name, kept := range map[string]string{"empty": empty.GetCheckpoint(), "of two": got.GetCheckpoint()} {
		if last, err := boss.verify(kept); err != nil || !last.GetCheckpointProven() || last.GetRevision() != 3 {
			t.Errorf("with the checkpoint %s: got %v, %v", name, last, err)
		}
	}
	_, err = boss.verify(strings.Replace(got.GetCheckpoint(), "\n2\n", "\n3\n", 1))
	wantReason(t, "a forged checkpoint", err, codes.InvalidArgument, "FIELD_INVALID")
	other := &world{w.InOrganization(servertest.UUID(900)), t}
	_, err = other.as(owner, "Organization").verify(got.GetCheckpoint())
	wantReason(t, "a checkpoint of another journal", err, codes.InvalidArgument, "FIELD_INVALID")
	_, err = maker.verify("")
	wantReason(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING")
}

// A journal that was put back and went on otherwise is whole in itself; only a checkpoint
// that was kept elsewhere tells.
func TestCheckpointFindsAnotherPast(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, source+".db")
	run := func(name string, kept string) (*journalpb.VerifyJournalResponse, error) {
		w := in(t, folder)
		defer w.Stop()
		maker := w.as(makes...)
		for range 3 {
			maker.part(name)
		}
		return w.as(owner, "Organization").verify(kept)
	}
	first, err := run("Valve", "")
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second, err := run("Hose", first.GetCheckpoint())
	if err != nil || second.GetRevision() != 6 || !second.GetCheckpointProven() {
		t.Fatalf("got %v, %v", second, err)
	}
	if err := os.WriteFile(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	w := in(t, folder)
	_, err = w.as(owner, "Organization").verify(second.GetCheckpoint())
	wantReason(t, "a journal that is shorter than it was", err, codes.DataLoss, "JOURNAL_DAMAGED")
	w.Stop()
	_, err = run("Clamp", second.GetCheckpoint())
	wantReason(t, "a journal that went on otherwise", err, codes.DataLoss, "JOURNAL_DAMAGED")
	w = in(t, folder)
	if got, err := w.as(owner, "Organization").verify(first.GetCheckpoint()); err != nil || !got.GetCheckpointProven() {
		t.Errorf("with the checkpoint before it: got %v, %v", got, err)
	}
}
