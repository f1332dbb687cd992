package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/server"
)

// Bounds of what is asked outside.
const (
	outsideTime = 10 * time.Second // that one request may take
	outsideBody = 1 << 20          // bytes of an answer that are read
	outsideAsks = 32               // requests of people that ask outside at once
	// maxDiscovered is how many providers' documents are kept, and discoveredLife how long:
	// those that could not be read for shorter, so that nobody makes the suite ask again and
	// again.
	maxDiscovered  = 200
	discoveredLife = time.Hour
	failedLife     = 5 * time.Second
)

// outside asks outside providers.
//
// SECURITY: who configures a provider chooses where the suite goes. It goes by https only,
// to public addresses only, as they are when it connects and not before, follows no redirect,
// uses no proxy, and reads and waits so much and no more. See server.Outside for exceptions.
type outside struct {
	allowed server.Outside
	client  *http.Client
	now     func() time.Time
	asks    chan struct{}

	mu    sync.Mutex
	known map[string]*discovery // by issuer
}

// discovery is what a provider says of itself (OpenID Connect Discovery 1.0 4).
type discovery struct {
	*oidc.Provider
	described
	keySet oidc.KeySet
	done   chan struct{} // closed when it is known, or err
	err    error
	until  time.Time
}

// described is what the library does not read.
type described struct {
	TokenAuth   []string `json:"token_endpoint_auth_methods_supported"`
	NamesIssuer bool     `json:"authorization_response_iss_parameter_supported"`
	KeysURI     string   `json:"jwks_uri"`
}

func newOutside(allowed server.Outside, now func() time.Time) *outside {
	o := &outside{allowed: allowed, now: now, asks: make(chan struct{}, outsideAsks), known: map[string]*discovery{}}
	dialer := &net.Dialer{Timeout: outsideTime, Control: func(_, address string, _ syscall.RawConn) error { return o.checkAddress(address) }}
	o.client = &http.Client{
		Timeout:       outsideTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return unfit("it sends elsewhere") },
		Transport: &guarded{o, &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: outsideTime,
			ResponseHeaderTimeout: outsideTime, MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives: true, // so that each request is held against the bounds
		}},
	}
	return o
}

// unfit is why a provider cannot be gone by.
type unfit string

// Error says why.
func (u unfit) Error() string { return string(u) }

// guarded is a transport that keeps to the bounds.
type guarded struct {
	*outside
	transport *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (w *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if !w.fitsScheme(r.URL) {
		return nil, unfit("one of its URLs is not of https")
	}
	resp, err := w.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	resp.Body = bounded{io.LimitReader(resp.Body, outsideBody), resp.Body}
	return resp, nil
}

// bounded is a body of which no more than a bound is read.
type bounded struct {
	io.Reader
	io.Closer
}

// fitsScheme tells whether a URL may be gone to, as far as it says itself: by https, or
// where that is allowed by http on the machine itself.
func (o *outside) fitsScheme(u *url.URL) bool {
	switch u.Scheme {
	case "https":
		return u.Hostname() != ""
	case "http":
		ip, err := netip.ParseAddr(u.Hostname())
		return o.allowed.Loopback && err == nil && ip.IsLoopback()
	}
	return false
}

// fitsIssuer tells whether a text can be an issuer (OpenID Connect Discovery 1.0 3).
func (o *outside) fitsIssuer(text string) bool {
	u, err := url.Parse(text)
	return err == nil && isASCII(text) && u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" &&
		u.String() == text && u.Opaque == "" && o.fitsScheme(u)
}

// private are the networks beside those that netip knows which are not of everybody: of
// carriers (RFC 6598), of tests and documentation (RFC 2544, 5737, 3849), reserved, and those
// in which addresses of IPv4 hide (RFC 6052, 3056, 4380).
var private = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("fec0::/10"), netip.MustParsePrefix("::/96"),
}

