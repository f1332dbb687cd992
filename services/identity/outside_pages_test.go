package identity_test

import (
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

var providerAddress = regexp.MustCompile(`<a href="([^"]*)">Sign in by Company account</a>`)

// leave goes from a page to the provider, and returns where that is.
func (b *browser) leave(page *reply) *url.URL {
	b.t.Helper()
	m := providerAddress.FindStringSubmatch(page.text)
	if m == nil {
		b.t.Fatalf("no provider on the page: %d %s", page.status, page.text)
	}
	if page := b.open(html.UnescapeString(m[1])); b.away == nil {
		b.t.Fatalf("not sent away: %d %s", page.status, page.text)
	}
	return b.away
}

// arrive comes back from the provider.
func (b *browser) arrive(answer *pb.OutsideAnswer) *reply {
	b.t.Helper()
	return b.open("/oauth2/outside/callback?" + values("state", answer.GetState(), "code", answer.GetCode(), "iss", answer.GetIss()).Encode())
}

func TestPageWithProvider(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid"))
	f := newFake(t)
	ada := owner.hire("ada", "US").linked(f, owner.configureFake(f), "ada there")
	b := owner.browser()
	away := b.leave(b.open(c.authorizePath()))
	if away.Query().Get("redirect_uri") != issuer+"/oauth2/outside/callback" || away.Query().Has("prompt") {
		t.Errorf("sent to %v", away)
	}
	page := b.arrive(f.answer("ada there", away.String()))
	if !strings.Contains(page.text, "asks to act in your name") {
		t.Fatalf("got %d %s, want to be asked to consent", page.status, page.text)
	}
	b.submit(page, "decision", "allow")
	tokens := c.redeem(owner.suite, b.away.Query().Get("code"))
	claims, _ := owner.verify(tokens.str("id_token"), "JWT")
	if claims["sub"] != ada.user.GetId() || claims["acr"] != "single_factor" || claims["amr"].([]any)[0] != "fed" {
		t.Errorf("got %v, want ada", claims)
	}
	away = b.leave(b.open(c.authorizePath("prompt", "login")))
	if away.Query().Get("prompt") != "login" || away.Query().Get("max_age") != "0" {
		t.Errorf("with prompt=login: sent to %v", away)
	}
	if b.arrive(f.answer("ada there", away.String())); b.away == nil || b.away.Query().Get("code") == "" {
		t.Errorf("got %v, want a code", b.away)
	}
	owner.update(ada.outsideAccount.provider, func(p *pb.OutsideProvider) { p.Disabled = true }, "disabled")
	if page := owner.browser().open(c.authorizePath()); providerAddress.MatchString(page.text) {
		t.Errorf("disabled: got %s", page.text)
	}
}

// SECURITY: nobody is signed in as somebody else by a link that others made.
func TestCallbackIsOfTheBrowser(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid"))
	f := newFake(t)
	mallory := owner.hire("mallory", "US").linked(f, owner.configureFake(f), "mallory there")
	theirs, hers := owner.browser(), owner.browser()
	answer := f.answer("mallory there", theirs.leave(theirs.open(c.authorizePath())).String())
	if page := hers.arrive(answer); page.status != 400 || !strings.Contains(page.text, "not begun in this browser") {
		t.Errorf("in a browser that began nothing: got %d %s", page.status, page.text)
	}
	hers.leave(hers.open(c.authorizePath()))
	if page := hers.arrive(answer); page.status != 403 || !strings.Contains(page.text, "<h1>Sign in</h1>") {
		t.Errorf("in a browser that began another: got %d %s", page.status, page.text)
	}
	if page := hers.open(c.authorizePath()); !strings.Contains(page.text, "<h1>Sign in</h1>") {
		t.Errorf("signed in: %s", page.text)
	}
	theirs.leave(theirs.open(c.authorizePath()))
	if page := theirs.open("/oauth2/outside/callback?error=access_denied"); page.status != 403 || !strings.Contains(page.text, "the provider did not sign you in") {
		t.Errorf("refused there: got %d %s", page.status, page.text)
	}
	if page := theirs.arrive(answer); page.status != 400 {
		t.Errorf("after that: got %d, want to begin anew", page.status)
	}
	for _, next := range []string{"https://evil.example/", "//evil.example/oauth2/authorize", "/oauth2/token", ""} {
		path := "/oauth2/outside?" + values("provider", mallory.outsideAccount.provider.GetId(), "continue", next).Encode()
		if page := theirs.open(path); page.status != 400 {
			t.Errorf("on to %q: got %d", next, page.status)
		}
	}
	f.change(func(f *fake) { f.Listener.Close() })
	owner.update(mallory.outsideAccount.provider, func(p *pb.OutsideProvider) { p.Disabled = true }, "disabled")
	path := "/oauth2/outside?" + values("provider", mallory.outsideAccount.provider.GetId(), "continue", c.authorizePath()).Encode()
	if page := theirs.open(path); page.status != 403 || theirs.away != nil {
		t.Errorf("a disabled provider: got %d %v", page.status, theirs.away)
	}
}

// Who has a second factor shows it after the provider, and who is in several organizations of
// a brand says to which.
func TestPageAfterProvider(t *testing.T) {
	owner := owned(t)
	client := owner.register(with(site("openid"), func(c *pb.OauthClient) { c.Owner = pb.OauthClientOwner_OAUTH_CLIENT_OWNER_BRAND }))
	other := owner.found("another")
	f := newFake(t)
	boss := owner.linked(f, owner.configureFake(f, func(p *pb.OutsideProvider) { p.Owner = ofBrand }), "boss there").withApp()
	b := owner.browser()
	page := b.arrive(f.answer("boss there", b.leave(b.open(client.authorizePath())).String()))
	policy := page.header.Get("Content-Security-Policy")
	if !strings.Contains(page.text, "Which organization?") || !strings.Contains(page.text, other.session.GetOrganizationId()) || !strings.Contains(policy, "form-action 'self' "+f.URL+";") {
		t.Fatalf("got %d %s %s", page.status, policy, page.text)
	}
	q := values("organization", other.session.GetOrganizationId())
	for _, field := range hidden.FindAllStringSubmatch(page.text, -1) {
		q.Set(field[1], html.UnescapeString(field[2]))
	}
	if b.open("/oauth2/outside?" + q.Encode()); b.away == nil {
		t.Fatal("not sent to the provider")
	}
	page = b.arrive(f.answer("boss there", b.away.String()))
	if !strings.Contains(page.text, "One thing more") {
		t.Fatalf("got %d %s, want to be asked for more", page.status, page.text)
	}
	page = b.submit(page, "code", boss.codes[1])
	if !strings.Contains(page.text, "asks to act in your name") {
		t.Errorf("got %d %s", page.status, page.text)
	}
}
