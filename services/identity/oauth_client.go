package identity

import (
	"context"
	"crypto/sha256"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	clientSecretPrefix = "lkx_"
	// maxClients is how many clients an organization or a brand can have.
	maxClients = 200

	brandOwned   = pb.OauthClientOwner_OAUTH_CLIENT_OWNER_BRAND
	confidential = pb.OauthClientKind_OAUTH_CLIENT_KIND_CONFIDENTIAL
)

// CreateOauthClient implements pb.OauthClientServiceServer.
func (s *service) CreateOauthClient(ctx context.Context, req *pb.CreateOauthClientRequest) (*pb.CreateOauthClientResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	in := req.GetOauthClient()
	fresh := &pb.OauthClient{
		Id: s.newID(), Owner: in.GetOwner(), OrganizationId: caller.Organization, UserId: caller.ID, Name: in.GetName(), Kind: in.GetKind(),
		GrantTypes: in.GetGrantTypes(), RedirectUris: in.GetRedirectUris(), PostLogoutRedirectUris: in.GetPostLogoutRedirectUris(),
		Scopes: in.GetScopes(), SigningAlgorithm: in.GetSigningAlgorithm(), FirstParty: in.FirstParty, RequirePushed: in.GetRequirePushed(), ServiceAccountId: in.ServiceAccountId,
	}
	if err := checkClient(fresh, caller); err != nil {
		return nil, err
	}
	if err := s.checkAccountWithin(ctx, fresh.GetServiceAccountId(), ofOrganizations); err != nil {
		return nil, err
	}
	secret, hash := token.New(clientSecretPrefix, s.random)
	resp, err := do(ctx, s, req, func(tx *store.Tx) (*pb.CreateOauthClientResponse, error) {
		if err := admit(tx, callerAsSubject(caller), pathNewClient); err != nil {
			return nil, err
		}
		if account := fresh.GetServiceAccountId(); account != "" {
			if _, err := activeAccount(tx, caller.Organization, account); err != nil {
				return nil, err
			}
		}
		brand, err := brandOf(tx, caller.Organization)
		if err != nil {
			return nil, err
		}
		fresh.BrandId, fresh.CreateTime = brand.GetId(), timestamppb.New(tx.Now())
		if clientsByOwner.Count(tx, clientsByOwner.Range(ownerOf(fresh))) >= maxClients {
			return nil, fault.Limit("OAuth clients of one owner", 0)
		}
		if err := clients.Put(tx, fresh); err != nil {
			return nil, err
		}
		return &pb.CreateOauthClientResponse{OauthClient: fresh}, putSecret(tx, fresh, hash, 0)
	})
	if err == nil && !req.GetValidateOnly() && fresh.GetKind() == confidential && resp.GetOauthClient().GetId() == fresh.GetId() {
		resp.ClientSecret = secret
	}
	return resp, err
}

// putSecret keeps a new secret of a confidential client, and the one before for the
// overlap.
func putSecret(tx *store.Tx, c *pb.OauthClient, hash [sha256.Size]byte, overlap time.Duration) error {
	if c.GetKind() != confidential {
		return nil
	}
	kept := &identitystorepb.ClientSecrets{ClientId: c.GetId(), Secrets: []*identitystorepb.ClientSecret{{Hash: hash[:]}}}
	old, ok := clientSecrets.Get(tx, c.GetId())
	if ok && overlap > 0 {
		before := old.GetSecrets()[0]
		before.ExpireTime = timestamppb.New(tx.Now().Add(overlap))
		kept.Secrets = append(kept.Secrets, before)
	}
	return clientSecrets.Put(tx, kept)
}

// GetOauthClient implements pb.OauthClientServiceServer.
func (s *service) GetOauthClient(ctx context.Context, req *pb.GetOauthClientRequest) (*pb.GetOauthClientResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetOauthClientResponse, error) {
		c, err := managedClient(ctx, tx, req.GetId())
		return &pb.GetOauthClientResponse{OauthClient: c}, err
	})
}

// managedClient finds a client that the caller holds the key for.
func managedClient(ctx context.Context, tx *store.Tx, id string) (*pb.OauthClient, error) {
	c, ok := clients.Get(tx, id)
	if !ok || !looksAfter(ctx, tx, c, "ControlPanel:ApiKeys", "Branding:ApiKeys") {
		return nil, fault.NotFound("oauth_client", id)
	}
	return c, nil
}

// ListOauthClients implements pb.OauthClientServiceServer.
func (s *service) ListOauthClients(ctx context.Context, req *pb.ListOauthClientsRequest) (*pb.ListOauthClientsResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListOauthClientsResponse, error) {
		owner, err := ownerAsked(ctx, tx, req.GetOwner() == brandOwned)
		if err != nil {
			return nil, err
		}
		page, next, err := store.Page(tx, req, nil, clientsByOwner.Range(owner))
		return &pb.ListOauthClientsResponse{OauthClients: page, NextPageToken: next}, err
	})
}

