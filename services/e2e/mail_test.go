package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/mail/mailtest"
)

// TestMailOverReplicas has two processes over one database write to people. As a rule each
// message goes out once; and if either of the two is killed, each does.
func TestMailOverReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the suite twice over a database")
	}
	const subject = "A code for a new password"
	post := mailtest.Start(t, mailtest.Options{})
	seal := filepath.Join(t.TempDir(), "seal.key")
	if err := os.WriteFile(seal, []byte(strings.Repeat("s", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &doubled{suite: newSuite(t, append(inDatabase(t), "LATCHKEY_SEAL_KEY_FILE="+seal,
		"LATCHKEY_SMTP="+post.URL(), "LATCHKEY_SMTP_SENDER=no-reply@example.com"))}
	d.run(2, [][]string{names})
	people := d.company.People
	asked := 0
	ask := func(n int) {
		t.Helper()
		for range n {
			_, err := identitypb.NewPasswordServiceClient(d).RequestPasswordReset(t.Context(), &identitypb.RequestPasswordResetRequest{Email: people[asked].Email})
			if err != nil {
				t.Fatal(err)
			}
			asked++
		}
	}
	ask(4)
	post.Wait(4, subject)
	quiet := asked
	for _, p := range d.all { // one of them sends
		post.Down()
		ask(2)
		p.kill()
		post.Up()
		post.Wait(asked, subject)
		d.start(p)
		d.serves(p)
	}
	copies, ids := map[string]int{}, map[string]string{}
	for _, m := range post.Wait(asked, subject) {
		id := m.Header.Get("Message-Id")
		if was := ids[m.To]; was != "" && was != id {
			t.Errorf("%s got the messages %s and %s", m.To, was, id)
		}
		copies[m.To]++
		ids[m.To] = id
	}
	for i, p := range people[:asked] {
		if n := copies[p.Email]; n == 0 || i < quiet && n > 1 {
			t.Errorf("%s got %d copies", p.Email, n)
		}
	}
}
