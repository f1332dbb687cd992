package e2e

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"google.golang.org/grpc"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/demo"
)

// revoking returns calls that give one person a permission and take it away, in turns.
func revoking(s grpc.ClientConnInterface, c *demo.Company, as context.Context) func(context.Context) error {
	access := permissionspb.NewAccessServiceClient(s)
	user := c.Person("SP").ID
	granted := false
	return func(context.Context) error {
		granted = !granted
		if granted {
			_, err := access.SetOverride(as, &permissionspb.SetOverrideRequest{
				UserId: user, Key: "Invoices:Void", Effect: permissionspb.Effect_EFFECT_GRANT, Reason: "stands in this week",
			})
			return err
		}
		_, err := access.ClearOverride(as, &permissionspb.ClearOverrideRequest{UserId: user, Key: "Invoices:Void"})
		return err
	}
}

// revokes measures a change of permissions with five live processes beside a change that
// nobody else waits for.
func (b *bench) revokes() finding {
	s := five(b.t)
	return b.revokesOn(s, s.fill())
}

// revokesOnReplicas is revokes with two replicas of each service over one PostgreSQL.
func (b *bench) revokesOnReplicas() finding {
	d := double(b.t)
	return b.revokesOn(d, d.company)
}

func (b *bench) revokesOn(s grpc.ClientConnInterface, c *demo.Company) finding {
	as := c.As(b.t.Context(), "OW")
	revoke := revoking(s, c, as)
	parts := invoicingpb.NewPartServiceClient(s)
	write := func(context.Context) error {
		_, err := parts.CreatePart(as, &invoicingpb.CreatePartRequest{Name: "Valve"})
		return err
	}
	var all []time.Duration
	measure := func(call func(context.Context) error, keep bool) float64 {
		took := make([]time.Duration, 10)
		for i := range took {
			took[i] = b.took(call)
		}
		if keep {
			all = append(all, took...)
		}
		return float64(percentile(took, 50))
	}
	p50, ratio := beside(2*rounds, func() float64 { return measure(revoke, true) }, func() float64 { return measure(write, false) })
	return finding{
		fmt.Sprintf("p50 %s, p99 %s", milliseconds(time.Duration(p50)), milliseconds(percentile(all, 99))),
		ratio, "a durable write alone, CreatePart (p50)",
	}
}

// revokesFrozen measures a change of permissions while one of five processes hangs.
func (b *bench) revokesFrozen() finding {
	const term = time.Second
	s := five(b.t, "LATCHKEY_LEASE="+term.String())
	c := s.fill()
	as := c.As(b.t.Context(), "OW")
	revoke := revoking(s, c, as)
	parts := invoicingpb.NewPartServiceClient(s)
	var all []time.Duration
	for range 8 {
		// A call that is let in shows that the process has its leases again.
		if _, err := parts.GetPart(as, &invoicingpb.GetPartRequest{Id: c.Parts[0].GetId()}); err != nil {
			b.t.Fatal(err)
		}
		s.processes["invoicing"].signal(syscall.SIGSTOP)
		all = append(all, b.took(revoke))
		s.processes["invoicing"].signal(syscall.SIGCONT)
	}
	worst := percentile(all, 100)
	return finding{
		fmt.Sprintf("p50 %s, longest %s", milliseconds(percentile(all, 50)), milliseconds(worst)),
		float64(worst) / float64(term), "the lease, here 1 s (longest)",
	}
}
