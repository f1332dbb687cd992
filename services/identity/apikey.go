package identity

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	apiKeyPrefix = "lka_"
	// maxKeys is how many active keys act as one user in an organization.
	maxKeys = 100
	// day is how exactly the last use of a key is known, and how long at most what
	// ResolveSession says of it holds.
	day = 24 * time.Hour
)

// CreateApiKey implements pb.ApiKeyServiceServer.
func (s *service) CreateApiKey(ctx context.Context, req *pb.CreateApiKeyRequest) (*pb.CreateApiKeyResponse, error) {
	resp, secret, err := makeKey(ctx, s, req, ofOrganizations, func(key *pb.ApiKey) *pb.CreateApiKeyResponse {
		return &pb.CreateApiKeyResponse{ApiKey: key}
	})
	if err == nil {
		resp.Token = secret
	}
	return resp, err
}

// newKey is a request for one.
type newKey interface {
	proto.Message
	GetValidateOnly() bool
	GetName() string
	GetScopes() []string
	GetExpireTime() *timestamppb.Timestamp
	GetServiceAccountId() string
}

// keyAnswer is an answer with a key.
type keyAnswer interface {
	proto.Message
	GetApiKey() *pb.ApiKey
}

// makeKey makes a key, and returns its token unless the answer is that of an earlier call.
func makeKey[R keyAnswer](ctx context.Context, s *service, req newKey, kind *keyKind, answer func(*pb.ApiKey) R) (resp R, secret string, err error) {
	caller := authz.Caller(ctx)
	scopes, err := checkScopes(req.GetScopes(), caller.Grants)
	if err != nil {
		return resp, "", err
	}
	fresh := &pb.ApiKey{
		Id: s.newID(), UserId: caller.ID, OrganizationId: caller.Organization, Name: req.GetName(),
		Scopes: scopeNames(scopes), ExpireTime: req.GetExpireTime(), State: keyActive,
	}
	if account := req.GetServiceAccountId(); account != "" {
		if err := s.checkForAccount(ctx, account, scopes, kind); err != nil {
			return resp, "", err
		}
		fresh.UserId, fresh.MakerId = account, caller.ID
	}
	secret, hash := token.New(apiKeyPrefix, s.random)
	resp, err = do(ctx, s, req, func(tx *store.Tx) (none R, err error) {
		if fresh.BrandId, err = kind.brand(tx, caller.Organization); err != nil {
			return none, err
		}
		if err := issueKey(tx, caller, fresh, hash[:]); err != nil {
			return none, err
		}
		return answer(shownKey(ctx, fresh)), nil
	})
	if err != nil || req.GetValidateOnly() || resp.GetApiKey().GetId() != fresh.GetId() {
		secret = ""
	}
	return resp, secret, err
}

// checkForAccount returns nil if the caller may make a key with these scopes for a service
// account.
func (s *service) checkForAccount(ctx context.Context, account string, scopes catalog.Set, kind *keyKind) error {
	if err := s.checkAccountWithin(ctx, account, kind); err != nil {
		return err
	}
	held, err := s.grantsOf(ctx, authz.Caller(ctx).Organization, account)
	if err != nil {
		return err
	}
	return checkHeld(scopes, held, "the service account does not have the permission %s: give it that first")
}

// accountOfKey returns the service account that a key acts as, or "".
func accountOfKey(key *pb.ApiKey) string {
	if key.GetMakerId() == "" {
		return ""
	}
	return key.GetUserId()
}

// issueKey keeps a new key of the caller, and what proves it.
func issueKey(tx *store.Tx, caller *authz.Principal, key *pb.ApiKey, hash []byte) error {
	if err := admit(tx, callerAsSubject(caller), pathNewKey); err != nil {
		return err
	}
	if key.GetMakerId() != "" {
		if _, err := activeAccount(tx, key.GetOrganizationId(), key.GetUserId()); err != nil {
			return err
		}
	}
	if hasExpired(tx, key) {
		return fault.Invalid("expire_time", "must be in the future")
	}
	active := 0
	for other := range apiKeysByUser.Scan(tx, apiKeysByUser.Range(key.GetOrganizationId(), key.GetUserId())) {
		if !hasExpired(tx, other) {
			active++
		}
	}
	if active >= maxKeys {
		return fault.Limit("active API keys of one user in an organization", 0)
	}
	key.CreateTime = timestamppb.New(tx.Now())
	if err := apiKeys.Put(tx, key); err != nil {
		return err
	}
	return tokens.Put(tx, &identitystorepb.SessionToken{Id: tokenID(hash), SessionId: key.GetId()})
}

func hasExpired(tx *store.Tx, key *pb.ApiKey) bool {
	return key.GetExpireTime() != nil && !key.GetExpireTime().AsTime().After(tx.Now())
}

// shownKey returns the key with what the caller can do with it.
func shownKey(ctx context.Context, key *pb.ApiKey) *pb.ApiKey {
	key.AvailableActions = kindOfKey(key).states.Actions(ctx, key)
	return key
}

