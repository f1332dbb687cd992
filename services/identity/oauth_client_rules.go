package identity

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
)

const (
	grantCode   = pb.OauthGrantType_OAUTH_GRANT_TYPE_AUTHORIZATION_CODE
	grantClient = pb.OauthGrantType_OAUTH_GRANT_TYPE_CLIENT_CREDENTIALS
	grantDevice = pb.OauthGrantType_OAUTH_GRANT_TYPE_DEVICE_CODE
)

// mayUse tells whether a client may come to tokens in a way.
func mayUse(c *pb.OauthClient, way pb.OauthGrantType) bool {
	return slices.Contains(c.GetGrantTypes(), way)
}

// checkClient returns nil if a client fits together, and is to do nothing by itself that
// the caller may not do.
func checkClient(c *pb.OauthClient, caller *authz.Principal) error {
	switch {
	case c.GetOwner() == 0:
		return fault.Invalid("oauth_client.owner", "must say whose users the client serves")
	case c.GetKind() == 0:
		return fault.Invalid("oauth_client.kind", "must say whether the client can keep a secret")
	case len(c.GetGrantTypes()) == 0:
		return fault.Invalid("oauth_client.grant_types", "must name at least one way to come to tokens")
	case mayUse(c, grantCode) && len(c.GetRedirectUris()) == 0:
		return fault.Invalid("oauth_client.redirect_uris", "must say where people are sent back to with a code")
	case len(c.GetScopes()) == 0:
		return fault.Invalid("oauth_client.scopes", "must name at least one scope")
	}
	if err := checkName("oauth_client.name", c.GetName()); err != nil {
		return err
	}
	for _, uri := range c.GetRedirectUris() {
		if !fitsRedirect(uri) {
			return fault.Invalid("oauth_client.redirect_uris", redirectRule)
		}
	}
	for _, uri := range c.GetPostLogoutRedirectUris() {
		if !fitsRedirect(uri) {
			return fault.Invalid("oauth_client.post_logout_redirect_uris", redirectRule)
		}
	}
	for _, scope := range c.GetScopes() {
		if !isScope(scope) {
			return fault.Invalid("oauth_client.scopes", "must be openid, profile, email, offline_access, all, or keys of the catalog without their blanks, and %q is none", scope)
		}
	}
	return checkActsAlone(c, caller)
}

// checkActsAlone returns nil if a client that acts by itself can, and may.
func checkActsAlone(c *pb.OauthClient, caller *authz.Principal) error {
	if !mayUse(c, grantClient) {
		if c.GetServiceAccountId() != "" {
			return fault.Invalid("oauth_client.service_account_id", "must be left out for a client without client credentials: it acts as the people who let it in")
		}
		return nil
	}
	switch {
	case c.GetKind() != confidential:
		return fault.Invalid("oauth_client.grant_types", "must not have client credentials without a secret: a public client has none")
	case c.GetOwner() == brandOwned:
		return fault.Invalid("oauth_client.grant_types", "must not have client credentials for a brand: a client acts by itself in one organization")
	case c.GetServiceAccountId() != "" && slices.Contains(c.GetScopes(), scopeAll):
		return fault.Invalid("oauth_client.scopes", "must not have all for a service account: what the account is given later is not for everybody who knows the secret")
	}
	if err := checkActor(c, caller, pb.OauthClientService_UpdateOauthClient_FullMethodName); err != nil {
		return err
	}
	if slices.Contains(c.GetScopes(), scopeAll) {
		return nil // never more than its maker holds
	}
	for key := range carriedBy(c.GetScopes()).Without(caller.Grants).All() {
		return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_BEYOND_OWN_GRANTS,
			fmt.Sprintf("you do not have the permission %s yourself: a client that acts by itself can have only what you have", key),
			map[string]string{"grant": key.String()})
	}
	return nil
}

// checkActor returns nil unless a client acts by itself as somebody else than the caller,
// or as a service account although the caller does not manage those.
func checkActor(c *pb.OauthClient, caller *authz.Principal, method string) error {
	switch {
	case !mayUse(c, grantClient):
		return nil
	case c.GetServiceAccountId() != "":
		return manages(caller, method)
	case c.GetUserId() != caller.ID:
		return fault.Relation("who made the client")
	}
	return nil
}

// actsAs returns the user as whom a client acts by itself.
func actsAs(c *pb.OauthClient) string {
	if account := c.GetServiceAccountId(); account != "" {
		return account
	}
	return c.GetUserId()
}

const redirectRule = "must be https, http on 127.0.0.1 or [::1], or of a private scheme with a dot in it, and without a fragment or a user"

// fitsRedirect tells whether a URI can be one that people are sent to: see redirectRule
// (RFC 6749 3.1.2, RFC 8252 7).
func fitsRedirect(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || u.Fragment != "" || strings.Contains(uri, "#") || u.User != nil || strings.ContainsAny(uri, " \t\r\n\\*") || !isASCII(uri) {
		return false
	}
	switch u.Scheme {
	case "https":
		return u.Hostname() != ""
	case "http":
		ip := net.ParseIP(u.Hostname())
		return ip != nil && ip.IsLoopback()
	}
	return strings.Contains(u.Scheme, ".") && u.Host == "" && u.Opaque == ""
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' })
}

// matchesRedirect tells whether an asked URI is one of those that are registered.
func matchesRedirect(asked string, registered []string) bool {
	for _, uri := range registered {
		if asked == uri || anyPort(asked) != "" && anyPort(asked) == anyPort(uri) {
			return true
		}
	}
	return false
}

// anyPort returns a URI of http on a loopback address without its port, and "" of any
// other: a native program cannot choose a port beforehand (RFC 8252 7.3).
func anyPort(uri string) string {
	if !fitsRedirect(uri) || !strings.HasPrefix(uri, "http://") {
		return ""
	}
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	u.Host = u.Hostname()
	return u.String()
}
