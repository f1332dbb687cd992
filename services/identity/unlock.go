package identity

import (
	"context"
	"fmt"
	"time"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/store"
)

// unlockings counts how often somebody was let try again: who guesses together with
// somebody who unlocks is slowed down too.
func unlockings(user string) counter {
	return counter{id: "unlocked/" + user, what: "unlockings of the user", free: 3, most: 50, base: time.Hour}
}

// passwordCounters are all that count the wrong passwords of a person, but for those of
// known devices.
func passwordCounters(user string) []counter {
	all := []counter{passwordFailures(user), sessionFailures(user)}
	for i := range sources {
		all = append(all, sourceFailures(user, sourceName(i)))
	}
	return all
}

// sourceName is what the failures of a place are counted under.
func sourceName(n int) string { return fmt.Sprintf("%x", n) }

// UnlockUser implements pb.PasswordServiceServer.
func (s *service) UnlockUser(ctx context.Context, req *pb.UnlockUserRequest) (*pb.UnlockUserResponse, error) {
	organization, user := authz.Caller(ctx).Organization, req.GetUserId()
	if err := s.checkMember(ctx, user); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UnlockUserResponse, error) {
		if _, err := member(tx, organization, user); err != nil {
			return nil, err
		}
		if err := unlockings(user).count(tx); err != nil {
			return nil, err
		}
		all := append(passwordCounters(user), totpFailures(user), recoveryFailures(user))
		all = append(all, allResetGuesses(user)...)
		for d := range devicesByUser.Scan(tx, devicesByUser.Range(user)) {
			all = append(all, deviceFailures(d.GetId()), deviceCodes(d.GetId()))
		}
		var forgotten int32
		for _, c := range all {
			kept, _ := failures.Get(tx, c.id)
			forgotten += kept.GetCount()
		}
		clearFailures(tx, all...)
		tx.Involve(organization)
		tx.Emit(&pb.UserUnlocked{OrganizationId: organization, UserId: user, Forgotten: forgotten})
		return &pb.UnlockUserResponse{Forgotten: forgotten}, nil
	})
}
