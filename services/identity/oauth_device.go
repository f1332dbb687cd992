package identity

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	deviceGrant      = "urn:ietf:params:oauth:grant-type:device_code"
	deviceCodePrefix = "lkv_"
	// deviceLife is how long a person has to let a device in.
	deviceLife = 10 * time.Minute
	// devicePause is how long a device waits between two questions, in seconds.
	devicePause = 5
	// userCodeLetters have no vowels, so that no words come out, and none that look alike
	// (RFC 8628 6.1).
	userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLength  = 8
)

// deviceEndpoint begins to let a device in that has no browser (RFC 8628 3.1).
func (s *service) deviceEndpoint(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	answer, err := s.beginDevice(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// deviceAnswer is the answer of RFC 8628 3.2.
type deviceAnswer struct {
	DeviceCode  string `json:"device_code"`
	UserCode    string `json:"user_code"`
	URI         string `json:"verification_uri"`
	URIComplete string `json:"verification_uri_complete"`
	ExpiresIn   int64  `json:"expires_in"`
	Interval    int32  `json:"interval"`
}

func (s *service) beginDevice(r *http.Request) (*deviceAnswer, error) {
	f, err := form(r)
	if err != nil {
		return nil, err
	}
	who, err := s.claimantOf(r, f)
	if err != nil {
		return nil, err
	}
	if who.client == nil || !mayUse(who.client, grantDevice) {
		return nil, oauthRefusal("unauthorized_client", "the client may not let devices in")
	}
	scopes, err := allowedScopes(askedScopes(f.Get("scope")), who.client.GetScopes())
	if err != nil {
		return nil, err
	}
	if err := s.tryAsPublic(r, who); err != nil {
		return nil, err
	}
	text, hash := token.New(deviceCodePrefix, s.random)
	code := s.newUserCode()
	err = s.db.Update(r.Context(), func(tx *store.Tx) error {
		if err := admit(tx, subject{client: who.client.GetId(), clientSecret: who.secret}, pathProve); err != nil {
			return err
		}
		if _, taken := codesByUser.First(tx, code); taken {
			return &oauthError{"temporarily_unavailable", "try again", http.StatusServiceUnavailable}
		}
		end := timestamppb.New(tx.Now().Add(deviceLife))
		return authCodes.Put(tx, &identitystorepb.AuthorizationCode{
			Id: tokenID(hash[:]), ClientId: who.client.GetId(), Scopes: scopes, UserCode: code, Interval: devicePause,
			ExpireTime: end, PurgeTime: timestamppb.New(tx.Now().Add(codeRest)),
		})
	})
	if err != nil {
		return nil, err
	}
	shown := code[:4] + "-" + code[4:]
	return &deviceAnswer{
		DeviceCode: text, UserCode: shown, URI: s.issuer + devicePath, URIComplete: s.issuer + devicePath + "?user_code=" + shown,
		ExpiresIn: int64(deviceLife / time.Second), Interval: devicePause,
	}, nil
}

// newUserCode returns 8 random letters, each as likely as any other.
func (s *service) newUserCode() string {
	var code []byte
	for len(code) < userCodeLength {
		b := s.hasher.bytes(1)[0]
		if int(b) < 256-256%len(userCodeLetters) {
			code = append(code, userCodeLetters[int(b)%len(userCodeLetters)])
		}
	}
	return string(code)
}

// typedCode reads a code as people type it.
func typedCode(text string) string {
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune(userCodeLetters, c) {
			return c
		}
		return -1
	}, strings.ToUpper(text))
}

