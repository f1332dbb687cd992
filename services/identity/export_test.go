package identity

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

// Cheap is Part with hashes that cost next to nothing. Most tests sign in often, and
// what that costs is no part of what they look at.
var Cheap = server.Part{Name: Part.Name, Schema: schema, Start: func(env *server.Env) error {
	return startWith(env, newHasher(cheap, 2, rand.Reader))
}}

// Counted is Part, whose hashes are counted.
var Counted = server.Part{Name: Part.Name, Schema: schema, Start: func(env *server.Env) error {
	return startWith(env, newHasher(currentParams, 2, rand.Reader))
}}

// last is the part that started last.
var last atomic.Pointer[service]

func startWith(env *server.Env, h *hasher) error {
	s := newService(env)
	s.hasher = h
	last.Store(s)
	return s.serve(env)
}

// Hashes tells how many passwords the part that started last has hashed.
func Hashes() int64 { return last.Load().hasher.done.Load() }

// FillUp takes every place for those who wait for a hash, until it is told to leave.
func FillUp() (leave func()) {
	h := last.Load().hasher
	for range cap(h.places) {
		h.places <- struct{}{}
	}
	return func() {
		for range cap(h.places) {
			<-h.places
		}
	}
}

// Cell is a path and a state that blocks it.
type Cell struct{ Path, Block string }

// Gate lists what the gate refuses.
func Gate() (cells []Cell) {
	for _, b := range blocks {
		for _, p := range b.on {
			cells = append(cells, Cell{string(p), b.name})
		}
	}
	return cells
}

// CanTamper tells whether Tamper knows a state. Those of the claim it does not.
func CanTamper(block string) bool { return tampers[block] != nil }

// Whom is what Tamper changes.
type Whom struct {
	Organization, User, Session, Key, BrandKey, Client, ClientSession, Redirect, Challenge, Actor, ActorSession string
	Provider, Link                                                                                              string
	Challenges                                                                                                  []string // their secrets
}

// Tamper brings somebody into a blocked state behind the back of the part that
// started last: nobody is told, so what its process knows of the caller stays.
func Tamper(ctx context.Context, block string, w Whom) error {
	Tampered.Store(true)
	return last.Load().db.Update(inDirectory(ctx), func(tx *store.Tx) error { return tampers[block](tx, w) })
}

// Tampered tells whether that was done with the records of the suite that a test has started last.
var Tampered atomic.Bool

var past = timestamppb.New(time.Unix(1, 0))

