package e2e

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/demo"
)

// granted is the key that these tests give the service professional and take away.
const granted = "ServiceRequests:Create"

// enforced is a company in which the owner changes what the professional may, while
// the client in TypeScript is asked.
type enforced struct {
	t       *testing.T
	suite   *suite
	company *demo.Company
	client  *feedClient
	network *proxy // between the client and the suite, where it is one process
}

func newEnforced(t *testing.T, s *suite) *enforced {
	e := &enforced{t: t, suite: s, company: s.fill()}
	identity, permissions := s.processes["identity"].addr, s.processes["permissions"].addr
	if identity == permissions {
		e.network = newProxy(t, identity)
		identity, permissions = e.network.addr(), e.network.addr()
	}
	e.client = newFeedClient(t, s, identity, permissions)
	return e
}

func (e *enforced) token() string { return e.company.Person("SP").Token }

func (e *enforced) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *enforced) override(key string, effect permissionspb.Effect) {
	e.t.Helper()
	_, err := permissionspb.NewAccessServiceClient(e.suite).SetOverride(e.company.As(e.t.Context(), "OW"), &permissionspb.SetOverrideRequest{
		UserId: e.company.Person("SP").ID, Key: key, Effect: effect, Reason: "a try",
	})
	e.must(err)
}

func (e *enforced) clear(key string) {
	e.t.Helper()
	_, err := permissionspb.NewAccessServiceClient(e.suite).ClearOverride(e.company.As(e.t.Context(), "OW"), &permissionspb.ClearOverrideRequest{
		UserId: e.company.Person("SP").ID, Key: key,
	})
	e.must(err)
}

func (e *enforced) role(id string) {
	e.t.Helper()
	_, err := permissionspb.NewAccessServiceClient(e.suite).SetUserRole(e.company.As(e.t.Context(), "OW"), &permissionspb.SetUserRoleRequest{
		UserId: e.company.Person("SP").ID, RoleId: id,
	})
	e.must(err)
}

// callers ask the client all the time, until the returned function is called. A check
// that began and ended between two changes must be answered as it is then; how many
// did is returned.
func (e *enforced) callers(state *atomic.Pointer[standing]) (stop func() (judged int)) {
	var group sync.WaitGroup
	var judged atomic.Int64
	over := make(chan struct{})
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				before := state.Load()
				got := e.client.check(e.token(), granted)
				if before == nil || state.Load() != before {
					continue // a change was under way
				}
				if got != before.want && got != unavailable {
					e.t.Errorf("after %s had returned the client says %q", before.after, got)
					return
				}
				judged.Add(1)
			}
		})
	}
	return func() int {
		close(over)
		group.Wait()
		return int(judged.Load())
	}
}

// standing is what is true between two changes.
type standing struct{ after, want string }

// TestFeedClient grants and revokes, in several ways, while a client in another language
// enforces with the grants feed, and checks that it never goes by what was true before
// a change that had returned. docs/feed.md says how it is made.
func TestFeedClient(t *testing.T) {
	needFeedClient(t)
	e := newEnforced(t, one(t))
	var state atomic.Pointer[standing]
	change := func(what, want string, do func()) {
		t.Helper()
		state.Store(nil)
		do()
		e.client.mustAnswer(what, e.token(), granted, want)
		state.Store(&standing{what, want})
		for range 5 { // beside the callers'
			e.client.mustAnswer(what, e.token(), granted, want)
		}
	}
	e.client.mustAnswer("at first", e.token(), granted, deny)
	stop := e.callers(&state)
	for range times(4, 100) {
		change("a grant", allow, func() { e.override(granted, permissionspb.Effect_EFFECT_GRANT) })
		change("closing the surface", deny, func() { e.override("App", permissionspb.Effect_EFFECT_DENY) })
		change("opening the surface", allow, func() { e.clear("App") })
		change("a deny", deny, func() { e.override(granted, permissionspb.Effect_EFFECT_DENY) })
		change("a role that has it", deny, func() { e.role("PM") })
		change("the end of the deny", allow, func() { e.clear(granted) })
		change("a role without it", deny, func() { e.role("SP") })
	}
	if judged := stop(); judged == 0 {
		t.Error("no check began and ended between two changes")
	}
	e.knowsActors()
	e.endsSessions()
	e.knowsGrants()
	e.knowsKeys()
}

