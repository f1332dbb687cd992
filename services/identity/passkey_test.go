package identity_test

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/authenticator"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/permissions"
)

// origin is that of the page on which people show passkeys.
const origin = "https://app.latchkey.example"

func passkey(answer string) *pb.Proof { return &pb.Proof{Proof: &pb.Proof_Passkey{Passkey: answer}} }

// tryPasskey registers a passkey that a device makes.
func (c *caller) tryPasskey(d *authenticator.Device, req *pb.CreatePasskeyRequest) (*pb.CreatePasskeyResponse, error) {
	c.t.Helper()
	begun, err := c.factors().BeginPasskey(c.ctx(), &pb.BeginPasskeyRequest{})
	if err != nil {
		return nil, err
	}
	if req.Response, err = d.Create(begun.GetCreationOptions()); err != nil {
		c.t.Fatal(err)
	}
	req.Setup, req.Name = begun.GetSetup(), "of a test"
	return c.factors().CreatePasskey(c.ctx(), req)
}

// withPasskey registers a passkey that a device makes.
func (c *caller) withPasskey(d *authenticator.Device) *caller {
	c.t.Helper()
	resp, err := c.tryPasskey(d, &pb.CreatePasskeyRequest{})
	mustNot(c.t, err)
	next := *c
	next.passkeys = d
	if codes := resp.GetRecoveryCodes(); len(codes) > 0 {
		next.codes = codes
	}
	return &next
}

func (c *caller) passkeyIDs() (ids []string) {
	c.t.Helper()
	resp, err := c.factors().ListPasskeys(c.ctx(), &pb.ListPasskeysRequest{})
	mustNot(c.t, err)
	for _, p := range resp.GetPasskeys() {
		ids = append(ids, p.GetId())
	}
	return ids
}

// beginAlone begins to sign in with a passkey, on the web if nothing else is asked for.
func (s *suite) beginAlone(req *pb.BeginPasskeySignInRequest) *pb.Challenge {
	s.t.Helper()
	if req.GetSurface() == pb.Surface_SURFACE_UNSPECIFIED {
		req.Surface = pb.Surface_SURFACE_WEB
	}
	resp, err := s.sessions().BeginPasskeySignIn(s.t.Context(), req)
	mustNot(s.t, err)
	return resp.GetChallenge()
}

// tryOn answers a challenge with what a device signs.
func (s *suite) tryOn(d *authenticator.Device, challenge *pb.Challenge) (*pb.AnswerChallengeResponse, error) {
	s.t.Helper()
	answer, err := d.Get(challenge.GetPasskeyOptions())
	mustNot(s.t, err)
	return s.sessions().AnswerChallenge(s.t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge.GetSecret(), Proof: passkey(answer)})
}

// signInAlone answers a challenge with a passkey, and goes on with the token.
func (c *caller) signInAlone(challenge *pb.Challenge) *caller {
	c.t.Helper()
	resp, err := c.tryOn(c.passkeys, challenge)
	mustNot(c.t, err)
	next := *c
	next.session, next.token = resp.GetSession(), resp.GetToken()
	return &next
}

func TestPasskey(t *testing.T) {
	owner := owned(t)
	for name, algorithm := range map[string]int{"ES256": authenticator.ES256, "EdDSA": authenticator.EdDSA} {
		t.Run(name, func(t *testing.T) {
			ada := owner.hire("ada-"+strings.ToLower(name), "US")
			elsewhere := ada.signIn("")
			d := authenticator.New(origin)
			d.Algorithm = algorithm
			ada = ada.withPasskey(d)
			if len(ada.codes) != 10 {
				t.Errorf("got %d recovery codes with the first second factor, want 10", len(ada.codes))
			}
			if ada.signedIn(elsewhere.token) || !ada.signedIn(ada.token) {
				t.Error("the other session lives on, or the own one has ended")
			}
			challenge := ada.challenged()
			if got, want := challenge.GetFactors(), []pb.Factor{pb.Factor_FACTOR_PASSKEY, pb.Factor_FACTOR_RECOVERY_CODE}; !slices.Equal(got, want) {
				t.Errorf("the factors are %v, want %v", got, want)
			}
			second := ada.signInAlone(challenge)
			if got, want := second.session.GetFactors(), []pb.Factor{pb.Factor_FACTOR_PASSWORD, pb.Factor_FACTOR_PASSKEY}; !slices.Equal(got, want) {
				t.Errorf("the session has %v, want %v", got, want)
			}
			only := ada.signInAlone(ada.beginAlone(&pb.BeginPasskeySignInRequest{WithRefresh: true, Surface: pb.Surface_SURFACE_APP, DeviceName: "Phone"}))
			if got := only.session; got.GetStrength() != pb.Strength_STRENGTH_MULTI_FACTOR || !slices.Equal(got.GetFactors(), []pb.Factor{pb.Factor_FACTOR_PASSKEY}) ||
				!got.GetRefreshable() || got.GetSurface() != pb.Surface_SURFACE_APP || got.GetDeviceName() != "Phone" || !ada.signedIn(only.token) {
				t.Errorf("the session is %v", got)
			}
			stepped := only.signInAlone(only.beginStepUp())
			if ada.signedIn(only.token) || !ada.signedIn(stepped.token) || stepped.session.GetId() != only.session.GetId() {
				t.Error("a step-up gives the session no other token")
			}
			stepped.managesPasskeys()
		})
	}
}

