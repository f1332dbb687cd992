package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	pushedPrefix = "lkp_"
	pushedURN    = "urn:ietf:params:oauth:request_uri:" // RFC 9126 2.2
	// pushedLife is how long a client has to send a person along with a request that it has
	// pushed, and pushedRest how long that person has.
	pushedLife = time.Minute
	pushedRest = 30 * time.Minute
	// maxPushed is how long a request may be.
	maxPushed = 8 << 10
	// maxPushes is how many requests a minute a client without a secret pushes from one network,
	// and how many devices it begins to let in.
	maxPushes = 300
)

// pushAnswer is what the endpoint for pushed requests answers (RFC 9126 2.2).
type pushAnswer struct {
	RequestURI string `json:"request_uri"`
	ExpiresIn  int64  `json:"expires_in"`
}

// pushEndpoint takes what a client will ask of a person, from the client itself (RFC 9126 2).
func (s *service) pushEndpoint(w http.ResponseWriter, r *http.Request) {
	answer, err := s.push(origin(r, ""))
	if told, ok := errors.AsType[*sentBack](err); ok {
		err = oauthRefusal(told.code, told.description) // RFC 9126 2.3
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache, no-store")
	writeJSON(w, http.StatusCreated, answer)
}

func (s *service) push(r *http.Request) (*pushAnswer, error) {
	f, err := form(r)
	if err != nil {
		return nil, err
	}
	who, err := s.claimantOf(r, f)
	switch {
	case err != nil:
		return nil, err
	case who.client == nil:
		return nil, oauthRefusal("unauthorized_client", "an API key asks nothing of people")
	case f.Has("request_uri"):
		return nil, oauthRefusal("invalid_request", "request_uri cannot be pushed")
	}
	f.Set("client_id", who.client.GetId())
	f.Del("client_secret")
	query := f.Encode()
	if len(query) > maxPushed {
		return nil, &oauthError{"invalid_request", "the request is too long", http.StatusRequestEntityTooLarge}
	}
	if _, err := requestOf(who.client, f); err != nil {
		return nil, err
	}
	if err := s.tryAsPublic(r, who); err != nil {
		return nil, err
	}
	text, hash := token.New(pushedPrefix, s.random)
	err = s.db.Update(r.Context(), func(tx *store.Tx) error {
		return pushedRequests.Put(tx, &identitystorepb.PushedRequest{
			Id: tokenID(hash[:]), ClientId: who.client.GetId(), Query: query, ExpireTime: timestamppb.New(tx.Now().Add(pushedLife)),
		})
	})
	return &pushAnswer{pushedURN + text, int64(pushedLife.Seconds())}, err
}

// tryAsPublic bounds what is kept for a client that has no secret.
func (s *service) tryAsPublic(r *http.Request, who *claimant) error {
	if who.client.GetKind() == confidential {
		return nil
	}
	if _, err := s.pushes.try(who.client.GetId() + " " + s.networkOf(r)); err != nil {
		return &oauthError{"temporarily_unavailable", "too many requests at once: try again in a minute", http.StatusTooManyRequests}
	}
	return nil
}

// networkOf returns where a request comes from.
//
// SECURITY: anybody can speak for a client that has no secret. By this the requests of such a
// client are counted, so that one of them keeps no other out.
func (s *service) networkOf(r *http.Request) string {
	return place{address: s.addressOf(r)}.network()
}

// pushedID returns what the request is kept by that a person was sent along with; empty if the
// parameters are all of it.
func pushedID(q url.Values) string {
	text, ok := strings.CutPrefix(q.Get("request_uri"), pushedURN)
	if !ok {
		return ""
	}
	hash, err := token.Hash(text)
	if err != nil {
		return "unknown"
	}
	return tokenID(hash[:])
}

func requestGone() error {
	return oauthRefusal("invalid_request", "what the application wanted is too long ago, or was answered: go back and try again")
}

// bindPushed gives a pushed request to the browser that comes with it first, for as long as its
// person has.
//
// SECURITY: so it is used once, by one browser, although that comes back with it from each page.
func (s *service) bindPushed(w http.ResponseWriter, r *http.Request) error {
	id := pushedID(r.URL.Query())
	if id == "" {
		return nil
	}
	browser := sha256.Sum256([]byte(s.formToken(w, r)))
	return s.db.Update(r.Context(), func(tx *store.Tx) error {
		p, ok := pushedRequests.Get(tx, id)
		switch {
		case !ok || !p.GetExpireTime().AsTime().After(tx.Now()):
			return requestGone()
		case len(p.GetBrowserHash()) > 0: // pushed compares it
			return nil
		}
		p.BrowserHash, p.ExpireTime = browser[:], timestamppb.New(tx.Now().Add(pushedRest))
		return pushedRequests.Put(tx, p)
	})
}

// pushed returns the parameters of a request that the browser has come with before. What else
// is in the URL does not count (RFC 9101 6.3).
func (s *service) pushed(r *http.Request, asked url.Values) (url.Values, error) {
	p, err := read(r.Context(), s, func(tx *store.Tx) (*identitystorepb.PushedRequest, error) {
		p, err := s.held(tx, r, pushedID(asked))
		if err == nil && p.GetClientId() != asked.Get("client_id") {
			return nil, requestGone()
		}
		return p, err
	})
	if err != nil {
		return nil, err
	}
	return url.ParseQuery(p.GetQuery())
}

// held returns a pushed request that the browser has come with before.
func (s *service) held(tx *store.Tx, r *http.Request, id string) (*identitystorepb.PushedRequest, error) {
	browser := sha256.Sum256([]byte(s.cookieOf(r, formCookie)))
	p, ok := pushedRequests.Get(tx, id)
	if !ok || !p.GetExpireTime().AsTime().After(tx.Now()) || subtle.ConstantTimeCompare(p.GetBrowserHash(), browser[:]) != 1 {
		return nil, requestGone()
	}
	return p, nil
}

// forgetPushed removes a request from the journal too: it may name a person.
func forgetPushed(tx *store.Tx, id string) {
	pushedRequests.Delete(tx, id)
	tx.EraseHistory(pushedRequests.Name(), id)
}

// takePushed uses a pushed request up, in the transaction that answers it.
func (a *authorization) takePushed(tx *store.Tx) error {
	if a.pushed == "" {
		return nil
	}
	if !pushedRequests.Has(tx, a.pushed) {
		return a.refuse("invalid_request", "the request was answered before")
	}
	forgetPushed(tx, a.pushed)
	return nil
}

// dropPushed uses a pushed request up that is answered with a refusal.
func (s *service) dropPushed(r *http.Request, a *authorization) {
	if a.pushed == "" {
		return
	}
	err := s.db.Update(r.Context(), func(tx *store.Tx) error {
		if pushedRequests.Has(tx, a.pushed) {
			forgetPushed(tx, a.pushed)
		}
		return nil
	})
	if err != nil && r.Context().Err() == nil {
		s.log.WarnContext(r.Context(), "a pushed request that was refused stays until it expires", "error", err)
	}
}

// signedInFor leaves out of a request what asked for the sign-in that was just made, also where
// it was pushed.
func (s *service) signedInFor(r *http.Request, next *url.URL) error {
	if next.Path != authorizePath {
		return nil
	}
	id := pushedID(next.Query())
	if id == "" {
		next.RawQuery = afterSignIn(next.Query()).Encode()
		return nil
	}
	return s.db.Update(r.Context(), func(tx *store.Tx) error {
		p, err := s.held(tx, r, id)
		if err != nil {
			return err
		}
		q, err := url.ParseQuery(p.GetQuery())
		if err != nil {
			return err
		}
		p.Query = afterSignIn(q).Encode()
		return pushedRequests.Put(tx, p)
	})
}

// purgePushed removes requests that nobody came with, or did not answer.
func purgePushed(tx *store.Tx) int {
	return removeDue(tx, pushedByExpiry, tx.Now(), func(p *identitystorepb.PushedRequest) { forgetPushed(tx, p.GetId()) })
}
