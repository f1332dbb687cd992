package identity

import (
	"context"
	"crypto/subtle"
	"net/http"

	"google.golang.org/grpc/metadata"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"

	"latchkey.dev/services/internal/store"
)

// The metadata by which our own pages say for which browser they call.
const (
	pageKeyHeader     = "latchkey-page-key"
	pageAddressHeader = "latchkey-page-address"
	pageAgentHeader   = "latchkey-page-agent-bin" // in which a browser may write anything
)

// forBrowser is the context in which a page calls the API for the browser that asks, so that
// wrong passwords count for where it is, and sessions tell so.
func (s *service) forBrowser(r *http.Request) context.Context {
	return metadata.AppendToOutgoingContext(r.Context(),
		pageKeyHeader, s.pageKey, pageAddressHeader, s.addressOf(r), pageAgentHeader, cutAgent(r.UserAgent()))
}

// addressOf returns where a request comes from.
func (s *service) addressOf(r *http.Request) string {
	return s.proxies.Address(r.RemoteAddr, r.Header.Values("X-Forwarded-For"))
}

// placeOfPage returns where the browser is for which one of our own pages makes a call.
//
// SECURITY: only pages know the key, which this process has made up for them. Whoever could say
// himself where he is would guess passwords from wherever he likes.
func (s *service) placeOfPage(ctx context.Context) (place, bool) {
	said := func(name string) string {
		if values := metadata.ValueFromIncomingContext(ctx, name); len(values) == 1 {
			return values[0]
		}
		return ""
	}
	if subtle.ConstantTimeCompare([]byte(said(pageKeyHeader)), []byte(s.pageKey)) != 1 {
		return place{}, false
	}
	return place{address: said(pageAddressHeader), userAgent: said(pageAgentHeader)}, true
}

// strange tells whether a browser is to be remembered as a device of whoever signs in.
func (s *service) strange(r *http.Request, email string) (bool, error) {
	email, _ = normalEmail(email)
	return read(r.Context(), s, func(tx *store.Tx) (bool, error) {
		p, _ := profileByEmail.First(tx, email)
		return knownDevice(tx, p.GetId(), s.cookieOf(r, deviceCookie)) == "", nil
	})
}

// keepDevice lets a browser be known as a device of whoever has signed in.
func (s *service) keepDevice(w http.ResponseWriter, token string) {
	if token == "" {
		return
	}
	c := s.cookie(deviceCookie, token)
	c.MaxAge = int(knownLife.Seconds())
	http.SetCookie(w, c)
}

// seenBy says of a client's session where the browser was in which its person let it in.
func (o *admission) seenBy(tx *store.Tx, code *identitystorepb.AuthorizationCode) {
	browser, _ := sessions.Get(tx, code.GetSessionId())
	o.session.Address, o.session.UserAgent, o.session.DeviceName = browser.GetAddress(), browser.GetUserAgent(), browser.GetDeviceName()
}
