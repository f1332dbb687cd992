package identity

import (
	"context"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/states"
	"latchkey.dev/services/internal/store"
)

// keyKind is whose API keys they are: organizations', or brands'.
type keyKind struct {
	revoke, rotate string // full names of the methods
	states         *states.Table[*pb.ApiKey, pb.ApiKeyState]
	// brand returns the brand whose a key is that is made in an organization, "" for none.
	brand func(tx *store.Tx, organization string) (string, error)
}

var (
	ofOrganizations = newKeyKind(pb.ApiKeyService_RevokeApiKey_FullMethodName, pb.ApiKeyService_RotateApiKey_FullMethodName,
		func(*store.Tx, string) (string, error) { return "", nil })
	ofBrands = newKeyKind(pb.BrandApiKeyService_RevokeBrandApiKey_FullMethodName, pb.BrandApiKeyService_RotateBrandApiKey_FullMethodName,
		func(tx *store.Tx, organization string) (string, error) {
			b, err := brandOf(tx, organization)
			return b.GetId(), err
		})
)

func newKeyKind(revoke, rotate string, brand func(*store.Tx, string) (string, error)) *keyKind {
	return &keyKind{revoke, rotate, apiKeyStates(revoke, rotate), brand}
}

// kindOfKey tells which kind a key is of.
func kindOfKey(key *pb.ApiKey) *keyKind {
	if key.GetBrandId() != "" {
		return ofBrands
	}
	return ofOrganizations
}

// owner returns whose keys are those of the kind that callers from an organization manage.
func (k *keyKind) owner(tx *store.Tx, organization string) (string, error) {
	brand, err := k.brand(tx, organization)
	if brand != "" {
		return brand, err
	}
	return organization, err
}

// ownerOfKey returns the organization or the brand that a key belongs to.
func ownerOfKey(key *pb.ApiKey) string {
	if key.GetBrandId() != "" {
		return key.GetBrandId()
	}
	return key.GetOrganizationId()
}

// CreateBrandApiKey implements pb.BrandApiKeyServiceServer.
func (s *service) CreateBrandApiKey(ctx context.Context, req *pb.CreateBrandApiKeyRequest) (*pb.CreateBrandApiKeyResponse, error) {
	resp, secret, err := makeKey(ctx, s, req, ofBrands, func(key *pb.ApiKey) *pb.CreateBrandApiKeyResponse {
		return &pb.CreateBrandApiKeyResponse{ApiKey: key}
	})
	if err == nil {
		resp.Token = secret
	}
	return resp, err
}

// ListBrandApiKeys implements pb.BrandApiKeyServiceServer.
func (s *service) ListBrandApiKeys(ctx context.Context, req *pb.ListBrandApiKeysRequest) (*pb.ListBrandApiKeysResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListBrandApiKeysResponse, error) {
		page, next, err := pageOfKeys(ctx, tx, req, ofBrands)
		return &pb.ListBrandApiKeysResponse{ApiKeys: page, NextPageToken: next}, err
	})
}

// RevokeBrandApiKey implements pb.BrandApiKeyServiceServer.
func (s *service) RevokeBrandApiKey(ctx context.Context, req *pb.RevokeBrandApiKeyRequest) (*pb.RevokeBrandApiKeyResponse, error) {
	return endKey(ctx, s, req, ofBrands, func(key *pb.ApiKey) *pb.RevokeBrandApiKeyResponse {
		return &pb.RevokeBrandApiKeyResponse{ApiKey: key}
	})
}

// RotateBrandApiKey implements pb.BrandApiKeyServiceServer.
func (s *service) RotateBrandApiKey(ctx context.Context, req *pb.RotateBrandApiKeyRequest) (*pb.RotateBrandApiKeyResponse, error) {
	resp, secret, err := replaceKey(ctx, s, req, ofBrands, func(fresh, old *pb.ApiKey) *pb.RotateBrandApiKeyResponse {
		return &pb.RotateBrandApiKeyResponse{ApiKey: fresh, Replaced: old}
	})
	if err == nil {
		resp.Token = secret
	}
	return resp, err
}

// unnamed holds when a call names no organization.
func unnamed(_ *store.Tx, s subject) bool { return s.named == "" }

// ofOtherBrand holds when the organization that a call names is none of the key's brand.
func ofOtherBrand(tx *store.Tx, s subject) bool {
	o, ok := organizations.Get(tx, s.named)
	return !ok || o.GetBrandId() != s.brand
}

// otherNamed holds when a call names another organization than its credentials act in.
func otherNamed(_ *store.Tx, s subject) bool { return s.named != "" && s.named != s.organization }

func organizationUnnamed() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_ORGANIZATION_UNNAMED,
		"the key is a brand's: name the organization that the call acts in, in the metadata "+authz.OrganizationHeader,
		map[string]string{"header": authz.OrganizationHeader})
}

func organizationRefused() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_ORGANIZATION_REFUSED,
		"the credentials do not act in the organization that is named in the metadata "+authz.OrganizationHeader,
		map[string]string{"header": authz.OrganizationHeader})
}

// keyOrganization returns the organization that a key goes with; one of a brand stays.
func keyOrganization(key *pb.ApiKey) string {
	if key.GetBrandId() != "" {
		return ""
	}
	return key.GetOrganizationId()
}
