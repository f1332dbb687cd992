package identity_test

import (
	"html"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// answerAfter is how the second factor is shown on a page after a provider's word.
const answerAfter = "answer a challenge on a page, after a provider"

// onPage are the ways to sign in by a provider over HTTP.
var onPage = []string{"sign in by a provider on a page", "come back from a provider to a page"}

// pathOnPage is the path of the gate that a way over HTTP goes.
var pathOnPage = map[string]string{
	"sign in by a provider on a page":     "sign in by a provider",
	"come back from a provider to a page": "sign in by a provider",
	answerAfter:                           "answer a challenge",
}

// pageTries is how often the tests go one way with one person. Each time takes a journey of
// its own, because what a page shows cannot be tried without using it up.
const pageTries = 3

// journey is a browser that was sent to a provider and has not come back.
type journey struct {
	cookies []*http.Cookie
	away    *url.URL
}

// asking is a page that asks for a second factor after a provider's word.
type asking struct {
	cookies []*http.Cookie
	page    *reply
	code    string // that answers it
}

// begun is what somebody has begun on pages: the journeys and what asks for more.
type begun struct {
	onward   string // where the browser goes on to
	journeys []journey
	asking   []asking
	gone     map[string]int // how often each way was gone
}

// withJourneys sends the caller to the provider from some browsers, on the way to where a
// client is let in.
func (c *caller) withJourneys(client *registered) *caller {
	c.t.Helper()
	next := *c
	next.begun = &begun{onward: client.authorizePath(), gone: map[string]int{}}
	for range pageTries {
		b, err := next.leaveOnPage()
		mustNot(c.t, err)
		next.begun.journeys = append(next.begun.journeys, journey{b.client.Jar.Cookies(next.callback()), b.away})
	}
	return &next
}

// withAsking is withJourneys, come back to be asked for the second factor.
func (c *caller) withAsking(client *registered) *caller {
	c.t.Helper()
	next := c.withJourneys(client)
	for i, j := range next.begun.journeys {
		page := next.comeBack(j)
		if !strings.Contains(page.text, "One thing more") {
			c.t.Fatalf("got %d %s, want to be asked for the second factor", page.status, page.text)
		}
		next.begun.asking = append(next.begun.asking, asking{page.client.Jar.Cookies(next.callback()), page.reply, next.codes[6+i]})
	}
	next.begun.journeys = nil
	return next
}

// shown is a page, with the browser that shows it.
type shown struct {
	*browser
	*reply
}

func (c *caller) callback() *url.URL {
	c.t.Helper()
	at, err := url.Parse(c.Issuer() + "/oauth2/outside/callback")
	mustNot(c.t, err)
	return at
}

// leaveOnPage goes to the provider in a new browser.
func (c *caller) leaveOnPage() (*browser, error) {
	c.t.Helper()
	b := c.browser()
	page := b.open("/oauth2/outside?" + values("provider", c.outsideAccount.id(), "continue", c.begun.onward).Encode())
	if b.away == nil {
		return nil, shown{b, page}.letIn()
	}
	return b, nil
}

// comeBack comes back from the provider in the browser of a journey.
func (c *caller) comeBack(j journey) shown {
	c.t.Helper()
	b := c.browserWith(j.cookies)
	return shown{b, b.arrive(c.outsideAccount.answer(c.outsideAccount.subject, j.away.String()))}
}

// browserWith is one that has these cookies, also after a restart.
func (c *caller) browserWith(cookies []*http.Cookie) *browser {
	c.t.Helper()
	b := c.browser()
	for _, cookie := range cookies {
		cookie.Path = "/"
	}
	b.client.Jar.SetCookies(c.callback(), cookies)
	return b
}

// signInOnPage signs in by the provider and goes on to the client.
func (c *caller) signInOnPage() error {
	c.t.Helper()
	b, err := c.leaveOnPage()
	if err != nil {
		return err
	}
	return c.comeBack(journey{b.client.Jar.Cookies(c.callback()), b.away}).letIn()
}

// comeBackToPage is signInOnPage, begun before.
func (c *caller) comeBackToPage() error {
	c.t.Helper()
	return c.comeBack(c.begun.journeys[c.begun.next("come back")]).letIn()
}

// answerOnPage shows the second factor on a page that asked for it before.
func (c *caller) answerOnPage() error {
	c.t.Helper()
	return c.answerAsked(c.begun.asking[c.begun.next("answer")]).letIn()
}

func (c *caller) answerAsked(a asking) shown {
	c.t.Helper()
	b := c.browserWith(a.cookies)
	return shown{b, b.submit(a.page, "code", a.code)}
}

// next counts how often a way was gone.
func (b *begun) next(way string) int {
	b.gone[way]++
	return b.gone[way] - 1
}

// letIn returns nil if a page lets somebody in, and else what it says.
func (s shown) letIn() error {
	switch {
	case s.status == 200 && strings.Contains(s.text, "asks to act in your name"), s.away != nil && s.away.Query().Get("code") != "":
		return nil
	case s.status == 200 || s.away != nil:
		return status.Errorf(codes.Unauthenticated, "%d %s %v", s.status, s.text, s.away)
	case s.status == 403:
		return status.Error(codes.PermissionDenied, s.text)
	}
	return refusedHTTP(s.reply)
}

// finish uses up all that was begun on pages.
func (c *caller) finish() {
	c.t.Helper()
	for _, j := range c.begun.journeys {
		c.comeBack(j)
	}
	for _, a := range c.begun.asking {
		c.answerAsked(a)
	}
}

// challenges are the secrets of what was begun on pages.
func (b *begun) challenges() (secrets []string) {
	if b == nil {
		return nil
	}
	for _, j := range b.journeys {
		for _, cookie := range j.cookies {
			if strings.HasSuffix(cookie.Name, "latchkey-outside") {
				secrets = append(secrets, cookie.Value)
			}
		}
	}
	for _, a := range b.asking {
		for _, field := range hidden.FindAllStringSubmatch(a.page.text, -1) {
			if field[1] == "challenge" {
				secrets = append(secrets, html.UnescapeString(field[2]))
			}
		}
	}
	return secrets
}
