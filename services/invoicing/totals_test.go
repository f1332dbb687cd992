package invoicing

import (
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/fault"
)

func TestScale(t *testing.T) {
	for _, c := range []struct {
		amount, factor, unit, want int64
		ok                         bool
	}{
		{0, 0, 1000, 0, true},
		{8000, 1500, 1000, 12000, true},
		{1, 499, 1000, 0, true},
		{1, 500, 1000, 1, true},
		{-1, 499, 1000, 0, true},
		{-1, 500, 1000, -1, true},
		{1, -500, 1000, -1, true},
		{-3, -500, 1000, 2, true},
		{5, 1900, 10000, 1, true},
		{maxAmount, 1000, 1000, maxAmount, true},
		{maxAmount, 1001, 1000, 0, false},
		{-maxAmount, 1000, 1000, -maxAmount, true},
		{math.MaxInt64, math.MaxInt64, 1000, 0, false},
		{math.MinInt64, math.MinInt64, 1000, 0, false},
		{math.MinInt64, 1, 10000, -922337203685478, true},
	} {
		if got, ok := scale(c.amount, c.factor, c.unit); got != c.want || ok != c.ok {
			t.Errorf("scale(%d, %d, %d): got %d, %v, want %d, %v", c.amount, c.factor, c.unit, got, ok, c.want, c.ok)
		}
	}
}

// scaleBig is scale with numbers of any size.
func scaleBig(amount, factor, unit int64) (int64, bool) {
	product := new(big.Int).Mul(big.NewInt(amount), big.NewInt(factor))
	sign := int64(product.Sign())
	product.Abs(product).Mul(product, big.NewInt(2)).Add(product, big.NewInt(unit))
	product.Quo(product, big.NewInt(2*unit))
	if !product.IsInt64() || product.Int64() > maxAmount {
		return 0, false
	}
	return sign * product.Int64(), true
}

func TestScaleIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Int64().Draw(t, "amount")
		factor := rapid.Int64().Draw(t, "factor")
		unit := rapid.SampledFrom([]int64{quantityUnit, taxUnit}).Draw(t, "unit")
		got, ok := scale(amount, factor, unit)
		want, wantOK := scaleBig(amount, factor, unit)
		if got != want || ok != wantOK {
			t.Fatalf("scale(%d, %d, %d): got %d, %v, want %d, %v", amount, factor, unit, got, ok, want, wantOK)
		}
	})
}

var drawLine = rapid.Custom(func(t *rapid.T) *pb.InvoiceLine {
	l := &pb.InvoiceLine{QuantityThousandths: rapid.Int64Range(1, 1_000_000_000).Draw(t, "quantity")}
	if rapid.IntRange(0, 9).Draw(t, "priced") > 0 {
		// Mostly such that some sums stay within the bounds.
		most := rapid.SampledFrom([]int64{100, 1_000_000, maxAmount}).Draw(t, "most")
		l.UnitPrice = money(rapid.Int64Range(0, most).Draw(t, "price"), "EUR")
		l.TaxBasisPoints = proto.Int32(rapid.Int32Range(0, 10_000).Draw(t, "tax"))
	}
	return l
})

// TestReckonConservesTotals: totals are the sums of the lines to the minor unit, or
// nothing changes but for an error that names a line.
func TestReckonConservesTotals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := &pb.Invoice{State: unapproved, Lines: rapid.SliceOfN(drawLine, 0, 20).Draw(t, "lines")}
		if err := reckon(v, "lines"); err != nil {
			bad, ok := errors.AsType[*fault.Error](err)
			if !ok || len(bad.Violations) != 1 || !strings.HasPrefix(bad.Violations[0].Field, "lines[") || !strings.HasSuffix(bad.Violations[0].Field, "].unit_price") {
				t.Fatalf("got %v, want a fault that names a line's unit_price", err)
			}
			return
		}
		var subtotal, tax int64
		priced := false
		for _, l := range v.GetLines() {
			if l.GetUnpriced() != (l.GetUnitPrice() == nil) || l.GetUnpriced() != (l.GetAmount() == nil) {
				t.Fatalf("got %v, want unpriced exactly if there is no price and no amount", l)
			}
			priced = priced || !l.GetUnpriced()
			subtotal += l.GetAmount().GetMinorUnits()
			tax += l.GetTax().GetMinorUnits()
		}
		if priced != (v.GetTotal() != nil) || priced != (v.GetBalance() != nil) {
			t.Fatalf("got total %v and balance %v, want them exactly if a line has a price", v.GetTotal(), v.GetBalance())
		}
		if got := v.GetSubtotal().GetMinorUnits(); got != subtotal {
			t.Fatalf("subtotal: got %d, want %d", got, subtotal)
		}
		if got := v.GetTotal().GetMinorUnits(); got != subtotal+tax || got > maxAmount {
			t.Fatalf("total: got %d, want %d, at most %d", got, subtotal+tax, int64(maxAmount))
		}
	})
}

// TestLedgerIsBalance: whatever is paid in whatever order, the balance is the total less
// the sum of what was taken, and never negative.
func TestLedgerIsBalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := &pb.Invoice{State: open, Lines: []*pb.InvoiceLine{{QuantityThousandths: 1000, UnitPrice: money(rapid.Int64Range(0, 1000).Draw(t, "total"), "EUR")}}}
		if err := reckon(v, "lines"); err != nil {
			t.Fatal(err)
		}
		var ledger int64
		for _, amount := range rapid.SliceOf(rapid.Int64Range(-10, 400)).Draw(t, "payments") {
			left := v.GetTotal().GetMinorUnits() - ledger
			err := pay(v, money(amount, "EUR"))
			if (err == nil) != (amount > 0 && amount <= left) {
				t.Fatalf("pay %d of %d left: got %v", amount, left, err)
			}
			if err == nil {
				ledger += amount
			}
			if got := v.GetBalance().GetMinorUnits(); got != v.GetTotal().GetMinorUnits()-ledger || got < 0 {
				t.Fatalf("balance after %d: got %d, want %d", ledger, got, v.GetTotal().GetMinorUnits()-ledger)
			}
		}
		want := pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_UNPAID
		switch {
		case ledger == v.GetTotal().GetMinorUnits():
			want = pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_PAID
		case ledger > 0:
			want = pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_PARTIALLY_PAID
		}
		if v.GetPaymentState() != want {
			t.Fatalf("paid %d of %d: got %v, want %v", ledger, v.GetTotal().GetMinorUnits(), v.GetPaymentState(), want)
		}
	})
}