// checkAddress says that the suite does not go to an address.
func (o *outside) checkAddress(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return unfit("it has no address")
	}
	ip := at.Addr().Unmap().WithZone("")
	holds := func(p netip.Prefix) bool { return p.Contains(ip) }
	switch {
	case slices.ContainsFunc(o.allowed.Networks, holds), o.allowed.Loopback && ip.IsLoopback():
		return nil
	case !ip.IsGlobalUnicast() || ip.IsPrivate() || slices.ContainsFunc(private, holds):
		return unfit("it is at an address to which the suite does not go (--outside-networks)")
	}
	return nil
}

// ask runs what asks outside, unless too many do at once.
func (o *outside) ask(ctx context.Context, f func(context.Context) error) error {
	select {
	case o.asks <- struct{}{}:
	default:
		return fault.Limit("sign-ins by outside providers at once", time.Second)
	}
	defer func() { <-o.asks }()
	ctx, cancel := context.WithTimeout(ctx, outsideTime)
	defer cancel()
	return f(oidc.ClientContext(ctx, o.client))
}

// discover returns what a provider says of itself.
func (o *outside) discover(ctx context.Context, issuer string) (*discovery, error) {
	d, fresh := o.remembered(issuer)
	if fresh {
		// For all who wait, so not only as long as this caller does.
		d.err = o.ask(context.WithoutCancel(ctx), func(ctx context.Context) error { return d.read(ctx, o, issuer) })
		if d.err != nil {
			o.mu.Lock()
			d.until = o.now().Add(failedLife)
			o.mu.Unlock()
		}
		close(d.done)
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d.err != nil {
		return nil, outsideFault(ctx, issuer, d.err)
	}
	return d, nil
}

// remembered returns what is known of an issuer, or is being asked; fresh if it is up to the
// caller to ask.
func (o *outside) remembered(issuer string) (d *discovery, fresh bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d, ok := o.known[issuer]; ok && o.now().Before(d.until) {
		return d, false
	}
	if len(o.known) >= maxDiscovered {
		oldest := ""
		for other, d := range o.known {
			if oldest == "" || d.until.Before(o.known[oldest].until) {
				oldest = other
			}
		}
		delete(o.known, oldest)
	}
	d = &discovery{done: make(chan struct{}), until: o.now().Add(discoveredLife)}
	o.known[issuer] = d
	return d, true
}

// read asks the provider.
func (d *discovery) read(ctx context.Context, o *outside, issuer string) (err error) {
	if d.Provider, err = oidc.NewProvider(ctx, issuer); err != nil {
		return err
	}
	if err := d.Claims(&d.described); err != nil {
		return err
	}
	for _, text := range []string{d.Endpoint().AuthURL, d.Endpoint().TokenURL, d.KeysURI} {
		if u, err := url.Parse(text); err != nil || !o.fitsScheme(u) {
			return unfit("one of its URLs is not of https")
		}
	}
	d.keySet = oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), o.client), d.KeysURI)
	return nil
}

// outsideFault says what is wrong with a provider that was asked: it does not answer, or
// answers what cannot be gone by.
func outsideFault(ctx context.Context, issuer string, err error) error {
	if known, ok := errors.AsType[*fault.Error](err); ok {
		return known
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	metadata := map[string]string{"issuer": issuer}
	var why unfit
	var unanswered *url.Error
	switch {
	case errors.As(err, &why):
	case errors.As(err, &unanswered), errors.Is(err, context.DeadlineExceeded):
		return fault.New(codes.Unavailable, faultpb.Reason_REASON_PROVIDER_UNREACHABLE,
			fmt.Sprintf("the provider %s does not answer: try again", issuer), metadata)
	default:
		why = "it does not answer as OpenID Connect has it"
	}
	return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_PROVIDER_UNFIT,
		fmt.Sprintf("the provider %s cannot be gone by: %s", issuer, why), metadata)
}
