package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// TestVerifyFindsBrokenPromises changes a payment around the service, in a store that is whole: verify
// names the invoice in the store, while the suite runs and not, in a backup and in an export. The backup
// can be restored all the same.
func TestVerifyFindsBrokenPromises(t *testing.T) {
	s := one(t)
	company := s.fill()
	invoice := s.paid(company.As(t.Context(), "OW"))
	s.must("verify")
	s.stop()
	s.overpay(company.Organization)
	want := `invoice "` + invoice + `" breaks "payments": amount_paid is 700, and its payments come to 701`
	finds := func(args ...string) {
		t.Helper()
		code, out := s.does(append([]string{"verify"}, args...)...)
		if code != 1 || !strings.Contains(out, want) || !strings.Contains(out, "1 problems in ") {
			t.Errorf("verify %q ends with %d and prints %s", args, code, out)
		}
	}
	finds()
	s.again()
	finds()
	backup, export := filepath.Join(t.TempDir(), "all"), filepath.Join(t.TempDir(), "company")
	s.must("backup", backup)
	finds(backup)
	s.must("export", company.Organization, export)
	finds(export)
	s.stop()
	out := s.must("restore", "--store=bolt:"+filepath.Join(t.TempDir(), "restored"), backup)
	if !strings.Contains(out, want) || !strings.Contains(out, "1 times a record is not what its service promises") {
		t.Errorf("restore prints %s", out)
	}
}

// paid makes an invoice on which something is paid, and returns its id.
func (s *suite) paid(ctx context.Context) string {
	s.t.Helper()
	invoices := invoicesOf(s)
	made, err := invoices.CreateInvoice(ctx, &invoicingpb.CreateInvoiceRequest{Lines: []*invoicingpb.InvoiceLine{{
		Description: "Hours", QuantityThousandths: 1000, UnitPrice: &typepb.Money{MinorUnits: 1000, CurrencyCode: "EUR"},
	}}})
	if err == nil {
		_, err = invoices.RecordPayment(ctx, &invoicingpb.RecordPaymentRequest{
			Id: made.GetInvoice().GetId(), Method: invoicingpb.PaymentMethod_PAYMENT_METHOD_CASH, Amount: &typepb.Money{MinorUnits: 700, CurrencyCode: "EUR"},
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return made.GetInvoice().GetId()
}

// overpay makes each payment one cent more, with an entry in the journal as for any change.
func (s *suite) overpay(organization string) {
	s.t.Helper()
	payments := store.NewCollection("payment", (*invoicingpb.Payment).GetId)
	engine, err := bolt.Open(filepath.Join(s.folder, "invoicing.db"), bolt.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	db, err := store.Open(s.t.Context(), engine, store.NewSchema(payments), store.Config{Now: time.Now})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(store.WithOrigin(s.t.Context(), store.Origin{Tenant: organization}), func(tx *store.Tx) error {
		for p := range payments.All(tx) {
			p.Amount.MinorUnits++
			if err := payments.Put(tx, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
