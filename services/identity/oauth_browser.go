package identity

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	sessionCookie = "latchkey-session"
	formCookie    = "latchkey-form"
	deviceCookie  = "latchkey-device"
)

// cookie returns a cookie that no script and no other site can use. Over https its name
// keeps other hosts of the domain from setting it (RFC 6265bis 4.1.3.2).
func (s *service) cookie(name, value string) *http.Cookie {
	c := &http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if strings.HasPrefix(s.issuer, "https:") {
		c.Name, c.Secure = "__Host-"+name, true
	}
	return c
}

// cookieOf returns the value of a cookie of the request; empty if there is none.
func (s *service) cookieOf(r *http.Request, name string) string {
	c, err := r.Cookie(s.cookie(name, "").Name)
	if err != nil {
		return ""
	}
	return c.Value
}

// browserOf returns the session of the browser; nil if there is none that lets a person
// let others in: an API key does not, nor who acts for another, nor a client.
func (s *service) browserOf(r *http.Request) (*pb.Session, error) {
	hash, err := token.Hash(s.cookieOf(r, sessionCookie))
	if err != nil {
		return nil, nil
	}
	return read(r.Context(), s, func(tx *store.Tx) (*pb.Session, error) {
		t, _ := tokens.Get(tx, tokenID(hash[:]))
		session, ok := sessions.Get(tx, t.GetSessionId())
		if !ok || t.Scopes != nil {
			return nil, tx.Failed()
		}
		who := subject{organization: session.GetOrganizationId(), user: session.GetUserId(), session: session.GetId()}
		if admit(tx, who, pathSession) != nil {
			return nil, tx.Failed()
		}
		return session, nil
	})
}

// formToken returns the value that a form has to send along, and sets the cookie that
// it is compared with.
//
// SECURITY: another site can make a browser send a form, but neither read nor set the
// cookie; see sentByForm.
func (s *service) formToken(w http.ResponseWriter, r *http.Request) string {
	if value := s.cookieOf(r, formCookie); len(value) == 43 {
		return value
	}
	var raw [32]byte
	if _, err := io.ReadFull(s.random, raw[:]); err != nil {
		panic("identity: no random bytes: " + err.Error())
	}
	value := base64.RawURLEncoding.EncodeToString(raw[:])
	c := s.cookie(formCookie, value)
	http.SetCookie(w, c)
	r.AddCookie(c) // for what else looks at this request
	return value
}

// sentByForm returns the fields of a form that one of our own pages sent.
func (s *service) sentByForm(r *http.Request) (url.Values, error) {
	if err := s.crossOrigin.Check(r); err != nil {
		return nil, oauthRefusal("invalid_request", "this form was sent from another site")
	}
	f, err := form(r)
	if err != nil {
		return nil, err
	}
	want := s.cookieOf(r, formCookie)
	if want == "" || subtle.ConstantTimeCompare([]byte(want), []byte(f.Get("form"))) != 1 {
		return nil, oauthRefusal("invalid_request", "this page is too old, or cookies are off: go back and try again")
	}
	return f, nil
}

// onward returns where a person goes on after a page, which is a page of ours.
func onward(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Path != authorizePath && u.Path != devicePath {
		return nil, oauthRefusal("invalid_request", "this page was not reached from an application")
	}
	return u, nil
}

// signInPage asks who it is.
func (s *service) signInPage(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	s.showSignIn(w, r, http.StatusOK, signInForm{Continue: r.URL.Query().Get("continue")})
}

func (s *service) showSignIn(w http.ResponseWriter, r *http.Request, status int, f signInForm) {
	next, err := onward(f.Continue)
	if err != nil {
		s.showError(w, r, err)
		return
	}
	allowed, client := "", ""
	if next.Path == authorizePath {
		a, err := s.authorization(r, next.Query())
		if err != nil {
			s.showError(w, r, err)
			return
		}
		if f.Email == "" {
			f.Email = a.query.Get("login_hint")
		}
		allowed, client = originOf(a.redirect), a.client.GetName()
		if f.Providers, err = s.providersFor(r.Context(), a.client, f.Continue); err != nil {
			s.showError(w, r, err)
			return
		}
	}
	f.Client, f.Form = client, s.formToken(w, r)
	s.show(w, status, "sign-in", allowed, f)
}