var tampers = map[string]func(*store.Tx, Whom) error{
	"organization unknown": func(tx *store.Tx, w Whom) error {
		organizations.Delete(tx, w.Organization)
		return nil
	},
	"organization suspended": func(tx *store.Tx, w Whom) error {
		o, _ := organizations.Get(tx, w.Organization)
		o.State = suspended
		return organizations.Put(tx, o)
	},
	"organization closed": func(tx *store.Tx, w Whom) error {
		o, _ := organizations.Get(tx, w.Organization)
		o.DeleteTime = timestamppb.New(tx.Now())
		return organizations.Put(tx, o)
	},
	"brand closed": func(tx *store.Tx, w Whom) error {
		o, _ := organizations.Get(tx, w.Organization)
		o.BrandId = "of this organization alone"
		if err := brands.Put(tx, &pb.Brand{Id: o.GetBrandId(), DeleteTime: timestamppb.New(tx.Now())}); err != nil {
			return err
		}
		return organizations.Put(tx, o)
	},
	"person deleted": func(tx *store.Tx, w Whom) error {
		profiles.Delete(tx, w.User)
		return nil
	},
	"membership ended": func(tx *store.Tx, w Whom) error {
		users.Delete(tx, userKey(w.Organization, w.User))
		return nil
	},
	"user deactivated": func(tx *store.Tx, w Whom) error {
		u, _ := users.Get(tx, userKey(w.Organization, w.User))
		u.State = deactivated
		return users.Put(tx, u)
	},
	"service account": func(tx *store.Tx, w Whom) error {
		u, _ := users.Get(tx, userKey(w.Organization, w.User))
		u.ServiceAccount = true
		return users.Put(tx, u)
	},
	"provider deleted": func(tx *store.Tx, w Whom) error {
		providers.Delete(tx, w.Provider)
		return nil
	},
	"provider disabled":                withProvider(func(p *pb.OutsideProvider) { p.Disabled = true }),
	"provider of another organization": withProvider(func(p *pb.OutsideProvider) { p.OrganizationId = "of another" }),
	"address of another domain":        withProvider(func(p *pb.OutsideProvider) { p.EmailDomains = []string{"elsewhere.example"} }),
	"link removed": func(tx *store.Tx, w Whom) error {
		links.Delete(tx, w.Link)
		return nil
	},
	"proven by a provider alone": func(tx *store.Tx, w Whom) error {
		s, _ := sessions.Get(tx, w.Session)
		s.ProviderId, s.Factors = "of another organization", []pb.Factor{factorProvider}
		return sessions.Put(tx, s)
	},
	"actor shut out": func(tx *store.Tx, w Whom) error {
		sessions.Delete(tx, w.ActorSession)
		return nil
	},
	"key revoked": func(tx *store.Tx, w Whom) error {
		return w.tamperKeys(tx, func(k *pb.ApiKey) { k.State = keyRevoked }) // but its token stays
	},
	"code for a password wrong": func(tx *store.Tx, w Whom) error {
		resets.Delete(tx, w.User)
		return nil
	},
	"code for a password expired": func(tx *store.Tx, w Whom) error {
		r, ok := resets.Get(tx, w.User)
		if !ok {
			return nil
		}
		r.ExpireTime = past
		return resets.Put(tx, r)
	},
	"key not proven": func(tx *store.Tx, w Whom) error {
		endTokens(tx, w.Key)
		return nil
	},
	"calendar disconnected": func(tx *store.Tx, w Whom) error {
		endCalendar(tx, w.Organization, w.User)
		return nil
	},
	"client deleted": func(tx *store.Tx, w Whom) error {
		clients.Delete(tx, w.Client)
		return nil
	},
	"client not proven": func(tx *store.Tx, w Whom) error {
		clientSecrets.Delete(tx, w.Client)
		return nil
	},
	"access token expired": func(tx *store.Tx, w Whom) error {
		for _, id := range []string{w.Client, w.ClientSession} {
			for t := range tokensBySession.Scan(tx, tokensBySession.Range(id)) {
				t.ExpireTime = past
				if err := tokens.Put(tx, t); err != nil {
					return err
				}
			}
		}
		return nil
	},
	"key expired": func(tx *store.Tx, w Whom) error {
		return w.tamperKeys(tx, func(k *pb.ApiKey) { k.ExpireTime = past })
	},
	"challenge answered": func(tx *store.Tx, w Whom) error {
		for _, secret := range w.Challenges {
			if secret == "" {
				continue
			}
			c, err := last.Load().openChallenge(secret)
			if err != nil {
				return err
			}
			if err := spendChallenge(tx, c); err != nil {
				return err
			}
		}
		return nil
	},
	"factor removed": func(tx *store.Tx, w Whom) error {
		totps.Delete(tx, w.User)
		for _, p := range passkeysOf(tx, w.User) {
			passkeys.Delete(tx, p.GetId())
		}
		recoveryCodes.Delete(tx, w.User)
		return nil
	},
	"second factor not shown":                setUpBehindTheBack,
	"second factor not shown in the session": setUpBehindTheBack,
	"nothing proven lately": func(tx *store.Tx, w Whom) error {
		s, _ := sessions.Get(tx, w.Session)
		s.AuthTime = timestamppb.New(tx.Now().Add(-freshFor))
		return sessions.Put(tx, s)
	},
	"session left idle": func(tx *store.Tx, w Whom) error {
		return sessionUses.Put(tx, &identitystorepb.SessionUse{Id: w.Session, LastSeenTime: past})
	},
	"refresh token unknown": func(tx *store.Tx, w Whom) error {
		for r := range refreshBySession.Scan(tx, refreshBySession.Range(w.Session)) {
			refreshes.Delete(tx, r.GetId())
		}
		return nil
	},
	"refresh token exchanged": func(tx *store.Tx, w Whom) error {
		for r := range refreshBySession.Scan(tx, refreshBySession.Range(w.Session)) {
			r.UseTime = timestamppb.New(tx.Now())
			if err := refreshes.Put(tx, r); err != nil {
				return err
			}
		}
		return nil
	},
	"session ended": func(tx *store.Tx, w Whom) error {
		sessions.Delete(tx, w.Session) // but not its token
		sessions.Delete(tx, w.ClientSession)
		return nil
	},
	"session expired": func(tx *store.Tx, w Whom) error {
		for _, id := range []string{w.Session, w.ClientSession} {
			s, ok := sessions.Get(tx, id)
			if !ok {
				continue
			}
			s.ExpireTime = past
			if err := sessions.Put(tx, s); err != nil {
				return err
			}
		}
		return nil
	},
	"password changed": func(tx *store.Tx, w Whom) error {
		c, _ := credentials.Get(tx, w.User)
		c.PasswordHash = hashPassword(cheap, "another password", make([]byte, saltSize)).String()
		return credentials.Put(tx, c)
	},
}

