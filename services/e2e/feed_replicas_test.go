package e2e

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/trial"
)

// TestFeedClientOverReplicas takes a permission away while the client in TypeScript follows two
// replicas of identity and permissions, and it or a replica is killed, frozen or cut off: it
// never allows what was taken away before it was asked, and it knows again afterwards.
func TestFeedClientOverReplicas(t *testing.T) {
	needFeedClient(t)
	tr := trial.New(t, "no allow after a returned revoke: a client in TypeScript, and replicas killed, frozen, cut off", "postgres")
	outsider := &process{parts: []string{"the client"}}
	a := newApart(t, 2, outsider, names)
	a.begin()
	var seeds []string
	for _, p := range a.all {
		seeds = append(seeds, p.fork.addr())
	}
	seed := "ipv4:" + strings.Join(seeds, ",")
	client := newFeedClient(t, a.suite, seed, seed)
	a.mu.Lock()
	outsider.cmd = client.cmd
	a.mu.Unlock()
	e := &enforced{t: t, suite: a.suite, company: a.company, client: client}

	random := seeded(t, 0)
	frozen := disturbance{"the client frozen", outsider, func() { e.must(client.cmd.Process.Signal(syscall.SIGSTOP)) },
		func() { e.must(client.cmd.Process.Signal(syscall.SIGCONT)) }, true}
	for range trial.Times(1, 40) {
		troubles := []disturbance{frozen, pick(random, a.fromSources(outsider))}
		for _, p := range a.all {
			of := a.disturbances(p)
			troubles = append(troubles, pick(random, of[:2]), pick(random, of[2:]))
		}
		random.Shuffle(len(troubles), func(i, j int) { troubles[i], troubles[j] = troubles[j], troubles[i] })
		for _, d := range troubles[:trial.Times(4, len(troubles))] {
			t.Log(d.what)
			e.takenDuring(a, d)
			tr.Tried()
			tr.Checked(1)
			if t.Failed() {
				return
			}
		}
	}
}

// takenDuring gives a key, takes it away while something is disturbed, and looks at what the
// client says after that.
func (e *enforced) takenDuring(a *apart, d disturbance) {
	e.t.Helper()
	access := permissionspb.NewAccessServiceClient(a)
	owner := func() context.Context { return e.company.As(e.t.Context(), "OW") }
	user := e.company.Person("SP").ID
	grant := &permissionspb.SetOverrideRequest{
		RequestId: uuid.NewString(), UserId: user, Key: granted, Effect: permissionspb.Effect_EFFECT_GRANT, Reason: "a try",
	}
	untilAnswered(e.t, func() (*permissionspb.SetOverrideResponse, error) { return access.SetOverride(owner(), grant) })
	e.client.mustAnswer("a grant", e.token(), granted, allow)
	d.strike()
	clear := &permissionspb.ClearOverrideRequest{RequestId: uuid.NewString(), UserId: user, Key: granted}
	untilAnswered(e.t, func() (*permissionspb.ClearOverrideResponse, error) {
		ctx, cancel := context.WithTimeout(owner(), 3*apartLease)
		defer cancel()
		return access.ClearOverride(ctx, clear)
	})
	asked := make([]<-chan string, 10)
	for i := range asked {
		asked[i] = e.client.ask(e.token(), granted)
	}
	cannotAnswer := d.mute && !slices.Contains(a.all, d.victim)
	if cannotAnswer {
		d.heal()
	}
	for _, ch := range asked {
		if got := e.client.wait(ch); got != deny && got != unavailable {
			e.t.Fatalf("%s while a key was taken away, and asked after that, the client says %q", d.what, got)
		}
	}
	if !cannotAnswer {
		d.heal()
	}
	for _, p := range a.all {
		a.serves(p)
	}
	e.client.mustAnswer("a revoke", e.token(), granted, deny)
}