// managesPasskeys renames the passkey of somebody, and removes it.
func (c *caller) managesPasskeys() {
	c.t.Helper()
	id := c.passkeyIDs()[0]
	rename := &pb.UpdatePasskeyRequest{Passkey: &pb.Passkey{Id: id, Name: "Her phone"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}}}
	_, err := c.factors().UpdatePasskey(c.ctx(), rename)
	mustNot(c.t, err)
	list, err := c.factors().ListPasskeys(c.ctx(), &pb.ListPasskeysRequest{})
	mustNot(c.t, err)
	if got := list.GetPasskeys()[0]; got.GetName() != "Her phone" || got.GetLastUseTime() == nil || !got.GetDiscoverable() ||
		!slices.Equal(got.GetTransports(), []string{"hybrid", "internal"}) || got.GetUserId() != c.user.GetId() {
		c.t.Errorf("the passkey is %v", got)
	}
	rename.UpdateMask.Paths = []string{"clone_time"}
	_, err = c.factors().UpdatePasskey(c.ctx(), rename)
	checkField(c.t, "change another field", err, "update_mask")
	_, err = c.factors().DeletePasskey(c.ctx(), &pb.DeletePasskeyRequest{Id: id, Etag: "another"})
	check(c.t, "remove another version", err, codes.Aborted, "ETAG_STALE")
	_, err = c.factors().DeletePasskey(c.ctx(), &pb.DeletePasskeyRequest{Id: servertest.UUID(9)})
	check(c.t, "remove one that is not there", err, codes.NotFound, "RECORD_NOT_FOUND")
	before := c.beginAlone(&pb.BeginPasskeySignInRequest{})
	resting := c.signInAlone(c.beginAlone(&pb.BeginPasskeySignInRequest{}))
	_, err = c.factors().DeletePasskey(c.ctx(), &pb.DeletePasskeyRequest{Id: id})
	mustNot(c.t, err)
	if c.signedIn(resting.token) {
		c.t.Error("a session lives on that a passkey opened which was removed")
	}
	_, err = c.tryOn(c.passkeys, before)
	check(c.t, "a passkey that was removed", err, codes.Unauthenticated, "PROOF_WRONG")
	if got, err := c.trySignIn(); err != nil || got != nil {
		c.t.Errorf("without a second factor the password gets %v, %v", got, err)
	}
	factors, err := c.factors().GetFactors(c.ctx(), &pb.GetFactorsRequest{})
	mustNot(c.t, err)
	same(c.t, "the factors that are left", factors, &pb.GetFactorsResponse{})
}

