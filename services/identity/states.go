package identity

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/states"
)

const (
	active      = pb.UserState_USER_STATE_ACTIVE
	deactivated = pb.UserState_USER_STATE_DEACTIVATED
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

// shown returns the user with what the caller can do with it.
func shown(ctx context.Context, u *pb.User) *pb.User {
	if u.GetDeleteTime() == nil {
		u.AvailableActions = userStates.Actions(ctx, u)
	}
	return u
}
