package identity

import (
	"net/http"
	"slices"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

func consentID(who *pb.Session, client string) string {
	return who.GetOrganizationId() + "/" + who.GetUserId() + "/" + client
}

// authorizeConsented sends a person back with a code who has consented before, and else asks.
func (s *service) authorizeConsented(w http.ResponseWriter, r *http.Request, a *authorization, who *pb.Session, silent bool) error {
	kept, err := read(r.Context(), s, func(tx *store.Tx) (*identitystorepb.Consent, error) {
		c, _ := consents.Get(tx, consentID(who, a.client.GetId()))
		return c, nil
	})
	if err != nil {
		return err
	}
	asked := slices.Contains(a.prompt, "consent")
	missing := slices.ContainsFunc(a.scopes, func(scope string) bool { return !slices.Contains(kept.GetScopes(), scope) })
	switch {
	case kept != nil && !missing && !asked:
		return s.sendCode(w, r, a, who)
	case silent:
		return a.refuse("consent_required", "the person has not consented")
	}
	profile, err := read(r.Context(), s, func(tx *store.Tx) (*pb.Profile, error) { return profileOf(tx, who.GetUserId()) })
	if err != nil {
		return err
	}
	page := consentForm{
		Form: s.formToken(w, r), Continue: a.again().String(), Client: a.client.GetName(), User: profile.GetDisplayName(),
	}
	page.Scopes = scopeTextsOf(a.scopes)
	s.show(w, http.StatusOK, "consent", originOf(a.redirect), page)
	return nil
}

var scopeTexts = map[string]string{
	scopeOpenID: "know who you are", scopeProfile: "know your name", scopeEmail: "know your e-mail address",
	scopeOffline: "go on when you have signed out, for up to 90 days", scopeAll: "whatever you may do",
}

// scopeTextsOf says to a person what scopes are.
func scopeTextsOf(scopes []string) (texts []string) {
	for _, scope := range scopes {
		texts = append(texts, scopeText(scope))
	}
	return texts
}

// scopeText says to a person what a scope is.
func scopeText(scope string) string {
	if text, ok := scopeTexts[scope]; ok {
		return text
	}
	if key, ok := keyByScope(scope); ok {
		return key.Title + " (" + key.Name + ")"
	}
	return scope
}

// consent keeps what a person decided, and sends the person back.
func (s *service) consent(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	err := s.decide(w, r)
	if err != nil {
		s.showError(w, r, err)
	}
}

func (s *service) decide(w http.ResponseWriter, r *http.Request) error {
	f, err := s.sentByForm(r)
	if err != nil {
		return err
	}
	next, err := onward(f.Get("continue"))
	if err != nil {
		return err
	}
	a, err := s.authorization(r, next.Query())
	if err != nil {
		return err
	}
	who, err := s.browserOf(r)
	switch {
	case err != nil:
		return err
	case who == nil || weak(a, who): // nobody gets round what the authorization endpoint asks for
		http.Redirect(w, r, next.String(), http.StatusSeeOther)
		return nil
	case a.client.GetOwner() != brandOwned && a.client.GetOrganizationId() != who.GetOrganizationId():
		return a.refuse("access_denied", "the client is another organization's")
	case f.Get("decision") != "allow":
		return a.refuse("access_denied", "the person refused")
	}
	r = origin(r, who.GetUserId())
	by, err := s.browserAsSubject(r.Context(), who, a.client)
	if err != nil {
		return err
	}
	err = s.db.Update(r.Context(), func(tx *store.Tx) error {
		if err := admit(tx, by, pathAuthorize); err != nil {
			return a.refuse("access_denied", "the person may not let the client in, or not any more")
		}
		id := consentID(who, a.client.GetId())
		kept, ok := consents.Get(tx, id)
		if !ok {
			kept = &identitystorepb.Consent{Id: id, ClientId: a.client.GetId()}
		}
		for _, scope := range a.scopes {
			if !slices.Contains(kept.GetScopes(), scope) {
				kept.Scopes = append(kept.Scopes, scope)
			}
		}
		return consents.Put(tx, kept)
	})
	if err != nil {
		return err
	}
	return s.sendCode(w, r, a, who)
}