// ListApiKeys implements pb.ApiKeyServiceServer.
func (s *service) ListApiKeys(ctx context.Context, req *pb.ListApiKeysRequest) (*pb.ListApiKeysResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListApiKeysResponse, error) {
		page, next, err := pageOfKeys(ctx, tx, req, ofOrganizations)
		return &pb.ListApiKeysResponse{ApiKeys: page, NextPageToken: next}, err
	})
}

// pageOfKeys lists the keys of the caller's organization or brand.
func pageOfKeys(ctx context.Context, tx *store.Tx, req store.PageRequest, kind *keyKind) ([]*pb.ApiKey, string, error) {
	owner, err := kind.owner(tx, authz.Caller(ctx).Organization)
	if err != nil {
		return nil, "", err
	}
	page, next, err := store.Page(tx, req, nil, apiKeysByOwner.Range(owner))
	for _, key := range page {
		use, _ := apiKeyUses.Get(tx, key.GetId())
		key.LastUseTime = use.GetLastUseTime()
		shownKey(ctx, key)
	}
	return page, next, err
}

// keyChange is a request that changes a key.
type keyChange interface {
	proto.Message
	GetValidateOnly() bool
	GetId() string
	GetEtag() string
}

// changeKey finds a key of the caller's organization or brand that is to change, in the
// version that the caller read, and moves it by the row of the method.
func changeKey(ctx context.Context, tx *store.Tx, req keyChange, kind *keyKind, method string) (*pb.ApiKey, error) {
	owner, err := kind.owner(tx, authz.Caller(ctx).Organization)
	if err != nil {
		return nil, err
	}
	key, ok := apiKeys.Get(tx, req.GetId())
	if !ok || ownerOfKey(key) != owner {
		return nil, fault.NotFound("api_key", req.GetId())
	}
	if err := apiKeys.Match(key, req.GetEtag()); err != nil {
		return nil, err
	}
	return key, kind.states.Apply(ctx, method, key)
}

// RevokeApiKey implements pb.ApiKeyServiceServer.
func (s *service) RevokeApiKey(ctx context.Context, req *pb.RevokeApiKeyRequest) (*pb.RevokeApiKeyResponse, error) {
	return endKey(ctx, s, req, ofOrganizations, func(key *pb.ApiKey) *pb.RevokeApiKeyResponse {
		return &pb.RevokeApiKeyResponse{ApiKey: key}
	})
}

// endKey revokes a key, and returns when that holds everywhere.
func endKey[R proto.Message](ctx context.Context, s *service, req keyChange, kind *keyKind, answer func(*pb.ApiKey) R) (resp R, err error) {
	change := func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (none R, err error) {
			key, err := changeKey(ctx, tx, req, kind, kind.revoke)
			if err != nil {
				return none, err
			}
			if err := revokeKey(tx, key); err != nil {
				return none, err
			}
			return answer(shownKey(ctx, key)), nil
		})
		return err
	}
	return resp, s.shutOutUnless(ctx, req.GetValidateOnly(), change, sessionTag(req.GetId()))
}

// shutOutUnless is shutOut, or the change alone if it only validates.
func (s *service) shutOutUnless(ctx context.Context, validateOnly bool, change func(context.Context) error, tags ...string) error {
	if validateOnly {
		return change(ctx)
	}
	return s.shutOut(ctx, change, tags...)
}

// revokeKey ends a key and what proves it.
func revokeKey(tx *store.Tx, key *pb.ApiKey) error {
	endTokens(tx, key.GetId())
	key.State = keyRevoked
	key.RevokeTime = timestamppb.New(tx.Now())
	key.PurgeTime = timestamppb.New(tx.Now().Add(undeleteLife))
	return apiKeys.Put(tx, key)
}

// revokeKeysOf ends all keys of a user. One who is let in again makes new ones.
func revokeKeysOf(tx *store.Tx, u *pb.User) error {
	for key := range apiKeysByUser.Scan(tx, apiKeysByUser.Range(u.GetOrganizationId(), u.GetId())) {
		if err := revokeKey(tx, key); err != nil {
			return err
		}
	}
	return nil
}

// RotateApiKey implements pb.ApiKeyServiceServer.
func (s *service) RotateApiKey(ctx context.Context, req *pb.RotateApiKeyRequest) (*pb.RotateApiKeyResponse, error) {
	resp, secret, err := replaceKey(ctx, s, req, ofOrganizations, func(fresh, old *pb.ApiKey) *pb.RotateApiKeyResponse {
		return &pb.RotateApiKeyResponse{ApiKey: fresh, Replaced: old}
	})
	if err == nil {
		resp.Token = secret
	}
	return resp, err
}

// keyRotation is a request for another key in the place of one.
type keyRotation interface {
	keyChange
	GetOverlap() *durationpb.Duration
	GetExpireTime() *timestamppb.Timestamp
}

