package identity

import (
	"context"
	"net/http"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

// introspected is a token that is accepted now.
type introspected struct {
	facts *pb.SessionFacts
	kept  *identitystorepb.SessionToken
	brand string // of the organization
	// authTime and factors are when a person signed in, and with what; nothing of others.
	authTime *timestamppb.Timestamp
	factors  []pb.Factor
}

// introspect looks at a token, in an organization if one is named; nil if it is not accepted.
func (s *service) introspect(ctx context.Context, text, named string) (*introspected, error) {
	hash, err := token.HashAny(text)
	if err != nil {
		return nil, nil
	}
	hours, err := s.hoursOfShown(ctx, tokenID(hash[:]))
	if err != nil || hours != nil && hours.closed {
		return nil, err
	}
	return read(ctx, s, func(tx *store.Tx) (*introspected, error) {
		kept, _ := tokens.Get(tx, tokenID(hash[:]))
		facts, err := resolve(tx, kept, named, hours)
		if err != nil || facts.GetOnlyMethod() != "" { // what opens one method alone opens nothing elsewhere
			return nil, tx.Failed()
		}
		organization, _ := organizations.Get(tx, facts.GetOrganizationId())
		found := &introspected{facts: facts, kept: kept, brand: organization.GetBrandId()}
		if c, ok := clientSessions.Get(tx, facts.GetSessionId()); ok {
			found.authTime, found.factors = c.GetAuthTime(), factorsOf(c.GetFactors())
		} else if session, ok := sessions.Get(tx, facts.GetSessionId()); ok {
			found.authTime, found.factors = session.GetAuthTime(), session.GetFactors()
		}
		return found, nil
	})
}

// hoursOfShown finds out when a session may be used whose own token is looked at, and whether at
// all. Of an access token that was found out when it was issued, minutes ago.
func (s *service) hoursOfShown(ctx context.Context, id string) (*hours, error) {
	session, err := read(ctx, s, func(tx *store.Tx) (*pb.Session, error) {
		t, _ := tokens.Get(tx, id)
		session, _ := sessions.Get(tx, t.GetSessionId())
		if session.GetActorId() != "" || session.GetClientId() != "" {
			return nil, nil
		}
		return session, nil
	})
	if err != nil || session == nil {
		return nil, err
	}
	return s.hoursOf(ctx, session.GetOrganizationId(), session.GetUserId(), session.GetSurface())
}

// introspection is the answer about a token (RFC 7662 2.2).
type introspection struct {
	Active       bool   `json:"active"`
	Scope        string `json:"scope,omitempty"`
	ClientID     string `json:"client_id,omitempty"`
	TokenType    string `json:"token_type,omitempty"`
	Expires      int64  `json:"exp,omitempty"`
	IssuedAt     int64  `json:"iat,omitempty"`
	Subject      string `json:"sub,omitempty"`
	Audience     string `json:"aud,omitempty"`
	Issuer       string `json:"iss,omitempty"`
	ID           string `json:"jti,omitempty"`
	Session      string `json:"sid,omitempty"`
	User         string `json:"uid,omitempty"`
	Organization string `json:"org,omitempty"`
	AuthTime     int64  `json:"auth_time,omitempty"` // RFC 9470 6.2
	Class        string `json:"acr,omitempty"`
	Actor        *actor `json:"act,omitempty"`
}

// actor is who acts in the subject's name (RFC 8693 4.1).
type actor struct {
	Subject string `json:"sub"`
}

// introspectEndpoint tells a confidential client, or a program with an API key, what a
// token of its organization or brand is worth; a key of a brand in the organization that the
// parameter organization names, or else in the client's own.
//
// SECURITY: a token of elsewhere is as inactive as none, so nobody learns of others'.
func (s *service) introspectEndpoint(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	f, err := form(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	who, err := s.claimantOf(r, f)
	if err == nil && who.secret == "" {
		err = invalidClient()
	}
	if err == nil && !f.Has("token") {
		err = oauthRefusal("invalid_request", "token is missing")
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	named, _ := who.organization()
	if f.Has("organization") {
		named = f.Get("organization")
	}
	found, err := s.introspect(r.Context(), f.Get("token"), named)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, s.introspection(who, found))
}

func (s *service) introspection(who *claimant, found *introspected) *introspection {
	organization, brand := who.organization()
	if found == nil || found.facts.GetOrganizationId() != organization && found.brand != brand {
		return &introspection{}
	}
	facts, kept := found.facts, found.kept
	answer := &introspection{
		Active: true, Scope: kept.GetScope(), ClientID: kept.GetClientId(), TokenType: "Bearer", Expires: facts.GetExpireTime().GetSeconds(),
		Subject: facts.GetUserId(), Issuer: s.issuer, ID: kept.GetTokenId(), Session: facts.GetSessionId(),
		User: facts.GetUserId(), Organization: facts.GetOrganizationId(),
	}
	answer.AuthTime, answer.Class = found.authTime.GetSeconds(), classOf(found.factors)
	if kept.GetClientId() != "" {
		answer.Audience, answer.IssuedAt = s.issuer, kept.GetCreateTime().GetSeconds()
	}
	if kept.GetClientId() == facts.GetSessionId() && kept.GetClientId() != "" { // it acts by itself
		answer.Subject = kept.GetClientId()
	}
	if facts.GetActorId() != "" {
		answer.Actor = &actor{facts.GetActorId()}
	}
	return answer
}