// SECURITY: nothing but the answer to the challenge, from the page that the domain's
// passkeys are shown on, by the device, with its person there, registers or proves.
func TestPasskeyAnswersThatProveNothing(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US").withPasskey(authenticator.New(origin))
	eve := owner.hire("eve", "US").withPasskey(authenticator.New(origin))
	wrong := map[string]func(*authenticator.Device){
		"another origin":                                  func(d *authenticator.Device) { d.Origin = "https://app.latchkey.example.evil.example" },
		"another origin, in plain":                        func(d *authenticator.Device) { d.Origin = "http://app.latchkey.example" },
		"another page of the domain, which is not listed": func(d *authenticator.Device) { d.Origin = "https://blog.latchkey.example" },
		"a page in a frame of another":                    func(d *authenticator.Device) { d.CrossOrigin = true },
		"another domain":                                  func(d *authenticator.Device) { d.Domain = "evil.example" },
		"another challenge":                               func(d *authenticator.Device) { d.Challenge = "AAAAAAAAAAAAAAAAAAAAAA" },
		"nobody there":                                    func(d *authenticator.Device) { d.Flags = 0 },
		"backed up, which it cannot be":                   func(d *authenticator.Device) { d.Flags |= authenticator.BackedUp },
	}
	for what, change := range wrong {
		d := authenticator.New(origin)
		change(d)
		_, err := owner.tryPasskey(d, &pb.CreatePasskeyRequest{})
		check(t, "register from "+what, err, codes.Unauthenticated, "PROOF_WRONG")
	}
	wrong["another person's handle"] = func(d *authenticator.Device) { d.UserHandle = eve.user.GetId() }
	wrong["a handle of nobody"] = func(d *authenticator.Device) { d.UserHandle = servertest.UUID(7) }
	wrong["no handle at all"] = func(d *authenticator.Device) { d.UserHandle = "x" }
	wrong["a change of what never changes"] = func(d *authenticator.Device) { d.Flags |= authenticator.BackupEligible }
	challenges := map[string]func() *pb.Challenge{
		"alone":           func() *pb.Challenge { return ada.beginAlone(&pb.BeginPasskeySignInRequest{}) },
		"beside password": ada.challenged,
		"step-up":         ada.beginStepUp,
	}
	for what, change := range wrong {
		for where, begin := range challenges {
			d := ada.passkeys.Copy()
			change(d)
			_, err := owner.tryOn(d, begin())
			check(t, where+" from "+what, err, codes.Unauthenticated, "PROOF_WRONG")
		}
	}
	unsure := ada.passkeys.Copy()
	unsure.Flags = authenticator.UserPresent
	_, err := owner.tryOn(unsure, challenges["alone"]())
	check(t, "a passkey alone that has not made sure of the person", err, codes.Unauthenticated, "PROOF_WRONG")
	_, err = owner.tryOn(unsure, challenges["beside password"]())
	mustNot(t, err) // the password is the other factor
	answer, err := eve.passkeys.Get(strings.ReplaceAll(challenges["beside password"]().GetPasskeyOptions(), "allowCredentials", "none"))
	mustNot(t, err)
	_, err = owner.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: ada.challenged().GetSecret(), Proof: passkey(answer)})
	check(t, "somebody else's passkey", err, codes.Unauthenticated, "PROOF_WRONG")
	if got := ada.passkeyIDs(); len(got) != 1 || len(owner.passkeyIDs()) != 0 {
		t.Errorf("there are passkeys that were refused: %v", got)
	}
}

func TestPasskeyChallengeIsGoodOnce(t *testing.T) {
	var later atomic.Int64
	ada := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(later.Load())) }).claim().withPasskey(authenticator.New(origin))
	challenge := ada.beginAlone(&pb.BeginPasskeySignInRequest{})
	answer, err := ada.passkeys.Get(challenge.GetPasskeyOptions())
	mustNot(t, err)
	send := func(secret string) error {
		_, err := ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: secret, Proof: passkey(answer)})
		return err
	}
	check(t, "an answer to another challenge", send(ada.beginAlone(&pb.BeginPasskeySignInRequest{}).GetSecret()), codes.Unauthenticated, "PROOF_WRONG")
	mustNot(t, send(challenge.GetSecret()))
	check(t, "a replay", send(challenge.GetSecret()), codes.Unauthenticated, "CHALLENGE_OVER")
	if !ada.signedIn(ada.token) {
		t.Error("a replay counts as a copy of the passkey")
	}
	_, err = ada.tryOn(ada.passkeys, challenge)
	check(t, "another answer", err, codes.Unauthenticated, "CHALLENGE_OVER")
	ada = ada.signInAlone(ada.challenged())
	begun, err := ada.factors().BeginPasskey(ada.ctx(), &pb.BeginPasskeyRequest{})
	mustNot(t, err)
	made, err := authenticator.New(origin).Create(begun.GetCreationOptions())
	mustNot(t, err)
	register := func(id int, name string) error {
		_, err := ada.factors().CreatePasskey(ada.ctx(), &pb.CreatePasskeyRequest{
			RequestId: servertest.UUID(id), Setup: begun.GetSetup(), Response: made, Name: name,
		})
		return err
	}
	mustNot(t, register(1, "one"))
	mustNot(t, register(1, "one")) // a repeat
	check(t, "register twice", register(2, "one"), codes.Unauthenticated, "CHALLENGE_OVER")
	next := ada.beginAlone(&pb.BeginPasskeySignInRequest{})
	later.Store(int64(5 * time.Minute))
	_, err = ada.tryOn(ada.passkeys, next)
	check(t, "five minutes later", err, codes.Unauthenticated, "CHALLENGE_OVER")
	if n := len(ada.passkeyIDs()); n != 2 {
		t.Errorf("there are %d passkeys, want 2", n)
	}
}

