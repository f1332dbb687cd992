package identity

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

const (
	brandProvider = pb.OutsideProviderOwner_OUTSIDE_PROVIDER_OWNER_BRAND
	// maxProviders is how many providers an organization or a brand can have.
	maxProviders = 50
)

func providerSecretName(id string) string { return "outside provider/" + id }

// CreateOutsideProvider implements pb.OutsideProviderServiceServer.
func (s *service) CreateOutsideProvider(ctx context.Context, req *pb.CreateOutsideProviderRequest) (*pb.CreateOutsideProviderResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	in := req.GetOutsideProvider()
	fresh := &pb.OutsideProvider{
		Id: s.newID(), Owner: in.GetOwner(), OrganizationId: caller.Organization, DisplayName: in.GetDisplayName(), Issuer: in.GetIssuer(),
		ClientId: in.GetClientId(), Scopes: in.GetScopes(), EmailDomains: in.GetEmailDomains(), RedirectUris: in.GetRedirectUris(),
		TrustedForMfa: in.GetTrustedForMfa(), Disabled: in.GetDisabled(),
	}
	if err := s.checkProvider(fresh); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.CreateOutsideProviderResponse, error) {
		if err := admit(tx, callerAsSubject(caller), pathProvider); err != nil {
			return nil, err
		}
		brand, err := brandOf(tx, caller.Organization)
		if err != nil {
			return nil, err
		}
		fresh.BrandId, fresh.CreateTime = brand.GetId(), timestamppb.New(tx.Now())
		there := 0
		for p := range providersByOwner.Scan(tx, providersByOwner.Range(ownerOf(fresh))) {
			if p.GetDeleteTime() == nil {
				there++
			}
		}
		if there >= maxProviders {
			return nil, fault.Limit(fmt.Sprintf("outside providers of one owner: %d", maxProviders), 0)
		}
		if err := s.setSecret(tx, fresh, req.GetClientSecret()); err != nil {
			return nil, err
		}
		return &pb.CreateOutsideProviderResponse{OutsideProvider: fresh}, providers.Put(tx, fresh)
	})
}

// setSecret keeps the secret that a provider knows the suite by; none if it is empty.
func (s *service) setSecret(tx *store.Tx, p *pb.OutsideProvider, secret string) error {
	if secret == "" {
		providerSecrets.Delete(tx, p.GetId())
		p.SecretTime = nil
		return nil
	}
	box, err := s.box()
	if err != nil {
		return err
	}
	p.SecretTime = timestamppb.New(tx.Now())
	return providerSecrets.Put(tx, &identitystorepb.OutsideSecret{
		ProviderId: p.GetId(), Sealed: box.Seal(providerSecretName(p.GetId()), []byte(secret)),
	})
}

// GetOutsideProvider implements pb.OutsideProviderServiceServer.
func (s *service) GetOutsideProvider(ctx context.Context, req *pb.GetOutsideProviderRequest) (*pb.GetOutsideProviderResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetOutsideProviderResponse, error) {
		p, err := managedProvider(ctx, tx, req.GetId())
		return &pb.GetOutsideProviderResponse{OutsideProvider: p}, err
	})
}

// managedProvider finds a provider that the caller holds the key for.
func managedProvider(ctx context.Context, tx *store.Tx, id string) (*pb.OutsideProvider, error) {
	p, ok := providers.Get(tx, id)
	if !ok || !looksAfter(ctx, tx, p, "Organization: Settings", "Branding") {
		return nil, fault.NotFound("outside_provider", id)
	}
	return p, nil
}

// nearProvider finds a provider of an organization or its brand, also one that is deleted.
func nearProvider(tx *store.Tx, organization, id string) (*pb.OutsideProvider, error) {
	p, ok := providers.Get(tx, id)
	if !ok || !isFor(tx, p, organization) {
		return nil, fault.NotFound("outside_provider", id)
	}
	return p, nil
}

// ListOutsideProviders implements pb.OutsideProviderServiceServer.
func (s *service) ListOutsideProviders(ctx context.Context, req *pb.ListOutsideProvidersRequest) (*pb.ListOutsideProvidersResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListOutsideProvidersResponse, error) {
		owner, err := ownerAsked(ctx, tx, req.GetOwner() == brandProvider)
		if err != nil {
			return nil, err
		}
		page, next, err := store.Page(tx, req, nil, providersByOwner.Range(owner))
		return &pb.ListOutsideProvidersResponse{OutsideProviders: page, NextPageToken: next}, err
	})
}

