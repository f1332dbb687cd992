package servicerequest

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
)

// people are users of whom identity said that they are active members of the
// organization.
type people map[string]bool

// lookup asks identity which of the users are active members. Empty ids are left out.
// It calls another service, so it is called before a transaction and not in one.
func (s *service) lookup(ctx context.Context, users ...string) (people, error) {
	users = slices.DeleteFunc(users, func(id string) bool { return id == "" })
	if len(users) == 0 {
		return nil, nil
	}
	resp, err := s.users.LookupMembers(ctx, &identitypb.LookupMembersRequest{UserIds: users})
	if err != nil {
		return nil, unanswered("ask identity who is active", err)
	}
	found := people{}
	for _, m := range resp.GetMembers() {
		found[m.GetUserId()] = true
	}
	return found, nil
}

// unanswered says what it means here that identity did not answer.
func unanswered(doing string, err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return fault.Unreachable("identity")
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// mustHold answers for a user who is not among the people as for one that there is
// not. An empty id stands for nobody and always passes.
func (p people) mustHold(user string) error {
	if user != "" && !p[user] {
		return fault.NotFound("user", user)
	}
	return nil
}