// signIn signs a person in as any client of the API does, and keeps the token in a cookie.
func (s *service) signIn(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	f, err := s.sentByForm(r)
	if err != nil {
		s.showError(w, r, err)
		return
	}
	next, err := onward(f.Get("continue"))
	if err != nil {
		s.showError(w, r, err)
		return
	}
	again := signInForm{Continue: f.Get("continue"), Email: f.Get("email"), Organization: f.Get("organization")}
	organization := f.Get("organization")
	if next.Path == authorizePath {
		a, err := s.authorization(r, next.Query())
		if err != nil {
			s.showError(w, r, err)
			return
		}
		if a.client.GetOwner() != brandOwned {
			organization = a.client.GetOrganizationId()
		}
	}
	strange, err := s.strange(r, f.Get("email"))
	if err != nil {
		s.showError(w, r, err)
		return
	}
	resp, err := pb.NewSessionServiceClient(s.public).CreateSession(s.forBrowser(r), &pb.CreateSessionRequest{
		Email: f.Get("email"), Password: f.Get("password"), Surface: pb.Surface_SURFACE_API, OrganizationId: organization,
		DeviceToken: s.cookieOf(r, deviceCookie), RememberDevice: strange,
	})
	if err != nil {
		code, problem := problemOf(w, err)
		again.Problem = problem
		s.showSignIn(w, r, code, again)
		return
	}
	if c := resp.GetChallenge(); c != nil {
		s.showChallenge(w, r, http.StatusOK, next, challengeForm{
			Challenge: c.GetSecret(), Continue: next.String(), SetupKey: c.GetTotpSetup().GetKey(), SetupURI: template.URL(c.GetTotpSetup().GetUri()),
			PasskeyOptions: s.passkeyOnPages(c.GetPasskeyOptions()),
		})
		return
	}
	s.keepDevice(w, resp.GetDeviceToken())
	s.goOn(w, r, resp.GetToken(), next)
}

// goOn keeps the token of somebody who has just signed in, and sends the person on.
func (s *service) goOn(w http.ResponseWriter, r *http.Request, token string, next *url.URL) {
	http.SetCookie(w, s.cookie(sessionCookie, token))
	if err := s.signedInFor(r, next); err != nil {
		s.showError(w, r, err)
		return
	}
	http.Redirect(w, r, next.String(), http.StatusSeeOther)
}

// showChallenge asks for the second factor of whoever has shown the right password.
func (s *service) showChallenge(w http.ResponseWriter, r *http.Request, status int, next *url.URL, f challengeForm) {
	f.Form = s.formToken(w, r)
	allowed := ""
	if next.Path == authorizePath {
		a, err := s.authorization(r, next.Query())
		if err != nil {
			s.showError(w, r, err)
			return
		}
		allowed = originOf(a.redirect)
	}
	s.show(w, status, "challenge", allowed, f)
}

