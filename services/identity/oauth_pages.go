package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"strings"
)

// The pages load nothing and cannot be framed. They have no script but the one that asks a
// passkey, and do without it.

type signInForm struct {
	Form, Continue, Email, Organization, Client, Problem string
	Providers                                            []providerLink
}

type challengeForm struct {
	Form, Challenge, Continue, Problem, SetupKey, PasskeyOptions string
	SetupURI                                                     template.URL
}

type recoveryPage struct {
	Codes    []string
	Continue string
}

type consentForm struct {
	Form, Continue, Client, User string
	Scopes                       []string
}

type signOutForm struct{ Form, ClientID, Redirect, State string }

type deviceForm struct {
	Form, Code, Client, Problem string
	Scopes                      []string
}

type errorPage struct{ Problem string }

const pageStyle = `body{font:1rem/1.5 system-ui,sans-serif;max-width:24rem;margin:4rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}` +
	`label{display:block;margin:1rem 0 .25rem}input{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;border:1px solid #767676;border-radius:.25rem}` +
	`button{font:inherit;padding:.5rem 1.25rem;margin:1.25rem .5rem 0 0;border:1px solid #1a4f9c;border-radius:.25rem;background:#1a4f9c;color:#fff}` +
	`button[value=deny]{background:#fff;color:#1a4f9c}[role=alert]{color:#a40000}`

// passkeyScript shows the button for a passkey where the browser knows them, and sends what
// the passkey answers.
const passkeyScript = `(()=>{const b=document.getElementById("use-passkey"),f=b.form;` +
	`if(!window.PublicKeyCredential||!PublicKeyCredential.parseRequestOptionsFromJSON)return;b.hidden=false;` +
	`b.onclick=async()=>{try{const c=await navigator.credentials.get({publicKey:PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(b.dataset.options))});` +
	`f.elements.passkey.value=JSON.stringify(c.toJSON());f.submit()}catch(e){b.textContent="That did not work: try again"}}})()`