// changedProvider finds a provider that is to change, in the version that the caller read.
func changedProvider(ctx context.Context, tx *store.Tx, id, etag string) (*pb.OutsideProvider, error) {
	p, err := managedProvider(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	if err := providers.Match(p, etag); err != nil {
		return nil, err
	}
	if p.GetDeleteTime() != nil {
		return nil, fault.Refused("the provider is deleted: make a new one")
	}
	return p, nil
}

// UpdateOutsideProvider implements pb.OutsideProviderServiceServer.
func (s *service) UpdateOutsideProvider(ctx context.Context, req *pb.UpdateOutsideProviderRequest) (*pb.UpdateOutsideProviderResponse, error) {
	if !authz.Caller(ctx).InPerson() {
		return nil, inPersonOnly()
	}
	change := func(tx *store.Tx) (*pb.UpdateOutsideProviderResponse, []string, error) {
		p, err := s.updatedProvider(ctx, tx, req)
		if err != nil {
			return nil, nil, err
		}
		var tags []string
		if p.GetDisabled() {
			tags = endProviderSessions(tx, p.GetId(), "")
		}
		return &pb.UpdateOutsideProviderResponse{OutsideProvider: p}, tags, providers.Put(tx, p)
	}
	if !req.GetOutsideProvider().GetDisabled() { // it shuts nobody out who was not shut out before
		return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateOutsideProviderResponse, error) {
			resp, _, err := change(tx)
			return resp, err
		})
	}
	return doAndShutOut(ctx, s, req, change)
}

// updatedProvider is a provider as a request wants it.
func (s *service) updatedProvider(ctx context.Context, tx *store.Tx, req *pb.UpdateOutsideProviderRequest) (*pb.OutsideProvider, error) {
	in := req.GetOutsideProvider()
	p, err := changedProvider(ctx, tx, in.GetId(), in.GetEtag())
	if err != nil {
		return nil, err
	}
	if err := admit(tx, callerAsSubject(authz.Caller(ctx)), pathProvider); err != nil {
		return nil, err
	}
	err = mask.Apply(p, in, req.GetUpdateMask(), "display_name", "client_id", "scopes", "email_domains", "redirect_uris", "trusted_for_mfa", "disabled")
	if err != nil {
		return nil, err
	}
	if err := s.checkProvider(p); err != nil {
		return nil, err
	}
	if req.ClientSecret == nil {
		return p, nil
	}
	return p, s.setSecret(tx, p, req.GetClientSecret())
}

// DeleteOutsideProvider implements pb.OutsideProviderServiceServer.
func (s *service) DeleteOutsideProvider(ctx context.Context, req *pb.DeleteOutsideProviderRequest) (*pb.DeleteOutsideProviderResponse, error) {
	return doAndShutOut(ctx, s, req, func(tx *store.Tx) (*pb.DeleteOutsideProviderResponse, []string, error) {
		p, err := changedProvider(ctx, tx, req.GetId(), req.GetEtag())
		if err != nil {
			return nil, nil, err
		}
		tags := emptyProvider(tx, p)
		p.DeleteTime, p.PurgeTime = endNow(tx)
		return &pb.DeleteOutsideProviderResponse{OutsideProvider: p}, tags, providers.Put(tx, p)
	})
}

// domainForm is a domain of at least two labels, in ASCII and small letters, as addresses
// are kept (emailForm).
var domainForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$`)

// checkProvider says what does not fit together in a provider, and fills in what goes
// without saying.
func (s *service) checkProvider(p *pb.OutsideProvider) error {
	if len(p.GetScopes()) == 0 {
		p.Scopes = []string{scopeOpenID, scopeEmail}
	}
	switch {
	case p.GetOwner() == 0:
		return fault.Invalid("outside_provider.owner", "must say where the provider signs in to")
	case !s.outside.fitsIssuer(p.GetIssuer()):
		return fault.Invalid("outside_provider.issuer", "must be a URL of https without user, query and fragment")
	case strings.TrimSpace(p.GetClientId()) == "" || !isASCII(p.GetClientId()):
		return fault.Invalid("outside_provider.client_id", "must be what the provider knows the suite by, in ASCII and without blanks")
	case !slices.Contains(p.GetScopes(), scopeOpenID):
		return fault.Invalid("outside_provider.scopes", "must have openid among them")
	}
	if err := checkName("outside_provider.display_name", p.GetDisplayName()); err != nil {
		return err
	}
	for _, uri := range p.GetRedirectUris() {
		if !fitsRedirect(uri) {
			return fault.Invalid("outside_provider.redirect_uris", redirectRule)
		}
	}
	for _, domain := range p.GetEmailDomains() {
		if !domainForm.MatchString(domain) {
			return fault.Invalid("outside_provider.email_domains", `must be domains in small letters, for example "example.com", and %q is none`, domain)
		}
	}
	return nil
}

// domainOf returns the part of an e-mail address behind the @.
func domainOf(email string) string {
	_, domain, _ := strings.Cut(email, "@")
	return domain
}
