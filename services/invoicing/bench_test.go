package invoicing_test

import (
	"sync"
	"testing"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
)

// BenchmarkListInvoices lists a page of 50 of 10,000 invoices over the wire, by who sees
// all of them and by the owner of one in a hundred.
func BenchmarkListInvoices(b *testing.B) {
	const total, owners = 10_000, 100
	s := start(b)
	users := make([]*user, owners)
	var wg sync.WaitGroup
	for i := range users {
		users[i] = s.as(officeKeys...)
		wg.Go(func() {
			for n := range total / owners {
				users[i].create(b, int64(n))
			}
		})
	}
	wg.Wait()
	own := without(officeKeys, "View:OwnedBy:Others", "View:OwnedBy:Nobody")
	users[1].Grant(append(own, "Web")...)
	for name, u := range map[string]*user{"all": users[0], "own": users[1]} {
		for _, order := range []string{"create_time desc", "total desc"} {
			b.Run(name+" by "+order, func(b *testing.B) {
				req := &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_OPEN, OrderBy: order}
				for b.Loop() {
					resp, err := u.invoices.ListInvoices(b.Context(), req)
					if err != nil || len(resp.GetInvoices()) != 50 {
						b.Fatalf("got %d invoices, %v, want 50", len(resp.GetInvoices()), err)
					}
				}
			})
		}
	}
}