// SECURITY: whose counter goes back was copied. It proves nothing any more, from neither.
func TestClonedPasskey(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US").withPasskey(authenticator.New(origin))
	thief := ada.passkeys.Copy()
	ada = ada.signInAlone(ada.challenged())
	dry, err := thief.Copy().Get(ada.beginStepUp().GetPasskeyOptions())
	mustNot(t, err)
	_, err = ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{
		Challenge: ada.beginStepUp().GetSecret(), Proof: passkey(dry), ValidateOnly: true,
	})
	check(t, "an answer to another challenge", err, codes.Unauthenticated, "PROOF_WRONG")
	if !ada.signedIn(ada.token) {
		t.Fatal("what proves nothing ends sessions")
	}
	_, err = ada.tryOn(thief, ada.beginAlone(&pb.BeginPasskeySignInRequest{}))
	check(t, "the copy", err, codes.Unauthenticated, "PASSKEY_CLONED")
	if ada.signedIn(ada.token) {
		t.Error("a session lives on that may be the thief's")
	}
	told := func(when string, c *caller) {
		found := c.told("PasskeyCloned")
		if len(found) != 1 || found[0]["user_id"] != ada.user.GetId() || found[0]["passkey_id"] == "" || found[0]["address"] != "127.0.0.1" {
			t.Errorf("%s: told %v, want one entry", when, found)
		}
	}
	told("at once", owner)
	for _, when := range []string{"at once", "after a restart"} {
		s := ada.suite
		if when != "at once" {
			s = s.again()
		}
		for who, d := range map[string]*authenticator.Device{"the thief": thief, "the owner": ada.passkeys} {
			_, err = s.tryOn(d, s.beginAlone(&pb.BeginPasskeySignInRequest{}))
			check(t, when+", "+who, err, codes.Unauthenticated, "PROOF_WRONG")
		}
		ada = ada.in(s)
		challenge := ada.challenged() // the password alone does not do
		if got := challenge.GetFactors(); !slices.Equal(got, []pb.Factor{pb.Factor_FACTOR_RECOVERY_CODE}) {
			t.Errorf("%s: the factors are %v", when, got)
		}
	}
	back := ada.signInBy(recovery(ada.codes[0]))
	list, err := back.factors().ListPasskeys(back.ctx(), &pb.ListPasskeysRequest{})
	mustNot(t, err)
	if len(list.GetPasskeys()) != 1 || list.GetPasskeys()[0].GetCloneTime() == nil {
		t.Errorf("the passkeys are %v", list)
	}
	told("after both were tried again, and a restart", owner.in(ada.suite))
	_, err = back.factors().DeletePasskey(back.ctx(), &pb.DeletePasskeyRequest{Id: list.GetPasskeys()[0].GetId()})
	mustNot(t, err)
	back.withPasskey(authenticator.New(origin))
}

