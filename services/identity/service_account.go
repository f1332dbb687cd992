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

// CreateServiceAccount implements pb.ServiceAccountServiceServer. A service account has a
// membership and no profile: there is nothing by which it could sign in.
func (s *service) CreateServiceAccount(ctx context.Context, req *pb.CreateServiceAccountRequest) (*pb.CreateServiceAccountResponse, error) {
	fresh := &pb.User{
		Id: s.newPersonID(), OrganizationId: authz.Caller(ctx).Organization, DisplayName: req.GetDisplayName(),
		State: active, ServiceAccount: true,
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.CreateServiceAccountResponse, error) {
		fresh.CreateTime = timestamppb.New(tx.Now())
		if err := users.Put(tx, fresh); err != nil {
			return nil, err
		}
		return &pb.CreateServiceAccountResponse{User: shown(ctx, fresh)}, nil
	})
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
// caller lacks.
//
// SECURITY: whoever has a key of an account sees what the account sees, so what it holds
// must be the caller's already.
func (s *service) checkAccountWithin(ctx context.Context, account string) error {
	if account == "" {
		return nil
	}
	_, err := s.reachable(ctx, account, "call as")
	return err
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
