package permissions

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// ending is somebody in a company who has a key until an instant, and is denied one until
// then. The interceptor and the service remember what they found of him.
type ending struct {
	*company
	user string
	end  time.Time
}

const (
	heldUntil   = "Organizations: Roles"
	deniedUntil = "Organization: Users"
)

func newEnding(t *testing.T) *ending {
	c := &ending{company: newCompany(t, 6)}
	c.user, c.end = c.archive.walk.users[5], c.now.Add(time.Hour)
	end := timestamppb.New(c.end)
	c.update(func(tx *store.Tx) error {
		u := newLoader(tx).user(c.user)
		u.RoleId, u.GroupId, u.Overrides = "OA", "", nil
		setOverride(u, &pb.Override{Key: heldUntil, Effect: pb.Effect_EFFECT_GRANT, ExpireTime: end})
		setOverride(u, &pb.Override{Key: deniedUntil, Effect: pb.Effect_EFFECT_DENY, ExpireTime: end})
		return accesses.Put(tx, u)
	})
	c.gate.changed(t)
	return c
}

// letsIn tells whether the interceptor lets the user call a method that asks for the key.
func (c *ending) letsIn(key string) bool {
	var req, resp proto.Message = &pb.CreateRoleRequest{}, &pb.CreateRoleResponse{}
	method := pb.RoleService_CreateRole_FullMethodName
	if key == deniedUntil {
		req, resp, method = &pb.SetUserRoleRequest{}, &pb.SetUserRoleResponse{}, pb.AccessService_SetUserRole_FullMethodName
	}
	_, err := c.gate.Unary(c.gate.calls[c.user], req, &grpc.UnaryServerInfo{FullMethod: method},
		func(context.Context, any) (any, error) { return resp, nil })
	return err == nil
}

func (c *ending) holds(key string) bool {
	c.t.Helper()
	resp, err := c.Check(c.archive.ctx, &pb.CheckRequest{UserId: &c.user, Grant: key})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.GetAllowed()
}

// An override counts until its instant, and no more at it, though what was found before is
// remembered.
func TestTrapExpiryAtTheBoundary(t *testing.T) {
	c := newEnding(t)
	for _, at := range []time.Duration{-time.Hour, -1, 0, 1} {
		c.now = c.end.Add(at)
		for range 2 { // the second is answered from memory
			for key, want := range map[string]bool{heldUntil: at < 0, deniedUntil: at >= 0} {
				if got := c.letsIn(key); got != want {
					t.Errorf("%s from the end: the interceptor lets in by %s: %t, want %t", at, key, got, want)
				}
				if got := c.holds(key); got != want {
					t.Errorf("%s from the end: %s is held: %t, want %t", at, key, got, want)
				}
			}
		}
	}
}

// A clock that is set forward and back lets nobody in by what has ended, and a clock that
// is set back does not keep anybody from what he was given since.
func TestTrapAClockThatSteps(t *testing.T) {
	c := newEnding(t)
	before, after := c.end.Add(-time.Minute), c.end.Add(time.Minute)
	for i, at := range []time.Time{before, after, before, after} {
		c.now = at
		if got := c.holds(heldUntil); got != at.Before(c.end) {
			t.Errorf("step %d: %s is held: %t", i, heldUntil, got)
		}
		if c.letsIn(heldUntil) && !at.Before(c.end) {
			t.Errorf("step %d: the interceptor lets in by what has ended", i)
		}
	}
	c.now = before
	c.update(func(tx *store.Tx) error {
		u := newLoader(tx).user(c.user)
		u.Overrides = nil
		setOverride(u, &pb.Override{Key: heldUntil, Effect: pb.Effect_EFFECT_GRANT})
		return accesses.Put(tx, u)
	})
	c.gate.changed(t)
	if !c.letsIn(heldUntil) || !c.holds(heldUntil) || !c.letsIn(deniedUntil) {
		t.Error("what was given after the clock was set back does not count")
	}
}