func TestPasskeysOfOnePerson(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	synced := authenticator.New(origin)
	synced.Counts, synced.Flags = false, synced.Flags|authenticator.BackupEligible
	ada = ada.withPasskey(synced)
	ada = ada.signInAlone(ada.challenged())
	ada = ada.signInAlone(ada.challenged()) // one that does not count is no copy
	synced.Flags |= authenticator.BackedUp
	ada = ada.signInAlone(ada.beginStepUp())
	list, err := ada.factors().ListPasskeys(ada.ctx(), &pb.ListPasskeysRequest{})
	mustNot(t, err)
	if got := list.GetPasskeys()[0]; !got.GetBackupEligible() || !got.GetBackedUp() {
		t.Errorf("the passkey is %v", got)
	}
	begun, err := ada.factors().BeginPasskey(ada.ctx(), &pb.BeginPasskeyRequest{})
	mustNot(t, err)
	if _, err := synced.Create(begun.GetCreationOptions()); err == nil {
		t.Error("a device that has a passkey of the person is asked for another")
	}
	for range 19 {
		ada = ada.withPasskey(authenticator.New(origin))
	}
	_, err = ada.tryPasskey(authenticator.New(origin), &pb.CreatePasskeyRequest{})
	check(t, "one too many", err, codes.ResourceExhausted, "LIMIT_REACHED")
	eve := owner.hire("eve", "US")
	_, err = eve.factors().DeletePasskey(eve.ctx(), &pb.DeletePasskeyRequest{Id: list.GetPasskeys()[0].GetId()})
	check(t, "remove somebody else's", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = owner.organizations().UpdateOrganization(owner.ctx(), &pb.UpdateOrganizationRequest{
		Organization: &pb.Organization{Id: owner.user.GetOrganizationId(), SecondFactorRequired: true},
	})
	mustNot(t, err)
	ids := ada.passkeyIDs()
	for i, id := range ids {
		_, err = ada.factors().DeletePasskey(ada.ctx(), &pb.DeletePasskeyRequest{Id: id})
		if i < len(ids)-1 {
			mustNot(t, err)
		}
	}
	check(t, "remove the last second factor", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
}

func TestPasskeysWithoutDomain(t *testing.T) {
	c := config(t)
	c.PasskeyDomain, c.PasskeyOrigins, c.Issuer = "", nil, ""
	s := start(t, c, time.Now, identity.Cheap, permissions.Part)
	s.ready()
	_, err := s.sessions().BeginPasskeySignIn(t.Context(), &pb.BeginPasskeySignInRequest{Surface: pb.Surface_SURFACE_WEB})
	check(t, "sign in", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	owner := s.claim()
	_, err = owner.factors().BeginPasskey(owner.ctx(), &pb.BeginPasskeyRequest{})
	check(t, "register", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
}

// A person in a browser shows a passkey as the second factor, by the one script that the
// page may run.
func TestPasskeyInBrowser(t *testing.T) {
	owner := owned(t)
	client := owner.register(site("openid"))
	ada := owner.hire("ada", "US").withPasskey(authenticator.New(issuer))
	b := owner.browser()
	page := b.submit(b.open(client.authorizePath()), "email", ada.email, "password", ada.password)
	script := regexp.MustCompile(`<script>(.*)</script>`).FindStringSubmatch(page.text)
	options := regexp.MustCompile(`data-options="([^"]*)"`).FindStringSubmatch(page.text)
	if script == nil || options == nil {
		t.Fatalf("the page asks for no passkey: %s", page.text)
	}
	sum := sha256.Sum256([]byte(script[1]))
	if want := "script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "';"; !strings.Contains(page.header.Get("Content-Security-Policy"), want) {
		t.Errorf("the policy is %q, want it to have %q", page.header.Get("Content-Security-Policy"), want)
	}
	answer, err := ada.passkeys.Copy().Get(html.UnescapeString(options[1]))
	mustNot(t, err)
	again := b.submit(page, "passkey", strings.ReplaceAll(answer, "public-key", "password"))
	if again.status != http.StatusForbidden || !strings.Contains(again.text, options[1]) {
		t.Fatalf("after a wrong answer: got %d %s", again.status, again.text)
	}
	page = b.submit(again, "passkey", answer)
	if !strings.Contains(page.text, "asks to act in your name") {
		t.Fatalf("after the passkey: got %d %s", page.status, page.text)
	}
	b.submit(page, "decision", "allow")
	tokens := client.redeem(owner.suite, b.away.Query().Get("code"))
	claims, _ := owner.verify(tokens.str("id_token"), "JWT")
	if !reflect.DeepEqual(claims["amr"], []any{"pwd", "pop", "mfa"}) || claims["acr"] != "multi_factor" {
		t.Errorf("the ID token has amr %v, acr %v", claims["amr"], claims["acr"])
	}
	if got := client.introspects(owner.suite, tokens.str("access_token")); got.body["acr"] != "multi_factor" || got.body["auth_time"] != claims["auth_time"] {
		t.Errorf("the introspection is %s", got.text)
	}
}
