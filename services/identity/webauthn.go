package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// passkeyAlgorithms are those of the keys that passkeys may have (RFC 9053), the best
// first. Every browser, phone and security key knows one of them.
var passkeyAlgorithms = []protocol.CredentialParameter{
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgEdDSA},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgES256},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgRS256},
}

// newRelyingParty returns what checks the answers of passkeys, or why there is nothing.
func newRelyingParty(p server.Passkeys) (*webauthn.WebAuthn, error) {
	if p.Domain == "" {
		return nil, errors.New("set --passkey-domain, or --http-listen with an --issuer that has a name")
	}
	timeout := webauthn.TimeoutConfig{Timeout: challengeLife, TimeoutUVD: challengeLife}
	c := &webauthn.Config{
		RPID: p.Domain, RPDisplayName: totpIssuer, AttestationPreference: protocol.PreferNoAttestation,
		Timeouts: webauthn.TimeoutsConfig{Login: timeout, Registration: timeout},
		// What a browser tells beyond what was asked changes nothing.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	}
	for _, origin := range p.Origins {
		if strings.HasPrefix(origin, "android:") {
			c.RPOpaqueOrigins = append(c.RPOpaqueOrigins, origin)
		} else {
			c.RPOrigins = append(c.RPOrigins, origin)
		}
	}
	return webauthn.New(c)
}

// passkeyParty returns what checks the answers of passkeys.
func (s *service) passkeyParty() (*webauthn.WebAuthn, error) {
	if s.passkeyError != nil {
		return nil, fault.Refused("passkeys are made for a domain, and this suite has none: %v", s.passkeyError)
	}
	return s.relyingParty, nil
}

// holder is somebody whose passkeys are asked. It implements webauthn.User.
type holder struct {
	profile *pb.Profile
	keys    []webauthn.Credential
}

// WebAuthnID returns the user handle, the id of the person: it tells nothing of her.
func (h *holder) WebAuthnID() []byte { return []byte(h.profile.GetId()) }

// WebAuthnName returns by what the person tells one account from another.
func (h *holder) WebAuthnName() string { return h.profile.GetEmail() }

// WebAuthnDisplayName returns the person's name.
func (h *holder) WebAuthnDisplayName() string { return h.profile.GetDisplayName() }

// WebAuthnCredentials returns what the passkeys are verified by.
func (h *holder) WebAuthnCredentials() []webauthn.Credential { return h.keys }

// holderOf returns somebody with the passkeys that prove something; of nobody it has none.
func holderOf(tx *store.Tx, user string) *holder {
	h := &holder{profile: &pb.Profile{Id: user}}
	if p, ok := profiles.Get(tx, user); ok {
		h.profile = p
	}
	for _, p := range usablePasskeys(tx, user) {
		k, ok := keyOf(tx, p)
		if !ok {
			continue
		}
		h.keys = append(h.keys, webauthn.Credential{
			ID: k.GetCredentialId(), PublicKey: k.GetPublicKey(), Transport: transportsOf(p),
			Flags:         webauthn.CredentialFlags{BackupEligible: p.GetBackupEligible(), BackupState: p.GetBackedUp()},
			Authenticator: webauthn.Authenticator{SignCount: k.GetSignCount()},
		})
	}
	return h
}

func transportsOf(p *pb.Passkey) (transports []protocol.AuthenticatorTransport) {
	for _, t := range p.GetTransports() {
		transports = append(transports, protocol.AuthenticatorTransport(t))
	}
	return transports
}

// alone tells whether a challenge is answered by nothing but a passkey.
func alone(c *identitystorepb.Challenge) bool {
	return len(c.GetShown()) == 0 && c.GetSessionId() == ""
}

// ceremony is what an answer to a challenge is held against. The challenge that a passkey
// signs is the id of ours.
func (s *service) ceremony(c *identitystorepb.Challenge) webauthn.SessionData {
	data := webauthn.SessionData{
		Challenge: base64.RawURLEncoding.EncodeToString(c.GetId()), RelyingPartyID: s.relyingParty.Config.RPID,
		UserID: []byte(c.GetUserId()), UserVerification: protocol.VerificationPreferred, CredParams: passkeyAlgorithms,
	}
	if alone(c) {
		// SECURITY: a passkey is two factors only where it has made sure of the person.
		data.UserVerification = protocol.VerificationRequired
	}
	return data
}

// creationOptions are what a passkey is made by.
func (s *service) creationOptions(h *holder, c *identitystorepb.Challenge) (string, error) {
	party, err := s.passkeyParty()
	if err != nil {
		return "", err
	}
	options, _, err := party.BeginRegistration(h,
		webauthn.WithCredentialParameters(passkeyAlgorithms),
		webauthn.WithExclusions(webauthn.Credentials(h.keys).CredentialDescriptors()),
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationPreferred,
		}),
		webauthn.WithExtensions(webauthn.WithExtensionCredProps()),
		func(o *protocol.PublicKeyCredentialCreationOptions) error {
			o.Challenge = c.GetId()
			return nil
		})
	if err != nil {
		return "", fmt.Errorf("make the options of a passkey: %w", err)
	}
	return asJSON(options.Response)
}

// requestOptions are what a passkey answers a challenge by. Where it is known who is asked,
// they name the passkeys of that person.
func (s *service) requestOptions(ctx context.Context, c *identitystorepb.Challenge) (string, error) {
	if s.relyingParty == nil {
		return "", nil // the person has to answer otherwise
	}
	h, err := read(ctx, s, func(tx *store.Tx) (*holder, error) { return holderOf(tx, c.GetUserId()), nil })
	if err != nil {
		return "", err
	}
	options, _, err := s.relyingParty.BeginDiscoverableLogin(
		webauthn.WithChallenge(c.GetId()), webauthn.WithUserVerification(s.ceremony(c).UserVerification),
		webauthn.WithAllowedCredentials(webauthn.Credentials(h.keys).CredentialDescriptors()))
	if err != nil {
		return "", fmt.Errorf("make the options for a passkey: %w", err)
	}
	return asJSON(options.Response)
}

func asJSON(options any) (string, error) {
	text, err := json.Marshal(options)
	if err != nil {
		return "", fmt.Errorf("encode the options of a passkey: %w", err)
	}
	return string(text), nil
}

// madePasskey reads and checks the answer to a setup.
func (s *service) madePasskey(h *holder, c *identitystorepb.Challenge, text string) (*webauthn.Credential, error) {
	party, err := s.passkeyParty()
	if err != nil {
		return nil, err
	}
	answer, err := protocol.ParseCredentialCreationResponseBytes([]byte(text))
	if err != nil {
		return nil, passkeyUnfit(err)
	}
	made, err := party.CreateCredential(h, s.ceremony(c), answer)
	if err != nil {
		return nil, passkeyUnfit(err)
	}
	return made, nil
}