// tamperKeys changes somebody's API keys.
func (w Whom) tamperKeys(tx *store.Tx, change func(*pb.ApiKey)) error {
	for _, id := range []string{w.Key, w.BrandKey} {
		k, ok := apiKeys.Get(tx, id)
		if !ok {
			continue
		}
		change(k)
		if err := apiKeys.Put(tx, k); err != nil {
			return err
		}
	}
	return nil
}

// withProvider changes the provider of somebody who has one.
func withProvider(change func(*pb.OutsideProvider)) func(*store.Tx, Whom) error {
	return func(tx *store.Tx, w Whom) error {
		p, ok := providers.Get(tx, w.Provider)
		if !ok {
			return nil
		}
		change(p)
		return providers.Put(tx, p)
	}
}

// GoesTo says why the suite asks nobody at an address outside, from a loopback suite or not, if
// it does not.
func GoesTo(address string, loopback bool, networks ...netip.Prefix) error {
	return newOutside(server.Outside{Networks: networks, Loopback: loopback}, time.Now).checkAddress(address)
}

// ExpireInvitation lets an invitation have expired.
func ExpireInvitation(ctx context.Context, provider, user string) error {
	return last.Load().db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		i, ok := outsideInvitations.Get(tx, invitationKey(provider, user))
		if !ok {
			return fmt.Errorf("there is no invitation of %s to %s", user, provider)
		}
		i.ExpireTime = past
		return outsideInvitations.Put(tx, i)
	})
}

// setUpBehindTheBack gives somebody an authenticator app that the session has not shown.
func setUpBehindTheBack(tx *store.Tx, w Whom) error {
	s, _ := sessions.Get(tx, w.Session)
	s.Strength = singleFactor
	if err := sessions.Put(tx, s); err != nil {
		return err
	}
	return last.Load().setUpTOTP(tx, &identitystorepb.Challenge{UserId: w.User, TotpSecret: make([]byte, totpSecret)}, 0)
}

// Automate does once what brands have the suite do by itself.
func Automate(ctx context.Context) error { return last.Load().automateAll(ctx) }

// PurgeClasses erases accounting classes that were deleted long enough ago.
func PurgeClasses(ctx context.Context) (int, error) { return last.Load().inOne(ctx, purgeClasses) }

// SourceOf returns what wrong passwords from an address are counted under.
func SourceOf(address string) string { return last.Load().sourceOf(place{address: address}) }