// replaceKey rotates a key, and returns the token of the new one unless the answer is that
// of an earlier call.
func replaceKey[R keyAnswer](ctx context.Context, s *service, req keyRotation, kind *keyKind, answer func(fresh, old *pb.ApiKey) R) (resp R, secret string, err error) {
	account, err := read(ctx, s, func(tx *store.Tx) (string, error) {
		key, _ := apiKeys.Get(tx, req.GetId())
		return accountOfKey(key), nil
	})
	if err != nil {
		return resp, "", err
	}
	if err := s.checkAccountWithin(ctx, account, kind); err != nil {
		return resp, "", err
	}
	id := s.newID()
	secret, hash := token.New(apiKeyPrefix, s.random)
	change := func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (none R, err error) {
			fresh, old, err := rotateKey(ctx, tx, req, kind, id, hash[:])
			if err != nil {
				return none, err
			}
			return answer(shownKey(ctx, fresh), shownKey(ctx, old)), nil
		})
		return err
	}
	err = s.shutOutUnless(ctx, req.GetValidateOnly(), change, sessionTag(req.GetId()))
	if err != nil || req.GetValidateOnly() || resp.GetApiKey().GetId() != id {
		secret = ""
	}
	return resp, secret, err
}

func rotateKey(ctx context.Context, tx *store.Tx, req keyRotation, kind *keyKind, id string, hash []byte) (fresh, old *pb.ApiKey, err error) {
	if old, err = changeKey(ctx, tx, req, kind, kind.rotate); err != nil {
		return nil, nil, err
	}
	if hasExpired(tx, old) {
		return nil, nil, fault.Refused("the key has expired: make a new one")
	}
	caller := authz.Caller(ctx)
	fresh = &pb.ApiKey{
		Id: id, UserId: old.GetUserId(), OrganizationId: old.GetOrganizationId(), BrandId: old.GetBrandId(), Name: old.GetName(),
		Scopes: old.GetScopes(), ExpireTime: old.GetExpireTime(), State: keyActive,
	}
	if accountOfKey(old) != "" {
		if err := checkHeld(scopesOf(old.GetScopes()), caller.Grants, heldByCaller); err != nil {
			return nil, nil, err
		}
		fresh.MakerId = caller.ID
	}
	if req.GetExpireTime() != nil {
		fresh.ExpireTime = req.GetExpireTime()
	}
	old.SuccessorId = id
	if err := retireKey(tx, old, req.GetOverlap().AsDuration()); err != nil {
		return nil, nil, err
	}
	return fresh, old, issueKey(tx, caller, fresh, hash)
}

// retireKey lets a replaced key be accepted for a while, if at all.
func retireKey(tx *store.Tx, key *pb.ApiKey, overlap time.Duration) error {
	if overlap <= 0 {
		return revokeKey(tx, key)
	}
	end := tx.Now().Add(overlap)
	if key.GetExpireTime() == nil || end.Before(key.GetExpireTime().AsTime()) {
		key.ExpireTime = timestamppb.New(end)
	}
	return apiKeys.Put(tx, key)
}

// resolveKey answers whose key it is. The answer holds until the day is over, so that
// the first use on each day is heard of.
func resolveKey(tx *store.Tx, key *pb.ApiKey, t *identitystorepb.SessionToken, named string) (*pb.SessionFacts, error) {
	who := subject{organization: key.GetOrganizationId(), user: key.GetUserId(), apiKey: key.GetId(), accessToken: t.GetId(), named: named}
	p := pathKey
	if key.GetBrandId() != "" {
		who.organization, who.brand, p = named, key.GetBrandId(), pathBrandKey
	}
	if err := admit(tx, who, p); err != nil {
		return nil, err
	}
	until := sooner(sooner(timestamppb.New(startOfDay(tx.Now()).Add(day)), key.GetExpireTime()), t.GetExpireTime())
	scopes := scopesOf(key.GetScopes())
	if t.Scopes != nil { // a token that the key was exchanged for
		some, err := catalog.SetFromBytes(t.GetScopes())
		if err != nil {
			return nil, fmt.Errorf("read the scopes of a token of API key %s: %w", key.GetId(), err)
		}
		scopes = scopes.Intersection(some)
	}
	return &pb.SessionFacts{
		SessionId: key.GetId(), UserId: key.GetUserId(), OrganizationId: who.organization,
		Surface: pb.Surface_SURFACE_API, ExpireTime: until, Scopes: scopes.Bytes(),
	}, nil
}

func startOfDay(t time.Time) time.Time { return t.UTC().Truncate(day) }

// noteUse writes down that a key was used today, once a day. That the key is used does
// not depend on it.
func (s *service) noteUse(ctx context.Context, id string) {
	noted, err := read(ctx, s, func(tx *store.Tx) (bool, error) { return usedToday(tx, id), nil })
	if err == nil && !noted {
		err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
			if usedToday(tx, id) {
				return nil
			}
			return apiKeyUses.Put(tx, &identitystorepb.ApiKeyUse{Id: id, LastUseTime: timestamppb.New(startOfDay(tx.Now()))})
		})
	}
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "the use of an API key was not written down", "api_key", id, "error", err)
	}
}

// usedToday tells whether the use of a key today is written down, or the key is gone.
func usedToday(tx *store.Tx, id string) bool {
	use, _ := apiKeyUses.Get(tx, id)
	return !apiKeys.Has(tx, id) || !use.GetLastUseTime().AsTime().Before(startOfDay(tx.Now()))
}