var pages = template.Must(template.New("pages").Parse(`
{{define "head"}}<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><title>{{.}}</title><style>` + pageStyle + `</style></head><body><main>{{end}}
{{define "foot"}}</main></body></html>
{{end}}
{{define "sign-in"}}{{template "head" "Sign in"}}<h1>Sign in</h1>
{{if .Client}}<p>to go on to {{.Client}}</p>{{end}}{{if .Problem}}<p role="alert">{{.Problem}}</p>{{end}}
<form method="post" action="/oauth2/sign-in"><input type="hidden" name="form" value="{{.Form}}"><input type="hidden" name="continue" value="{{.Continue}}">
<label for="email">E-mail address</label><input id="email" name="email" type="email" autocomplete="username" required value="{{.Email}}">
<label for="password">Password</label><input id="password" name="password" type="password" autocomplete="current-password" required>
<label for="organization">Organization, if you are in several</label><input id="organization" name="organization" value="{{.Organization}}">
<button>Sign in</button></form>{{range .Providers}}<p><a href="{{.Address}}">Sign in by {{.Name}}</a></p>{{end}}{{template "foot"}}{{end}}
{{define "organization"}}{{template "head" "Sign in"}}<h1>Which organization?</h1><p role="alert">It {{.Problem}}</p>
<form method="get" action="/oauth2/outside"><input type="hidden" name="provider" value="{{.Provider}}"><input type="hidden" name="continue" value="{{.Continue}}">
<label for="organization">Organization</label><input id="organization" name="organization" required>
<button>Continue</button></form>{{template "foot"}}{{end}}
{{define "challenge"}}{{template "head" "Sign in"}}<h1>One thing more</h1>{{if .Problem}}<p role="alert">{{.Problem}}</p>{{end}}
{{if .SetupKey}}<p>Set up an authenticator app with this key{{if .SetupURI}}, or <a href="{{.SetupURI}}">open it here</a>{{end}}:</p><p><code>{{.SetupKey}}</code></p>{{end}}
<form method="post" action="/oauth2/challenge"><input type="hidden" name="form" value="{{.Form}}"><input type="hidden" name="continue" value="{{.Continue}}">
<input type="hidden" name="challenge" value="{{.Challenge}}"><input type="hidden" name="setup_key" value="{{.SetupKey}}">
<label for="code">The code of your app, or a recovery code</label><input id="code" name="code" autocomplete="one-time-code" required>
<button>Sign in</button>{{if .PasskeyOptions}}<input type="hidden" name="options" value="{{.PasskeyOptions}}"><input type="hidden" name="passkey">
<button type="button" id="use-passkey" data-options="{{.PasskeyOptions}}" hidden>Use a passkey</button>{{end}}</form>
{{if .PasskeyOptions}}<script>` + passkeyScript + `</script>{{end}}{{template "foot"}}{{end}}
{{define "recovery-codes"}}{{template "head" "Recovery codes"}}<h1>Write these down</h1>
<p>Each lets you in once if your app is lost. They are shown this once.</p><ul>{{range .Codes}}<li><code>{{.}}</code></li>{{end}}</ul>
<p><a href="{{.Continue}}">Continue</a></p>{{template "foot"}}{{end}}
{{define "consent"}}{{template "head" "Allow access"}}<h1>{{.Client}}</h1>
<p>asks to act in your name, {{.User}}, and to have:</p><ul>{{range .Scopes}}<li>{{.}}</li>{{end}}</ul>
<form method="post" action="/oauth2/consent"><input type="hidden" name="form" value="{{.Form}}"><input type="hidden" name="continue" value="{{.Continue}}">
<button name="decision" value="allow">Allow</button><button name="decision" value="deny">Refuse</button></form>{{template "foot"}}{{end}}
{{define "sign-out"}}{{template "head" "Sign out"}}<h1>Sign out?</h1>
<form method="post" action="/oauth2/sign-out"><input type="hidden" name="form" value="{{.Form}}"><input type="hidden" name="client_id" value="{{.ClientID}}">
<input type="hidden" name="post_logout_redirect_uri" value="{{.Redirect}}"><input type="hidden" name="state" value="{{.State}}">
<button>Sign out</button></form>{{template "foot"}}{{end}}
{{define "signed-out"}}{{template "head" "Signed out"}}<h1>You are signed out.</h1>{{template "foot"}}{{end}}
{{define "device"}}{{template "head" "Connect a device"}}<h1>Connect a device</h1>{{if .Problem}}<p role="alert">{{.Problem}}</p>{{end}}
<form method="post" action="/oauth2/device"><input type="hidden" name="form" value="{{.Form}}">
<label for="user_code">The code that the device shows</label><input id="user_code" name="user_code" autocomplete="off" required value="{{.Code}}">
{{if .Client}}<p>{{.Client}} will act in your name, and have:</p><ul>{{range .Scopes}}<li>{{.}}</li>{{end}}</ul>
<p>Allow it only if you have the device in front of you.</p>
<button name="decision" value="allow">Allow</button><button name="decision" value="deny">Refuse</button>{{else}}<button>Continue</button>{{end}}</form>{{template "foot"}}{{end}}
{{define "device-done"}}{{template "head" "Device"}}<h1>Done.</h1><p>Go back to your device.</p>{{template "foot"}}{{end}}
{{define "error"}}{{template "head" "This does not work"}}<h1>This does not work</h1><p role="alert">{{.Problem}}</p>{{template "foot"}}{{end}}
`))

// styleSource lets the one style of the pages apply, and no other.
var styleSource = sourceOfPolicy(pageStyle)

// scriptSource does the same for the one script.
var scriptSource = sourceOfPolicy(passkeyScript)

func sourceOfPolicy(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// show answers with a page. Browsers hold what a form leads to against the policy, so that
// has to name where the client is.
func (s *service) show(w http.ResponseWriter, status int, page, allowed string, data any) {
	var text bytes.Buffer
	if err := pages.ExecuteTemplate(&text, page, data); err != nil {
		panic("identity: page " + page + ": " + err.Error())
	}
	if allowed != "" {
		allowed = " " + allowed
	}
	w.Header().Set("Content-Security-Policy",
		"default-src 'none'; script-src "+scriptSource+"; style-src "+styleSource+"; form-action 'self'"+allowed+"; frame-ancestors 'none'; base-uri 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(text.Bytes())
}

// originOf returns a source of a policy that stands for a redirect URI; empty if the URI
// is none.
//
// SECURITY: nothing of a URI gets into the policy that could end the source.
func originOf(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || !fitsRedirect(uri) || strings.ContainsAny(u.Host, ";,'\" "):
		return ""
	case u.Host == "":
		return u.Scheme + ":"
	}
	return u.Scheme + "://" + u.Host
}