// answerChallenge shows the second factor as any client of the API does.
func (s *service) answerChallenge(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	f, err := s.sentByForm(r)
	if err != nil {
		s.showError(w, r, err)
		return
	}
	next, err := onward(f.Get("continue"))
	if err != nil {
		s.showError(w, r, err)
		return
	}
	proof := proofOf(f.Get("code"))
	if answer := f.Get("passkey"); answer != "" {
		proof = &pb.Proof{Proof: &pb.Proof_Passkey{Passkey: answer}}
	}
	resp, err := pb.NewSessionServiceClient(s.public).AnswerChallenge(s.forBrowser(r), &pb.AnswerChallengeRequest{
		Challenge: f.Get("challenge"), Proof: proof,
	})
	if err != nil {
		code, problem := problemOf(w, err)
		s.showChallenge(w, r, code, next, challengeForm{
			Challenge: f.Get("challenge"), Continue: f.Get("continue"), Problem: problem, SetupKey: f.Get("setup_key"),
			PasskeyOptions: s.passkeyOnPages(f.Get("options")),
		})
		return
	}
	s.keepDevice(w, resp.GetDeviceToken())
	if codes := resp.GetRecoveryCodes(); len(codes) > 0 {
		http.SetCookie(w, s.cookie(sessionCookie, resp.GetToken()))
		if err := s.signedInFor(r, next); err != nil {
			s.showError(w, r, err)
			return
		}
		s.show(w, http.StatusOK, "recovery-codes", "", recoveryPage{Codes: codes, Continue: next.String()})
		return
	}
	s.goOn(w, r, resp.GetToken(), next)
}

// passkeyOnPages returns the options for a passkey, if one can be shown on our own pages.
func (s *service) passkeyOnPages(options string) string {
	if s.relyingParty == nil || !slices.Contains(s.relyingParty.Config.RPOrigins, s.issuer) {
		return ""
	}
	return options
}

// proofOf tells a code of an app, which is all digits, from one that was written down.
func proofOf(text string) *pb.Proof {
	digits := strings.ReplaceAll(text, " ", "")
	if strings.Trim(digits, "0123456789") == "" {
		return &pb.Proof{Proof: &pb.Proof_TotpCode{TotpCode: digits}}
	}
	return &pb.Proof{Proof: &pb.Proof_RecoveryCode{RecoveryCode: text}}
}

// problemOf says to a person why a sign-in was refused, and to the browser when to try again.
func problemOf(w http.ResponseWriter, err error) (int, string) {
	st := status.Convert(err)
	switch st.Code() {
	case codes.ResourceExhausted:
		after := time.Second
		for _, d := range st.Details() {
			if info, ok := d.(*errdetails.RetryInfo); ok {
				after = max(after, info.GetRetryDelay().AsDuration().Round(time.Second))
			}
		}
		w.Header().Set("Retry-After", strconv.Itoa(int(after.Seconds())))
		return http.StatusTooManyRequests, fmt.Sprintf("%s: try again in %v", st.Message(), after)
	case codes.FailedPrecondition:
		return http.StatusForbidden, strings.TrimSuffix(st.Message(), stepUpHow)
	case codes.Unauthenticated, codes.PermissionDenied:
		return http.StatusForbidden, st.Message()
	case codes.InvalidArgument:
		if strings.HasPrefix(st.Message(), "organization_id: ") {
			return http.StatusBadRequest, strings.TrimPrefix(st.Message(), "organization_id: ")
		}
		return http.StatusForbidden, "something is missing, or is not what it should be"
	}
	return http.StatusServiceUnavailable, "this does not work at the moment: try again"
}

// endBrowserSession ends the session of the browser as any client of the API does.
func (s *service) endBrowserSession(ctx context.Context, r *http.Request) error {
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer "+s.cookieOf(r, sessionCookie)))
	_, err := pb.NewSessionServiceClient(s.public).EndSession(ctx, &pb.EndSessionRequest{})
	if status.Code(err) == codes.Unauthenticated {
		return nil
	}
	return err
}

// showError tells a person, or by way of the browser the client, what is wrong.
func (s *service) showError(w http.ResponseWriter, r *http.Request, err error) {
	if e, ok := errors.AsType[*sentBack](err); ok {
		s.dropPushed(r, e.authorization)
		http.Redirect(w, r, e.back(s.issuer, "error", e.code, "error_description", e.description), http.StatusSeeOther)
		return
	}
	e := asOAuth(err)
	if e.status == http.StatusInternalServerError {
		s.log.ErrorContext(r.Context(), "a page is broken", "path", r.URL.Path, "error", err)
	}
	s.show(w, e.status, "error", "", errorPage{Problem: e.Description})
}
