package invoicing

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/journal"
	"latchkey.dev/services/internal/store"
)

// showJournal says what the journal shows: to each caller what he may get.
func (s *service) showJournal(j *journal.Source) {
	journal.Show(j, parts, pb.PartService_GetPart_FullMethodName, journal.Everyone)
	journal.Show(j, invoices, pb.InvoiceService_GetInvoice_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.Invoice], error) {
		scope := scopeOf(ctx)
		return func(tx *store.Tx, v *pb.Invoice) bool { return scope.sees(v, tx.Now()) }, nil
	})
	journal.Show(j, payments, pb.InvoiceService_ListPayments_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.Payment], error) {
		scope := scopeOf(ctx)
		return func(tx *store.Tx, p *pb.Payment) bool {
			v, ok := invoices.Get(tx, p.GetInvoiceId())
			return ok && scope.sees(v, tx.Now())
		}, nil
	})
	journal.Show(j, vendorInvoices, pb.VendorInvoiceService_GetVendorInvoice_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.VendorInvoice], error) {
		scope := s.vendorScope(ctx)
		return func(_ *store.Tx, v *pb.VendorInvoice) bool { return scope.sees(v) }, scope.err
	})
}
