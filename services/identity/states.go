package identity

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/states"
)

const (
	active      = pb.UserState_USER_STATE_ACTIVE
	deactivated = pb.UserState_USER_STATE_DEACTIVATED

	open      = pb.OrganizationState_ORGANIZATION_STATE_ACTIVE
	suspended = pb.OrganizationState_ORGANIZATION_STATE_SUSPENDED

	keyActive  = pb.ApiKeyState_API_KEY_STATE_ACTIVE
	keyRevoked = pb.ApiKeyState_API_KEY_STATE_REVOKED
)

// userStates is what may happen to a member. That the last owner stays, and that
// nobody changes a user who holds more than himself, permissions has to be asked.
var userStates = states.New("user", (*pb.User).GetId, (*pb.User).GetState,
	func(u *pb.User, s pb.UserState) { u.State = s },
	states.Action[*pb.User, pb.UserState]{Method: pb.UserService_UpdateUser_FullMethodName},
	states.Action[*pb.User, pb.UserState]{
		Method: pb.UserService_DeactivateUser_FullMethodName,
		From:   []pb.UserState{active}, To: deactivated,
	},
	states.Action[*pb.User, pb.UserState]{
		Method: pb.UserService_ReactivateUser_FullMethodName,
		From:   []pb.UserState{deactivated}, To: active,
	},
	states.Action[*pb.User, pb.UserState]{Method: pb.UserService_EndMembership_FullMethodName},
)

// formerStates is what may happen to somebody whose membership has ended.
var formerStates = states.New("user", (*pb.User).GetId, (*pb.User).GetState,
	func(u *pb.User, s pb.UserState) { u.State = s },
	states.Action[*pb.User, pb.UserState]{Method: pb.UserService_UndeleteUser_FullMethodName},
)

// organizationStates is what a brand may do to an organization, closedStates what to one
// that is closed.
var (
	organizationStates = organizationTable(
		states.Action[*pb.Organization, pb.OrganizationState]{
			Method: pb.OrganizationService_SuspendOrganization_FullMethodName,
			From:   []pb.OrganizationState{open}, To: suspended, Check: checkElsewhere,
		},
		states.Action[*pb.Organization, pb.OrganizationState]{
			Method: pb.OrganizationService_ResumeOrganization_FullMethodName,
			From:   []pb.OrganizationState{suspended}, To: open,
		},
		states.Action[*pb.Organization, pb.OrganizationState]{
			Method: pb.OrganizationService_DeleteOrganization_FullMethodName, Check: checkElsewhere,
		},
	)
	closedStates = organizationTable(
		states.Action[*pb.Organization, pb.OrganizationState]{Method: pb.OrganizationService_UndeleteOrganization_FullMethodName},
	)
)

func organizationTable(actions ...states.Action[*pb.Organization, pb.OrganizationState]) *states.Table[*pb.Organization, pb.OrganizationState] {
	return states.New("organization", (*pb.Organization).GetId, (*pb.Organization).GetState,
		func(o *pb.Organization, s pb.OrganizationState) { o.State = s }, actions...)
}

// checkElsewhere lets nobody shut himself out with his organization.
func checkElsewhere(c *authz.Principal, o *pb.Organization) error {
	if c.Organization == o.GetId() {
		return fault.Refused("your session acts in this organization: sign in to another one of the brand to shut this one")
	}
	return nil
}

// apiKeyStates is what may happen to an API key, by which methods. That it has not expired
// the gate and rotateKey look at, by the clock of the transaction.
func apiKeyStates(revoke, rotate string) *states.Table[*pb.ApiKey, pb.ApiKeyState] {
	return states.New("API key", (*pb.ApiKey).GetId, (*pb.ApiKey).GetState,
		func(k *pb.ApiKey, s pb.ApiKeyState) { k.State = s },
		states.Action[*pb.ApiKey, pb.ApiKeyState]{Method: revoke, From: []pb.ApiKeyState{keyActive}, To: keyRevoked},
		states.Action[*pb.ApiKey, pb.ApiKeyState]{
			Method: rotate, From: []pb.ApiKeyState{keyActive},
			Check: func(c *authz.Principal, k *pb.ApiKey) error { return checkRotator(c, k, rotate) },
		},
	)
}

// checkRotator lets nobody else have a token that acts as who made the key, nor somebody
// who does not manage service accounts one that acts as such.
func checkRotator(c *authz.Principal, k *pb.ApiKey, method string) error {
	switch {
	case !c.InPerson():
		return inPersonOnly()
	case accountOfKey(k) != "":
		return manages(c, method)
	case c.ID != k.GetUserId():
		return fault.Relation("who made the key")
	}
	return nil
}

// shown returns the user with what the caller can do with it.
func shown(ctx context.Context, u *pb.User) *pb.User {
	table := userStates
	if u.GetDeleteTime() != nil {
		table = formerStates
	}
	u.AvailableActions = table.Actions(ctx, u)
	return u
}

// shownToBrand returns the organization with what the caller can do with it for its brand.
func shownToBrand(ctx context.Context, o *pb.Organization) *pb.Organization {
	table := organizationStates
	if o.GetDeleteTime() != nil {
		table = closedStates
	}
	o.AvailableActions = table.Actions(ctx, o)
	return o
}