// knowsActors asks with the token of somebody who acts in another's name.
//
// SECURITY: it does no more than whoever acts may do in his own name, and nothing without the
// key to it.
func (e *enforced) knowsActors() {
	e.t.Helper()
	e.role("OA")
	e.clear(granted)
	e.override("User: Impersonation", permissionspb.Effect_EFFECT_GRANT)
	resp, err := identitypb.NewImpersonationServiceClient(e.suite).ImpersonateUser(e.company.As(e.t.Context(), "SP"),
		&identitypb.ImpersonateUserRequest{UserId: e.company.Person("US").ID, Reason: "a try"})
	e.must(err)
	ask := func(after, want string) { e.client.mustAnswer(after, resp.GetToken(), "Contacts", want) }
	ask("acting for another", allow)
	e.override("Contacts", permissionspb.Effect_EFFECT_DENY)
	ask("a deny of who acts", deny)
	e.clear("Contacts")
	ask("its end", allow)
	e.clear("User: Impersonation")
	ask("the end of acting", deny)
	e.role("SP")
}

// knowsKeys asks with API keys of the owner, who holds every key.
//
// SECURITY: a key carries no more than its scopes, and a brand's one acts in the
// organization that the call names.
func (e *enforced) knowsKeys() {
	e.t.Helper()
	owner, scopes := e.company.As(e.t.Context(), "OW"), []string{"ServiceRequests"}
	own, err := identitypb.NewApiKeyServiceClient(e.suite).CreateApiKey(owner, &identitypb.CreateApiKeyRequest{Name: "a try", Scopes: scopes})
	e.must(err)
	brands := identitypb.NewBrandApiKeyServiceClient(e.suite)
	brand, err := brands.CreateBrandApiKey(owner, &identitypb.CreateBrandApiKeyRequest{Name: "a try", Scopes: scopes})
	e.must(err)
	here := brand.GetApiKey().GetOrganizationId()
	for _, key := range []string{own.GetToken(), own.GetToken() + "@" + here, brand.GetToken() + "@" + here} {
		e.client.mustAnswer("a key within its scopes", key, "ServiceRequests", allow)
		e.client.mustAnswer("a key beyond them", key, granted, deny)
	}
	e.client.mustAnswer("a key of the brand that names no organization", brand.GetToken(), "ServiceRequests", deny)
	e.client.mustAnswer("one that names none of the brand", brand.GetToken()+"@"+brand.GetApiKey().GetId(), "ServiceRequests", deny)
	e.client.mustAnswer("a key that names another organization", own.GetToken()+"@"+brand.GetApiKey().GetId(), "ServiceRequests", deny)
	_, err = brands.RevokeBrandApiKey(owner, &identitypb.RevokeBrandApiKeyRequest{Id: brand.GetApiKey().GetId()})
	e.must(err)
	e.client.mustAnswer("a revoked key", brand.GetToken()+"@"+here, "ServiceRequests", deny)
}

// endsSessions ends sessions in two ways, after which the client denies.
func (e *enforced) endsSessions() {
	e.t.Helper()
	e.override(granted, permissionspb.Effect_EFFECT_GRANT)
	p := *e.company.Person("SP")
	e.must(e.company.SignIn(e.t.Context(), &p))
	e.client.mustAnswer("a second sign-in", p.Token, granted, allow)
	_, err := identitypb.NewSessionServiceClient(e.suite).EndSession(as(e.t.Context(), p.Token), &identitypb.EndSessionRequest{})
	e.must(err)
	e.client.mustAnswer("the end of the session", p.Token, granted, deny)
	e.client.mustAnswer("the end of another session", e.token(), granted, allow)
	_, err = identitypb.NewUserServiceClient(e.suite).DeactivateUser(e.company.As(e.t.Context(), "OW"), &identitypb.DeactivateUserRequest{Id: p.ID})
	e.must(err)
	e.client.mustAnswer("shutting the user out", e.token(), granted, deny)
}

// knowsGrants compares what the client says of every key of the property manager with what
// the suite says, so that the numbers that it goes by are the right ones.
func (e *enforced) knowsGrants() {
	e.t.Helper()
	manager, access := e.company.As(e.t.Context(), "PM"), permissionspb.NewAccessServiceClient(e.suite)
	effective, err := access.GetEffectiveAccess(manager, &permissionspb.GetEffectiveAccessRequest{})
	e.must(err)
	want := map[string]string{"setting:see_pricing": answerOf(effective.GetSettings().GetSeePricing())}
	for _, k := range effective.GetKeys() {
		want[k.GetKey()] = answerOf(k.GetAllowed())
	}
	got := map[string]string{}
	for grant := range want {
		got[grant] = e.client.check(e.company.Person("PM").Token, grant)
	}
	if !maps.Equal(got, want) {
		e.t.Errorf("the client says of the property manager\n%v\nwant\n%v", got, want)
	}
	if got := e.client.check("lk_"+strings.Repeat("0", 49), granted); got != deny {
		e.t.Errorf("the client says %q of a token that nobody has, want %q", got, deny)
	}
	if got := e.client.check(e.token(), "Invoices:Burn"); !strings.HasPrefix(got, "error") {
		e.t.Errorf("the client says %q of a grant that does not exist, want an error", got)
	}
}