// changedClient finds a client that is to change, in the version that the caller read.
func changedClient(ctx context.Context, tx *store.Tx, id, etag string) (*pb.OauthClient, error) {
	c, err := managedClient(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	if err := clients.Match(c, etag); err != nil {
		return nil, err
	}
	if c.GetDeleteTime() != nil {
		return nil, fault.Refused("the client is deleted: make a new one")
	}
	return c, nil
}

// checkClientsAccount is checkAccountWithin for the service account of a client, if it has
// one.
func (s *service) checkClientsAccount(ctx context.Context, client string) error {
	account, err := read(ctx, s, func(tx *store.Tx) (string, error) {
		c, err := managedClient(ctx, tx, client)
		return c.GetServiceAccountId(), err
	})
	if err != nil {
		return err
	}
	return s.checkAccountWithin(ctx, account, ofOrganizations)
}

// UpdateOauthClient implements pb.OauthClientServiceServer.
func (s *service) UpdateOauthClient(ctx context.Context, req *pb.UpdateOauthClientRequest) (*pb.UpdateOauthClientResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	in := req.GetOauthClient()
	if err := s.checkClientsAccount(ctx, in.GetId()); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateOauthClientResponse, error) {
		c, err := changedClient(ctx, tx, in.GetId(), in.GetEtag())
		if err != nil {
			return nil, err
		}
		// SECURITY: whoever chooses where codes go gets what they are worth.
		if err := admit(tx, callerAsSubject(caller), pathNewClient); err != nil {
			return nil, err
		}
		err = mask.Apply(c, in, req.GetUpdateMask(), "name", "grant_types", "redirect_uris", "post_logout_redirect_uris",
			"scopes", "signing_algorithm", "first_party", "require_pushed")
		if err != nil {
			return nil, err
		}
		if err := checkClient(c, caller); err != nil {
			return nil, err
		}
		return &pb.UpdateOauthClientResponse{OauthClient: c}, clients.Put(tx, c)
	})
}

// DeleteOauthClient implements pb.OauthClientServiceServer.
func (s *service) DeleteOauthClient(ctx context.Context, req *pb.DeleteOauthClientRequest) (*pb.DeleteOauthClientResponse, error) {
	return doAndShutOut(ctx, s, req, func(tx *store.Tx) (*pb.DeleteOauthClientResponse, []string, error) {
		c, err := changedClient(ctx, tx, req.GetId(), req.GetEtag())
		if err != nil {
			return nil, nil, err
		}
		tags := deleteClient(tx, c)
		return &pb.DeleteOauthClientResponse{OauthClient: c}, tags, clients.Put(tx, c)
	}, sessionTag(req.GetId()))
}

// deleteClient ends all that a client has, and returns the tags of it.
func deleteClient(tx *store.Tx, c *pb.OauthClient) (tags []string) {
	for session := range clientSessionsByClient.Scan(tx, clientSessionsByClient.Range(c.GetId())) {
		endSession(tx, session.GetSessionId())
		tags = append(tags, sessionTag(session.GetSessionId()))
	}
	endTokens(tx, c.GetId())
	clientSecrets.Delete(tx, c.GetId())
	c.DeleteTime, c.PurgeTime = endNow(tx)
	return tags
}

// RotateOauthClientSecret implements pb.OauthClientServiceServer.
func (s *service) RotateOauthClientSecret(ctx context.Context, req *pb.RotateOauthClientSecretRequest) (*pb.RotateOauthClientSecretResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	if err := s.checkClientsAccount(ctx, req.GetId()); err != nil {
		return nil, err
	}
	secret, hash := token.New(clientSecretPrefix, s.random)
	fresh := false
	resp, err := do(ctx, s, req, func(tx *store.Tx) (*pb.RotateOauthClientSecretResponse, error) {
		c, err := changedClient(ctx, tx, req.GetId(), req.GetEtag())
		switch {
		case err != nil:
			return nil, err
		case c.GetKind() != confidential:
			return nil, fault.Refused("a public client has no secret")
		}
		if err := checkActor(c, caller, pb.OauthClientService_RotateOauthClientSecret_FullMethodName); err != nil {
			return nil, err
		}
		if err := admit(tx, callerAsSubject(caller), pathNewClient); err != nil {
			return nil, err
		}
		fresh = true
		if err := putSecret(tx, c, hash, req.GetOverlap().AsDuration()); err != nil {
			return nil, err
		}
		return &pb.RotateOauthClientSecretResponse{OauthClient: c}, clients.Put(tx, c)
	})
	if err == nil && fresh && !req.GetValidateOnly() {
		resp.ClientSecret = secret
	}
	return resp, err
}

// IntrospectToken implements pb.OauthClientServiceServer.
func (s *service) IntrospectToken(ctx context.Context, req *pb.IntrospectTokenRequest) (*pb.IntrospectTokenResponse, error) {
	found, err := s.introspect(ctx, req.GetToken(), authz.Caller(ctx).Organization)
	if err != nil || found == nil || found.facts.GetOrganizationId() != authz.Caller(ctx).Organization {
		return &pb.IntrospectTokenResponse{}, err
	}
	return &pb.IntrospectTokenResponse{
		Active: true, Session: found.facts, ClientId: found.kept.GetClientId(), Scopes: askedScopes(found.kept.GetScope()),
	}, nil
}
