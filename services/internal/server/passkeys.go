package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Passkeys says for whom passkeys are made, and where people show them.
type Passkeys struct {
	// Domain is the relying party id of Web Authentication; empty if there is none.
	Domain string
	// Origins are those of pages and apps in which a passkey may be shown.
	Origins []string
}

// origins are those of --passkey-origins.
type origins []string

func (o origins) String() string { return strings.Join(o, ",") }

// Set reads origins with commas between them, in the place of those from before.
func (o *origins) Set(text string) error {
	*o = nil
	for origin := range strings.SplitSeq(text, ",") {
		if origin = strings.TrimSpace(origin); origin != "" {
			*o = append(*o, origin)
		}
	}
	return nil
}

// passkeys returns what the operator said, or else what goes without saying where HTTP is
// served under a name: browsers take no address for a domain.
func (c *Config) passkeys(issuer string) Passkeys {
	p := Passkeys{c.PasskeyDomain, c.PasskeyOrigins}
	u, err := url.Parse(issuer)
	named := err == nil && domainForm.MatchString(u.Hostname())
	if p.Domain == "" && named {
		p.Domain = u.Hostname()
	}
	switch {
	case p.Domain == "":
		return Passkeys{}
	case len(p.Origins) > 0:
	case named && inDomain(u.Hostname(), p.Domain):
		p.Origins = []string{issuer}
	default:
		p.Origins = []string{"https://" + p.Domain}
	}
	return p
}

// domainForm is a name of letters, digits and dashes that is no IP address, and localhost.
var domainForm = regexp.MustCompile(`^(localhost|([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?)$`)

func inDomain(host, domain string) bool { return host == domain || strings.HasSuffix(host, "."+domain) }

// checkPasskeys wants origins that a browser would let use a passkey of the domain.
func (c *Config) checkPasskeys() error {
	if c.PasskeyDomain != "" && (!domainForm.MatchString(c.PasskeyDomain) || len(c.PasskeyDomain) > 253) {
		return fmt.Errorf("--passkey-domain %q: expected a domain in small letters, for example example.com, or localhost", c.PasskeyDomain)
	}
	domain := c.passkeys(c.Issuer).Domain
	if domain == "" && len(c.PasskeyOrigins) > 0 {
		return errors.New("--passkey-origins needs --passkey-domain, or an --issuer with a name")
	}
	pages := 0
	for _, origin := range c.PasskeyOrigins {
		if hash, ok := strings.CutPrefix(origin, "android:apk-key-hash:"); ok {
			if b, err := base64.RawURLEncoding.Strict().DecodeString(hash); err != nil || len(b) != 32 {
				return fmt.Errorf("--passkey-origins %s: expected the SHA-256 of the app's certificate, in base64url without padding", origin)
			}
			continue
		}
		u, err := url.Parse(origin)
		local := err == nil && u.Scheme == "http" && inDomain(u.Hostname(), "localhost")
		if err != nil || u.Host == "" || origin != u.Scheme+"://"+u.Host || u.Scheme != "https" && !local || !inDomain(u.Hostname(), domain) {
			return fmt.Errorf("--passkey-origins %s: expected https://HOST without a path, where HOST is %s or ends with .%s", origin, domain, domain)
		}
		pages++
	}
	if pages == 0 && len(c.PasskeyOrigins) > 0 {
		return errors.New("--passkey-origins: expected an origin of a page too, for example https://" + domain)
	}
	return nil
}
