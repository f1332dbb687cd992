package identity

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// CreateServiceAccount implements pb.ServiceAccountServiceServer. A service account has
// memberships and no profile: there is nothing by which it could sign in.
func (s *service) CreateServiceAccount(ctx context.Context, req *pb.CreateServiceAccountRequest) (*pb.CreateServiceAccountResponse, error) {
	caller, id := authz.Caller(ctx), req.GetId()
	if id == "" {
		id = s.newPersonID()
	} else if err := s.admitAccount(ctx, id, req.GetValidateOnly()); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.CreateServiceAccountResponse, error) {
		if _, err := member(tx, caller.Organization, id); err == nil {
			return nil, fault.Exists("service_account", "id")
		}
		u := &pb.User{
			Id: id, OrganizationId: caller.Organization, DisplayName: req.GetDisplayName(),
			State: active, CreateTime: timestamppb.New(tx.Now()), ServiceAccount: true,
		}
		forgettings.Delete(tx, userKey(caller.Organization, id))
		if err := users.Put(tx, u); err != nil {
			return nil, err
		}
		return &pb.CreateServiceAccountResponse{User: shown(ctx, u)}, nil
	})
}

// admitAccount checks that the caller may let in a service account of another organization
// of the brand, and has permissions forget what it could do here before.
func (s *service) admitAccount(ctx context.Context, id string, validateOnly bool) error {
	organization := authz.Caller(ctx).Organization
	known, err := read(ctx, s, func(tx *store.Tx) (bool, error) { return brandHasAccount(tx, organization, id), nil })
	if err != nil {
		return err
	}
	if !known {
		return fault.NotFound("service_account", id)
	}
	if err := s.checkWithin(ctx, id); err != nil {
		return err
	}
	return s.forgetFormer(ctx, organization, id, validateOnly)
}

// brandHasAccount tells whether some organization of the brand of one has a service account.
func brandHasAccount(tx *store.Tx, organization, id string) bool {
	here, _ := organizations.Get(tx, organization)
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(id)) {
		o, ok := organizations.Get(tx, u.GetOrganizationId())
		if ok && u.GetServiceAccount() && o.GetBrandId() == here.GetBrandId() {
			return true
		}
	}
	return false
}

// personOf returns the person who is a member by a record; a service account is none.
func personOf(u *pb.User) string {
	if u.GetServiceAccount() {
		return ""
	}
	return u.GetId()
}

// isServiceAccount holds when the subject is no person.
func isServiceAccount(tx *store.Tx, s subject) bool {
	u, _ := users.Get(tx, userKey(s.organization, s.user))
	return u.GetServiceAccount()
}

// activeAccount finds a service account that may call.
func activeAccount(tx *store.Tx, organization, id string) (*pb.User, error) {
	u, err := member(tx, organization, id)
	if err != nil || !u.GetServiceAccount() || u.GetState() != active {
		return nil, fault.NotFound("service_account", id)
	}
	return u, nil
}

// checkAccountWithin returns nil if there is no account, or it holds nothing that the
// caller lacks where a key of the kind acts: in the caller's organization, or in every one
// of the brand that has let the account in.
//
// SECURITY: whoever has a key of an account sees what the account sees, so what it holds
// must be the caller's already.
func (s *service) checkAccountWithin(ctx context.Context, account string, kind *keyKind) error {
	if account == "" {
		return nil
	}
	if _, err := s.reachable(ctx, account, "call as"); err != nil || kind != ofBrands {
		return err
	}
	caller := authz.Caller(ctx)
	others, err := read(ctx, s, func(tx *store.Tx) (others []string, _ error) {
		for u := range usersByPerson.Scan(tx, usersByPerson.Range(account)) {
			if u.GetOrganizationId() != caller.Organization {
				others = append(others, u.GetOrganizationId())
			}
		}
		return others, nil
	})
	if err != nil {
		return err
	}
	for _, organization := range others {
		theirs, err := s.grantsOf(ctx, organization, account)
		if err != nil {
			return err
		}
		own, err := s.grantsOf(ctx, organization, caller.ID)
		if err != nil {
			return err
		}
		if err := within(reachOf(theirs), own, "call as"); err != nil {
			return err
		}
	}
	return nil
}

// manages returns nil if the caller may have to do with what service accounts call with.
func manages(c *authz.Principal, method string) error {
	if c.Has("Organization: Users") {
		return nil
	}
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_GRANT_MISSING,
		"it is a service account's, which needs the permission Organization: Users too",
		map[string]string{"grant": "Organization: Users", "method": method[1:]})
}