func answerOf(holds bool) string {
	if holds {
		return allow
	}
	return deny
}

// TestFeedClientAlone runs the client's own tests, in which everything comes in the order
// that they want.
func TestFeedClientAlone(t *testing.T) {
	needFeedClient(t)
	if out, err := npm(time.Minute, "test"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestFeedClientUnreached takes something away that the client has just allowed while the
// client cannot hear of it: what it says from then on must not be what was true before.
func TestFeedClientUnreached(t *testing.T) {
	needFeedClient(t)
	e := newEnforced(t, one(t, "LATCHKEY_LEASE="+shortLease.String()))
	process, network := e.client.cmd.Process, e.network
	for _, trouble := range []struct {
		what         string
		strike, heal func()
		answers      bool // while it lasts
	}{
		{"frozen", func() { e.must(process.Signal(syscall.SIGSTOP)) }, func() { e.must(process.Signal(syscall.SIGCONT)) }, false},
		{"without answers", func() { network.hold(back) }, func() { network.release(back) }, true},
		{"cut off", func() { network.hold(there, back) }, func() { network.release(there, back) }, true},
	} {
		for range times(1, 50) {
			e.override(granted, permissionspb.Effect_EFFECT_GRANT)
			e.client.mustAnswer("a grant", e.token(), granted, allow)
			trouble.strike()
			e.clear(granted)
			asked := make([]<-chan string, 20)
			for i := range asked {
				asked[i] = e.client.ask(e.token(), granted)
			}
			if !trouble.answers {
				trouble.heal()
			}
			for _, ch := range asked {
				if got := e.client.wait(ch); got != unavailable && (got != deny || trouble.answers) {
					t.Fatalf("%s while a key was taken away, and asked after that, the client says %q", trouble.what, got)
				}
			}
			if trouble.answers {
				trouble.heal()
			}
			e.client.mustAnswer("a revoke", e.token(), granted, deny)
		}
	}
}

// TestFeedClientWithoutSource kills what the client knows its facts from: it says
// that it knows nothing, and knows again when the source is back.
func TestFeedClientWithoutSource(t *testing.T) {
	needFeedClient(t)
	e := newEnforced(t, five(t, "LATCHKEY_LEASE="+shortLease.String()))
	e.override(granted, permissionspb.Effect_EFFECT_GRANT)
	for _, source := range []string{"permissions", "identity"} {
		e.client.mustAnswer("a grant", e.token(), granted, allow)
		p := e.suite.processes[source]
		p.kill()
		e.untilUnavailable(source)
		for range 3 {
			if got := e.client.check(e.token(), granted); got != unavailable {
				t.Errorf("without %s the client says %q, want %q", source, got, unavailable)
			}
		}
		e.suite.start(p)
		e.suite.readyOne(source)
		e.client.mustAnswer("a restart of "+source, e.token(), granted, allow)
	}
	e.insist("revoke", func() error {
		_, err := permissionspb.NewAccessServiceClient(e.suite).ClearOverride(e.company.As(t.Context(), "OW"), &permissionspb.ClearOverrideRequest{
			UserId: e.company.Person("SP").ID, Key: granted,
		})
		return err
	})
	e.client.mustAnswer("a revoke after the restarts", e.token(), granted, deny)
}

// untilUnavailable waits until the client has noticed that a source is gone; its
// lease may last until then.
func (e *enforced) untilUnavailable(source string) {
	e.t.Helper()
	for end := time.Now().Add(patience); ; {
		got := e.client.check(e.token(), granted)
		if got == unavailable {
			return
		}
		if got != allow || time.Now().After(end) {
			e.t.Fatalf("%s is killed, and the client says %q", source, got)
		}
	}
}

// insist repeats what may meet a service that has just come back.
func (e *enforced) insist(what string, do func() error) {
	e.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err = do(); err == nil {
			return
		}
	}
	e.t.Fatalf("%s: %v", what, err)
}
