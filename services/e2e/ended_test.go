package e2e

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/trial"
)

// TestEndedSessions ends sessions, in every way there is, while they are used in all
// five services, and checks that no call is accepted that started after the end had
// returned, and none is turned away that was made before: with each kind of trouble between a
// service and identity.
func TestEndedSessions(t *testing.T) {
	w := newWatch(t, trial.New(t, "no call after a returned end of a session: services killed, frozen, cut off", "bolt"), codes.Unauthenticated)
	e := w.employ()
	w.watched(e.signIn().GetToken(), "the first session")
	stop := w.callAlways()
	defer stop()
	ways := []func() change{e.endOther, e.deactivate, e.changePassword}
	for _, way := range append(ways, e.endItself) {
		w.round(nothing, "", way())
	}
	w.troubled("identity", "permissions", func(victim string) change {
		if victim == "permissions" { // without which nobody can be shut out
			return pick(w.random, []func() change{e.endOther, e.changePassword})()
		}
		return pick(w.random, ways)()
	})
	stop()
	w.verify()
}

// session makes a new session the subject. What its calls show is apart from that of
// other sessions.
func (e *employee) session() (*identitypb.CreateSessionResponse, *subject) {
	e.t.Helper()
	made := e.signIn()
	return made, e.watched(made.GetToken(), "the session "+made.GetSession().GetId())
}

// endOther ends a session from another of the same user.
func (e *employee) endOther() change {
	other := e.signIn().GetToken()
	made, subject := e.session()
	return change{what: "a session, by another", registers: subject.of(), take: func(ctx context.Context, id string) error {
		_, err := identitypb.NewSessionServiceClient(e.suite).EndSession(as(ctx, other), &identitypb.EndSessionRequest{
			RequestId: id, Id: made.GetSession().GetId(),
		})
		return err
	}}
}

// endItself ends a session from itself, and so cannot be repeated.
func (e *employee) endItself() change {
	made, subject := e.session()
	return change{what: "a session, by itself", registers: subject.of(), take: func(ctx context.Context, _ string) error {
		_, err := identitypb.NewSessionServiceClient(e.suite).EndSession(as(ctx, made.GetToken()), &identitypb.EndSessionRequest{})
		return err
	}}
}

// deactivate shuts the user out, and in again once that has been seen. His session stays ended.
func (e *employee) deactivate() change {
	_, subject := e.session()
	users := identitypb.NewUserServiceClient(e.suite)
	return change{what: "a session, by shutting out its user", registers: subject.of(), take: func(ctx context.Context, id string) error {
		_, err := users.DeactivateUser(ctx, &identitypb.DeactivateUserRequest{RequestId: id, Id: e.id})
		return err
	}, after: func(ctx context.Context, id string) error {
		_, err := users.ReactivateUser(ctx, &identitypb.ReactivateUserRequest{RequestId: id, Id: e.id})
		return err
	}}
}

// changePassword ends all sessions of the user but the one that it is made from.
func (e *employee) changePassword() change {
	other := e.signIn().GetToken()
	_, subject := e.session()
	before := e.password
	e.password = fmt.Sprintf("another password %d", e.random.Uint64())
	after := e.password
	return change{what: "a session, by another password", registers: subject.of(), take: func(ctx context.Context, id string) error {
		_, err := identitypb.NewProfileServiceClient(e.suite).ChangePassword(as(ctx, other), &identitypb.ChangePasswordRequest{
			RequestId: id, CurrentPassword: before, NewPassword: after,
		})
		return err
	}}
}