// devicePage asks for the code that a device shows, and then whether to let it in.
func (s *service) devicePage(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	who, err := s.browserOf(r)
	switch {
	case err != nil:
		s.showError(w, r, err)
	case who == nil:
		http.Redirect(w, r, signInPath+"?continue="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
	default:
		s.show(w, http.StatusOK, "device", "", deviceForm{Form: s.formToken(w, r), Code: r.URL.Query().Get("user_code")})
	}
}

// decideDevice lets a device in, or refuses it.
func (s *service) decideDevice(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	f, err := s.sentByForm(r)
	if err != nil {
		s.showError(w, r, err)
		return
	}
	who, err := s.browserOf(r)
	if err != nil || who == nil {
		http.Redirect(w, r, signInPath+"?continue="+url.QueryEscape(devicePath), http.StatusSeeOther)
		return
	}
	page := deviceForm{Form: s.formToken(w, r), Code: f.Get("user_code")}
	client, scopes, err := s.waiting(r.Context(), who, typedCode(page.Code))
	switch {
	case err != nil:
		page.Problem = "no device waits with this code"
		s.show(w, http.StatusForbidden, "device", "", page)
		return
	case f.Get("decision") == "":
		page.Client, page.Scopes = client.GetName(), scopeTextsOf(scopes)
		s.show(w, http.StatusOK, "device", "", page)
		return
	}
	if err := s.answerDevice(origin(r, who.GetUserId()).Context(), who, client, typedCode(page.Code), f.Get("decision") == "allow"); err != nil {
		s.showError(w, r, err)
		return
	}
	s.show(w, http.StatusOK, "device-done", "", nil)
}

// waiting returns the client of the device that waits with a code, and what it wants. Codes are
// short, so a person may try few.
func (s *service) waiting(ctx context.Context, who *pb.Session, code string) (client *pb.OauthClient, scopes []string, err error) {
	succeeded, err := s.wrongUserCodes.try(who.GetUserId())
	if err != nil {
		return nil, nil, err
	}
	client, err = read(ctx, s, func(tx *store.Tx) (*pb.OauthClient, error) {
		kept, ok := codesByUser.First(tx, code)
		c, known := clients.Get(tx, kept.GetClientId())
		brand, err := brandOf(tx, who.GetOrganizationId())
		ours := err == nil && (ownerOf(c) == who.GetOrganizationId() || ownerOf(c) == brand.GetId())
		if !ok || !known || !ours || kept.GetUserId() != "" || kept.GetDenied() || !kept.GetExpireTime().AsTime().After(tx.Now()) {
			return nil, invalidGrant()
		}
		scopes = kept.GetScopes()
		return c, nil
	})
	if err == nil {
		succeeded()
	}
	return client, scopes, err
}

// answerDevice keeps what a person decided about a device.
func (s *service) answerDevice(ctx context.Context, who *pb.Session, client *pb.OauthClient, code string, allow bool) error {
	by, err := s.browserAsSubject(ctx, who, client)
	if err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *store.Tx) error {
		kept, ok := codesByUser.First(tx, code)
		if !ok || kept.GetUserId() != "" || kept.GetDenied() {
			return invalidGrant()
		}
		kept.Denied = !allow
		if allow {
			if err := admit(tx, by, pathAuthorize); err != nil {
				return err
			}
			kept.UserId, kept.OrganizationId, kept.SessionId, kept.AuthTime = who.GetUserId(), who.GetOrganizationId(), who.GetId(), who.GetAuthTime()
			kept.Factors = numbersOf(who.GetFactors()...)
		}
		return authCodes.Put(tx, kept)
	})
}

// grantDeviceCode lets a device in that a person has let in (RFC 8628 3.4).
func (s *service) grantDeviceCode(ctx context.Context, who *claimant, f url.Values) (*tokenAnswer, error) {
	hash, err := token.Hash(f.Get("device_code"))
	if err != nil || who.client == nil {
		return nil, invalidGrant()
	}
	var code *identitystorepb.AuthorizationCode
	var verdict error
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		kept, ok := authCodes.Get(tx, tokenID(hash[:]))
		if !ok || kept.GetClientId() != who.client.GetId() || kept.GetUserCode() == "" {
			return invalidGrant()
		}
		code, verdict = kept, deviceVerdict(kept, tx.Now())
		if slow, ok := verdict.(*oauthError); ok && slow.Code == "slow_down" {
			kept.Interval += devicePause
		}
		kept.PollTime = timestamppb.New(tx.Now().Add(time.Duration(kept.GetInterval()) * time.Second))
		return authCodes.Put(tx, kept)
	})
	if err == nil {
		err = verdict
	}
	if err != nil {
		return nil, err
	}
	return s.redeem(ctx, who, code, pathRedeem)
}

// deviceVerdict says how it stands with a device (RFC 8628 3.5); nil if it is let in.
func deviceVerdict(kept *identitystorepb.AuthorizationCode, now time.Time) error {
	switch {
	case kept.GetDenied():
		return oauthRefusal("access_denied", "the person refused")
	case !kept.GetExpireTime().AsTime().After(now):
		return oauthRefusal("expired_token", "nobody let the device in: begin anew")
	case kept.GetUserId() != "":
		return nil
	case kept.GetPollTime() != nil && now.Before(kept.GetPollTime().AsTime()):
		return oauthRefusal("slow_down", "ask less often")
	}
	return oauthRefusal("authorization_pending", "the person has not decided yet")
}
