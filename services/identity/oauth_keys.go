package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/seal"
	"latchkey.dev/services/internal/store"
)

const (
	// keyLife is how long a key signs before the next one does.
	keyLife = 30 * 24 * time.Hour
	// keyNotice is how long a key is published before it signs: longer than verifiers
	// keep what they fetched.
	keyNotice = 2 * keysFresh
	// keysFresh is how long verifiers may keep the keys that they fetched.
	keysFresh = 15 * time.Minute
	// keyRest is how long a key is published after its successor began to sign: longer than
	// anything that it signed is valid.
	keyRest = 24 * time.Hour
	rsaBits = 2048
)

// algorithms are those that tokens are signed with, the default first.
var algorithms = []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.RS256}

// algorithmOf returns how the tokens of a client are signed.
func algorithmOf(c *pb.OauthClient) jose.SignatureAlgorithm {
	switch c.GetSigningAlgorithm() {
	case pb.OauthSigningAlgorithm_OAUTH_SIGNING_ALGORITHM_EDDSA:
		return jose.EdDSA
	case pb.OauthSigningAlgorithm_OAUTH_SIGNING_ALGORITHM_RS256:
		return jose.RS256
	}
	return jose.ES256
}

// keyring has the private keys that were opened, by kid. Each is opened once.
type keyring struct {
	box    *seal.Box
	random io.Reader

	mu     sync.Mutex
	opened map[string]crypto.Signer
}

func newKeyring(box *seal.Box, random io.Reader) *keyring {
	return &keyring{box: box, random: random, opened: map[string]crypto.Signer{}}
}

// make makes a key that signs from a time on.
func (k *keyring) make(alg jose.SignatureAlgorithm, from time.Time) (*identitystorepb.SigningKey, error) {
	var private crypto.Signer
	var err error
	switch alg {
	case jose.EdDSA:
		_, private, err = ed25519.GenerateKey(k.random)
	case jose.RS256:
		private, err = rsa.GenerateKey(k.random, rsaBits)
	default:
		private, err = ecdsa.GenerateKey(elliptic.P256(), k.random)
	}
	if err != nil {
		return nil, fmt.Errorf("make a key that signs %s: %w", alg, err)
	}
	public := jose.JSONWebKey{Key: private.Public(), Algorithm: string(alg), Use: "sig"}
	print, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("name a key: %w", err)
	}
	public.KeyID = base64.RawURLEncoding.EncodeToString(print)
	text, err := public.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write a public key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("write a private key: %w", err)
	}
	return &identitystorepb.SigningKey{
		Id: public.KeyID, Algorithm: string(alg), PublicJwk: text,
		Sealed: k.box.Seal(sealName(public.KeyID), der), ActivateTime: timestamppb.New(from),
	}, nil
}

func sealName(kid string) string { return "signing key/" + kid }

// open returns the private key of a kept one.
func (k *keyring) open(kept *identitystorepb.SigningKey) (crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if private, ok := k.opened[kept.GetId()]; ok {
		return private, nil
	}
	der, err := k.box.Open(sealName(kept.GetId()), kept.GetSealed())
	if err != nil {
		return nil, fmt.Errorf("open the signing key %s: %w (is --seal-key-file the right one?)", kept.GetId(), err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read the signing key %s: %w", kept.GetId(), err)
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the signing key %s is a %T, which cannot sign", kept.GetId(), parsed)
	}
	k.opened[kept.GetId()] = private
	return private, nil
}

// currentKey returns the key that signs now, and the newest one, which may be its
// successor; nil where there is none.
func currentKey(tx *store.Tx, alg jose.SignatureAlgorithm) (current, newest *identitystorepb.SigningKey) {
	for key := range signingKeys.All(tx) {
		from := key.GetActivateTime().AsTime()
		switch {
		case key.GetAlgorithm() != string(alg):
			continue
		case !from.After(tx.Now()) && (current == nil || from.After(current.GetActivateTime().AsTime())):
			current = key
		}
		if newest == nil || from.After(newest.GetActivateTime().AsTime()) {
			newest = key
		}
	}
	return current, newest
}

// signingKey returns the key that signs now. The first one is made when it is needed.
func (s *service) signingKey(ctx context.Context, alg jose.SignatureAlgorithm) (*identitystorepb.SigningKey, error) {
	find := func(tx *store.Tx) (*identitystorepb.SigningKey, error) {
		key, _ := currentKey(tx, alg)
		return key, nil
	}
	if key, err := read(ctx, s, find); err != nil || key != nil {
		return key, err
	}
	fresh, err := s.keys.make(alg, s.now())
	if err != nil {
		return nil, err
	}
	key := fresh
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		if key, _ = currentKey(tx, alg); key != nil {
			return nil
		}
		key = fresh
		key.ActivateTime = timestamppb.New(tx.Now())
		return signingKeys.Put(tx, key)
	})
	return key, err
}

