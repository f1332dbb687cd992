package e2e

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/trial"
)

// watchLeaves watches whether somebody may void invoices, in each replica of the service. It
// returns the change that the owner makes through whichever replica of permissions answers.
func (a *apart) watchLeaves(t *testing.T, tr *trial.Trial) (*watch, change) {
	professional := a.company.Person("SP")
	a.letVoid(a.company.As(t.Context(), "OW"), professional.ID)
	replicas, all := map[string]*process{}, []string(nil)
	for _, p := range a.replicas["invoicing"] {
		replicas[a.number(p)], all = p, append(all, a.number(p))
	}
	w := watchOver(t, tr, codes.PermissionDenied, a.suite, a.company, all, func(name string) (*grpc.ClientConn, probe) {
		return a.only(replicas[name]), probes["invoicing"]
	})
	access := permissionspb.NewAccessServiceClient(a)
	set := func(effect permissionspb.Effect) func(context.Context, string) error {
		return func(ctx context.Context, requestID string) error {
			_, err := access.SetOverride(ctx, &permissionspb.SetOverrideRequest{
				RequestId: requestID, UserId: professional.ID, Key: "Invoices:Void", Effect: effect, Reason: "a try",
			})
			return err
		}
	}
	return w, change{what: "his override", registers: w.watched(professional.Token, "what he may").of(all...),
		before: set(permissionspb.Effect_EFFECT_GRANT), take: set(permissionspb.Effect_EFFECT_DENY), give: set(permissionspb.Effect_EFFECT_GRANT)}
}

// byBrandRole is the change of a role of the brand, by which alone he may void invoices, in
// place of his override. It is made in each organization, by whichever replica of permissions
// goes on with it.
func (w *watch) byBrandRole(a *apart, c change) change {
	w.t.Helper()
	user := a.company.Person("SP").ID
	bare := []string{"Web", "Invoices"}
	role, group := w.makeBrandGroup(a, "Voids in every organization", append(slices.Clone(bare), "Invoices:Void"))
	access := permissionspb.NewAccessServiceClient(a)
	c.what = "what a role of the brand may"
	c.before = func(ctx context.Context, requestID string) error {
		_, err := access.SetUserGroup(ctx, &permissionspb.SetUserGroupRequest{RequestId: requestID, UserId: user, GroupId: group})
		if err == nil {
			_, err = access.ClearOverride(ctx, &permissionspb.ClearOverrideRequest{UserId: user, Key: "Invoices:Void"})
		}
		return err
	}
	c.take, c.give = setBrandKeys(a, role, bare...), setBrandKeys(a, role, append(slices.Clone(bare), "Invoices:Void")...)
	return c
}

// testFreshness takes a permission away and gives it back, through whichever replica of
// permissions answers, while a replica is disturbed: no replica of invoicing allows a call
// that began after the revoke had returned.
func (a *apart) testFreshness(t *testing.T) {
	tr := trial.New(t, "no allow after a returned revoke: replicas killed, frozen, cut off", "postgres")
	w, c := a.watchLeaves(t, tr)
	stop := w.callAlways()
	defer stop()
	victims := []*process{a.replicas["invoicing"][0], a.replicas["permissions"][0]}
	ofBrand := w.byBrandRole(a, c)
	for range trial.Times(1, 60) {
		for _, c := range []change{c, ofBrand} {
			w.must(w.insist(c.what, c.before))
			for _, p := range victims {
				d := pick(w.random, a.disturbances(p))
				before := w.now()
				w.roundOver(a, d, c)
				tr.Tried()
				tr.Checked(2)
				t.Logf("%s while %s was taken and given: %s", d.what, c.what, w.now()-before)
			}
			slices.Reverse(victims)
		}
	}
	stop()
	w.verify()
}

// roundOver takes something away while a replica is disturbed, looks at what happens between the
// moment when that has returned and the end of the disturbance, and gives it back.
func (w *watch) roundOver(a *apart, d disturbance, c change) {
	w.t.Helper()
	w.wait(w.t, w.now(), c.registers, allowed)
	heal := sync.OnceFunc(d.heal)
	defer heal() // what comes after this test is not to suffer, should it give up
	d.strike()
	w.make(c.what, c.registers, false, c.take)
	returned := w.now()
	others := slices.DeleteFunc(slices.Clone(c.registers), func(r *register) bool { return d.mute && r.service == a.number(d.victim) })
	w.wait(w.t, returned, others, denied, refused)
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var calls []sent
	if d.mute && len(others) < len(c.registers) {
		calls = w.send(ctx, a.number(d.victim), 5)
	}
	heal()
	w.answers(a.number(d.victim), calls)
	w.wait(w.t, returned, c.registers, denied)
	w.make(c.what, c.registers, true, c.give)
	w.wait(w.t, w.now(), c.registers, allowed)
}

// testWithoutLeases is the control: one replica of invoicing believes that each replica of
// permissions gave it a lease for an hour, and is cut off from both for longer than they wait.
// It goes on allowing after the revoke has returned, and must be found out.
func (a *apart) testWithoutLeases(t *testing.T) {
	tr := trial.Control(t, "no allow after a returned revoke: a replica without leases", "postgres")
	deceived, sources := a.replicas["invoicing"][0], a.replicas["permissions"]
	for _, p := range sources {
		p.fork.ways[deceived].lead(censor(t, p.addr, func(m *leasepb.WatchResponse) {
			if m.GetLeaseDuration() != nil {
				m.LeaseDuration = durationpb.New(time.Hour)
			}
		}))
	}
	a.serves(deceived)
	w, c := a.watchLeaves(t, tr)
	stop := w.callAlways()
	defer stop()
	subject := w.subject.Load()
	for tries := 0; tries < 10 && len(w.violations()) == 0; tries++ {
		w.wait(t, w.now(), c.registers, allowed)
		for _, p := range sources {
			p.fork.ways[deceived].hold(there, back)
		}
		tr.Tried()
		w.make(c.what, c.registers, false, c.take)
		w.wait(t, w.now(), subject.of(w.asked[1:]...), denied)
		// On a busy machine it may have lost its lease right before it was cut off.
		w.wait(t, w.now(), subject.of(a.number(deceived)), allowed, refused)
		for _, p := range sources {
			p.fork.ways[deceived].release(there, back)
		}
		w.wait(t, w.now(), c.registers, denied)
		w.make(c.what, c.registers, true, c.give)
	}
	stop()
	for _, v := range w.violations() {
		if !strings.Contains(v, "in invoicing 1: ") {
			t.Errorf("found %q, and only invoicing 1 is without leases", v)
		}
		tr.Wrong("%s", v)
	}
}
