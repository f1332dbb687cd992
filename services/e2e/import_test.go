package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/demo"
)

// code of an authenticator app (RFC 6238), for the half minute of an instant.
func totpAt(t testing.TB, key string, at time.Time) string {
	t.Helper()
	secret, err := base32.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha1.New, secret)
	binary.Write(mac, binary.BigEndian, uint64(at.Unix())/30) // a hash takes everything
	sum := mac.Sum(nil)
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[sum[19]&15:])&0x7fffffff%1_000_000)
}

// setUpApp gives somebody an authenticator app, and returns its secret. It spends the code
// of this half minute.
func (s *suite) setUpApp(c *demo.Company, role string) (key string) {
	s.t.Helper()
	ctx, factors := c.As(s.t.Context(), role), identitypb.NewFactorServiceClient(s)
	setup, err := factors.BeginTotp(ctx, &identitypb.BeginTotpRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = factors.ConfirmTotp(ctx, &identitypb.ConfirmTotpRequest{
		Setup: setup.GetSetup(), Code: totpAt(s.t, setup.GetTotpSetup().GetKey(), time.Now()),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return setup.GetTotpSetup().GetKey()
}

// signsInWithApp wants somebody to sign in with the password and the app. It shows the code
// of the next half minute, which nobody has shown yet.
func (s *suite) signsInWithApp(email, password, key string) {
	s.t.Helper()
	sessions := identitypb.NewSessionServiceClient(s)
	resp, err := sessions.CreateSession(s.t.Context(), &identitypb.CreateSessionRequest{Email: email, Password: password, Surface: identitypb.Surface_SURFACE_WEB})
	if err != nil || resp.GetChallenge() == nil {
		s.t.Fatalf("%s signs in without the app: %v, %v", email, resp, err)
	}
	answer, err := sessions.AnswerChallenge(s.t.Context(), &identitypb.AnswerChallengeRequest{
		Challenge: resp.GetChallenge().GetSecret(),
		Proof:     &identitypb.Proof{Proof: &identitypb.Proof_TotpCode{TotpCode: totpAt(s.t, key, time.Now().Add(30*time.Second))}},
	})
	if err != nil || answer.GetToken() == "" {
		s.t.Errorf("%s signs in with the app: %v, %v", email, answer, err)
	}
}

// TestImportOfPeople imports two companies that have people in common, into a suite where
// somebody has the address of one of them.
func TestImportOfPeople(t *testing.T) {
	s := one(t)
	c := s.fill()
	key := s.setUpApp(c, "PM")
	n := s.addNeighbour(c)
	first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	s.must("export", c.Organization, first)
	s.must("export", "--without-credentials", n.organization, second)

	there := one(t)
	tara := there.claim()
	const theirs, password = "pm@harbour-lane.example", "a long enough password of another"
	_, err := identitypb.NewUserServiceClient(there).CreateUser(tara, &identitypb.CreateUserRequest{Email: theirs, DisplayName: "Another", InitialPassword: password})
	if err != nil {
		t.Fatal(err)
	}
	code, out := there.does("import", "--brand=Tamarisk", first)
	if code != 1 || !strings.Contains(out, theirs+" belongs to") || !strings.Contains(out, "1 things stand against it") {
		t.Errorf("importing an address that somebody has ends with %d and prints %s", code, out)
	}
	if code, out := there.does("import", "--brand=Nobody's", first); code != 1 || !strings.Contains(out, "Tamarisk") {
		t.Errorf("importing into no brand ends with %d and prints %s", code, out)
	}
	renames := filepath.Join(t.TempDir(), "renames.tsv")
	if err := os.WriteFile(renames, []byte(theirs+"\tpm.harbour@harbour-lane.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	there.must("import", "--brand=Tamarisk", "--rename="+renames, first)
	there.signsInWithApp("pm.harbour@harbour-lane.example", c.Person("PM").Password, key)
	if resp, err := identitypb.NewSessionServiceClient(there).CreateSession(t.Context(), &identitypb.CreateSessionRequest{Email: theirs, Password: c.Person("PM").Password}); err == nil {
		t.Errorf("the password that was imported opens somebody else's account: %v", resp)
	}

	out = there.must("import", "--brand=Tamarisk", second)
	if !strings.Contains(out, "1 people who are new here and 1 who were here") {
		t.Errorf("the second import prints %s", out)
	}
	owner := c.Person("OW")
	there.signIn(owner.Email, owner.Password, c.Organization)
	there.signIn(owner.Email, owner.Password, n.organization)
	if resp, err := identitypb.NewSessionServiceClient(there).CreateSession(t.Context(), &identitypb.CreateSessionRequest{Email: neighbourEmail, Password: neighbourSecret}); err == nil {
		t.Errorf("somebody without credentials signs in: %v", resp)
	}
	there.must("verify")
}

// TestKilledImport kills the import, or the suite that takes it in, at moments chosen at
// random, and does it again: then everything is there, and before nobody got in.
func TestKilledImport(t *testing.T) {
	s := one(t)
	c := s.fill()
	file := filepath.Join(t.TempDir(), "company.export")
	s.must("export", c.Organization, file)
	want := s.properties(c)
	for i := range times(2, 100) {
		there := one(t)
		there.claim()
		there.killedWithin(1500*time.Millisecond, nil, "import", "--brand=Tamarisk", file)
		there.nobodyOrAll(c, want)
		there.killedWithin(time.Second, there.processes[names[0]].kill, "import", "--brand=Tamarisk", file)
		there.again()
		there.nobodyOrAll(c, want)
		if code, out := there.does("import", "--brand=Tamarisk", file); code != 0 && !strings.Contains(out, "there already") {
			t.Fatalf("run %d: the import ends with %d and prints %s", i, code, out)
		}
		if !there.nobodyOrAll(c, want) {
			t.Errorf("run %d: nobody can sign in after the import", i)
		}
		if out := there.must("verify"); !strings.Contains(out, "0 problems in ") {
			t.Errorf("run %d: %s", i, out)
		}
		there.stop()
	}
}

// killedWithin starts a command and after a time chosen at random kills it, or something
// else, upon which it ends.
func (s *suite) killedWithin(longest time.Duration, kill func(), args ...string) {
	s.t.Helper()
	cmd := s.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-time.After(time.Duration(rand.Int64N(int64(longest)))):
	case <-s.t.Context().Done():
	}
	if kill == nil {
		cmd.Process.Kill() // if it has ended, so much the better
	} else {
		kill()
	}
	cmd.Wait()
}

// nobodyOrAll wants nobody of the company to get in, or all of it to be there. It tells
// which.
func (s *suite) nobodyOrAll(c *demo.Company, want string) bool {
	s.t.Helper()
	pm := *c.Person("PM")
	resp, err := identitypb.NewSessionServiceClient(s).CreateSession(s.t.Context(), &identitypb.CreateSessionRequest{
		Email: pm.Email, Password: pm.Password, OrganizationId: c.Organization, Surface: identitypb.Surface_SURFACE_WEB,
	})
	if err != nil {
		return false
	}
	pm.Token = resp.GetToken()
	there := &demo.Company{Organization: c.Organization, People: []*demo.Person{&pm}}
	if got := s.properties(there); got != want {
		s.t.Errorf("the company is there with the properties %s\nwant %s", got, want)
	}
	return true
}