// rotateKeys makes the successors of keys that have signed long enough.
func (s *service) rotateKeys(ctx context.Context) error {
	if s.keys == nil {
		return nil
	}
	for _, alg := range algorithms {
		due, err := read(ctx, s, func(tx *store.Tx) (bool, error) { return successorDue(tx, alg), nil })
		if err != nil {
			return err
		}
		if !due {
			continue
		}
		fresh, err := s.keys.make(alg, s.now().Add(keyNotice))
		if err != nil {
			return err
		}
		err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
			if !successorDue(tx, alg) {
				return nil
			}
			return succeed(tx, alg, fresh)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// successorDue tells whether a key has signed long enough.
func successorDue(tx *store.Tx, alg jose.SignatureAlgorithm) bool {
	_, newest := currentKey(tx, alg)
	return newest != nil && !newest.GetActivateTime().AsTime().Add(keyLife).After(tx.Now())
}

// succeed keeps a key that will sign in place of the others of its algorithm.
func succeed(tx *store.Tx, alg jose.SignatureAlgorithm, fresh *identitystorepb.SigningKey) error {
	from := tx.Now().Add(keyNotice)
	for key := range signingKeys.All(tx) {
		if key.GetAlgorithm() == string(alg) && key.GetPurgeTime() == nil {
			key.PurgeTime = timestamppb.New(from.Add(keyRest))
			if err := signingKeys.Put(tx, key); err != nil {
				return err
			}
		}
	}
	fresh.ActivateTime = timestamppb.New(from)
	return signingKeys.Put(tx, fresh)
}

// purgeSigningKeys removes keys whose signatures no longer count.
func purgeSigningKeys(tx *store.Tx) (n int) {
	for key := range signingKeys.All(tx) {
		if key.GetPurgeTime() != nil && !key.GetPurgeTime().AsTime().After(tx.Now()) {
			signingKeys.Delete(tx, key.GetId())
			n++
		}
	}
	return n
}

// sign returns a JSON Web Token of the type with the claims.
func (s *service) sign(ctx context.Context, alg jose.SignatureAlgorithm, kind string, claims map[string]any) (string, error) {
	kept, err := s.signingKey(ctx, alg)
	if err != nil {
		return "", err
	}
	private, err := s.keys.open(kept)
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(kind))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: private, KeyID: kept.GetId()}}, options)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("write a token: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return signed.CompactSerialize()
}

// publicKeys returns what verifies tokens, as JSON Web Keys: also what will sign soon,
// and what has signed until lately.
func (s *service) publicKeys(ctx context.Context) ([]json.RawMessage, error) {
	for _, alg := range algorithms {
		if _, err := s.signingKey(ctx, alg); err != nil {
			return nil, err
		}
	}
	return read(ctx, s, func(tx *store.Tx) (all []json.RawMessage, _ error) {
		for key := range signingKeys.All(tx) {
			all = append(all, key.GetPublicJwk())
		}
		return all, nil
	})
}