// Postpone lets nobody try anything for an hour more of the counters that begin so and
// have had enough, so that a test need not be faster than the first delays.
func Postpone(ctx context.Context, prefix string) error {
	return last.Load().db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		n := 0
		for f := range failures.All(tx) {
			if !strings.HasPrefix(f.GetId(), prefix) || f.GetUntilTime() == nil {
				continue
			}
			n++
			f.UntilTime = timestamppb.New(tx.Now().Add(time.Hour))
			if err := failures.Put(tx, f); err != nil {
				return err
			}
		}
		if n == 0 {
			return fmt.Errorf("nothing of %s is delayed", prefix)
		}
		return nil
	})
}

// Forget forgets an impersonation, but not the session that it opened.
func Forget(ctx context.Context, impersonation string) error {
	return last.Load().db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		impersonations.Delete(tx, impersonation)
		return nil
	})
}

// Upkeep does once what is done from time to time, of what OAuth needs.
func Upkeep(ctx context.Context) error {
	s := last.Load()
	if err := s.rotateKeys(ctx); err != nil {
		return err
	}
	s.upkeepOAuth(ctx)
	return nil
}

// PrivateKeyMarks are what a private key on disk would begin with: the identifiers of its
// algorithm in PKCS #8.
func PrivateKeyMarks() []string {
	return []string{
		"\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70",                         // Ed25519
		"\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",         // elliptic curves
		"\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", // RSA
	}
}

// Scopes are all that a client can be allowed.
func Scopes() []string { return (&service{}).metadata().ScopesSupported }

// GrantCode makes a code as if somebody had just let the client in.
func GrantCode(ctx context.Context, w Whom) (string, error) {
	text, hash := token.New(codePrefix, rand.Reader)
	return text, last.Load().db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		return authCodes.Put(tx, &identitystorepb.AuthorizationCode{
			Id: tokenID(hash[:]), ClientId: w.Client, RedirectUri: w.Redirect, Challenge: w.Challenge, Scopes: []string{"openid"},
			UserId: w.User, OrganizationId: w.Organization, SessionId: w.Session, AuthTime: timestamppb.New(tx.Now()),
			ExpireTime: timestamppb.New(tx.Now().Add(codeLife)),
		})
	})
}

// GrantRefresh makes one more refresh token of a session.
func GrantRefresh(ctx context.Context, session string) (string, error) {
	text, hash := token.New(refreshPrefix, rand.Reader)
	return text, last.Load().db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		return refreshTokens.Put(tx, &identitystorepb.RefreshToken{Id: tokenID(hash[:]), SessionId: session})
	})
}

// KeptPassword returns the hash of somebody's password, and its kind if it was imported.
func KeptPassword(ctx context.Context, user string) (hash, kind string) {
	c, _ := read(ctx, last.Load(), func(tx *store.Tx) (*identitystorepb.Credential, error) {
		c, _ := credentials.Get(tx, user)
		return c, nil
	})
	return c.GetPasswordHash(), c.GetImportedKind()
}

// ImportedKinds tells how many kinds of imported hashes there are.
func ImportedKinds(ctx context.Context) int {
	kinds, _ := read(ctx, last.Load(), func(tx *store.Tx) ([]passwordHash, error) { return otherKinds(tx), nil })
	return len(kinds)
}

// GrantReset makes a code for somebody's password.
func GrantReset(ctx context.Context, user string) (string, error) {
	s := last.Load()
	code := s.newCode()
	return code, s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		return keepReset(tx, &identitystorepb.PasswordReset{UserId: user, Id: s.newPersonID(), Hash: typedHash(user, code)})
	})
}

// Revision returns the last one of the journal.
func Revision(ctx context.Context) int64 {
	n, _ := read(ctx, last.Load(), func(tx *store.Tx) (int64, error) { return tx.Revision(), nil })
	return n
}

// GiveApp sets up an authenticator app of somebody, which nobody has.
func GiveApp(ctx context.Context, user string) error {
	s := last.Load()
	return s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		return s.setUpTOTP(tx, &identitystorepb.Challenge{UserId: user, TotpSecret: make([]byte, totpSecret)}, 0)
	})
}

// Notifiable are the events that people can be told of, with the full names of their messages.
var Notifiable = notifiable

// OrganizationSettings are the fields of an organization that can be changed.
var OrganizationSettings = organizationSettings
