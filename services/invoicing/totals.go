package invoicing

import (
	"math/bits"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/fault"
)

// maxAmount is the greatest amount in minor units, that of latchkey.type.v1.Money.
const maxAmount = 1_000_000_000_000_000

// quantityUnit is how many thousandths a quantity of one has, and taxUnit how many
// basis points the whole.
const (
	quantityUnit = 1_000
	taxUnit      = 10_000
)

func money(minorUnits int64, currency string) *typepb.Money {
	return &typepb.Money{MinorUnits: minorUnits, CurrencyCode: currency}
}

// scale returns amount*factor/unit, rounded half away from zero, or false if that is
// beyond maxAmount. The product is computed in 128 bits. Unit is positive and even.
func scale(amount, factor, unit int64) (int64, bool) {
	hi, lo := bits.Mul64(magnitude(amount), magnitude(factor))
	lo, carry := bits.Add64(lo, uint64(unit)/2, 0)
	hi += carry
	if hi >= uint64(unit) {
		return 0, false
	}
	q, _ := bits.Div64(hi, lo, uint64(unit))
	if q > maxAmount {
		return 0, false
	}
	if (amount < 0) != (factor < 0) {
		return -int64(q), true
	}
	return int64(q), true
}

func magnitude(i int64) uint64 {
	if i < 0 {
		return -uint64(i)
	}
	return uint64(i)
}

// totals are the sums of some lines, all in one currency.
type totals struct {
	currency      string // empty while no line has a price
	subtotal, tax int64
}

// add sets the amounts of the line and adds them. Path is where the line's unit_price
// stands in the request. After an error nothing was added.
func (t *totals) add(l *pb.InvoiceLine, path string) error {
	l.Amount, l.Tax, l.Unpriced = nil, nil, l.GetUnitPrice() == nil
	if l.GetUnpriced() {
		return nil
	}
	price := l.GetUnitPrice()
	if err := checkPrice(path, price); err != nil {
		return err
	}
	currency := price.GetCurrencyCode()
	if t.currency != "" && t.currency != currency {
		return fault.Invalid(path+".currency_code", "must be %s, as that of the lines before", t.currency)
	}
	amount, ok := scale(price.GetMinorUnits(), l.GetQuantityThousandths(), quantityUnit)
	if !ok {
		return fault.Invalid(path, "must, times the quantity, be at most 10^15")
	}
	tax, ok := scale(amount, int64(l.GetTaxBasisPoints()), taxUnit)
	if !ok || t.subtotal+t.tax+amount+tax > maxAmount {
		return fault.Invalid(path, "must not make the total more than 10^15")
	}
	l.Amount, l.Tax = money(amount, currency), money(tax, currency)
	t.currency = currency
	t.subtotal += amount
	t.tax += tax
	return nil
}

// checkPrice refuses an amount that cannot be the price of something. Absent is fine.
func checkPrice(path string, m *typepb.Money) error {
	if m.GetMinorUnits() < 0 {
		return fault.Invalid(path, "must not be negative")
	}
	return nil
}

// reckon computes the amounts of every line and the totals anew. Path is where the
// lines stand in the request.
func reckon(v *pb.Invoice, path string) error {
	var t totals
	for i, l := range v.GetLines() {
		if err := t.add(l, linePath(path, i)+".unit_price"); err != nil {
			return err
		}
	}
	return t.set(v, path)
}

// set gives the invoice the totals, unless more is paid than they come to.
func (t *totals) set(v *pb.Invoice, path string) error {
	paid := v.GetAmountPaid()
	switch {
	case paid.GetMinorUnits() == 0:
	case t.currency != "" && t.currency != paid.GetCurrencyCode():
		return fault.Invalid(path, "must be priced in %s, in which the invoice was paid", paid.GetCurrencyCode())
	case t.subtotal+t.tax < paid.GetMinorUnits():
		return fault.Refused("the total must not be less than what is paid")
	}
	if t.currency == "" {
		v.Subtotal, v.Tax, v.Total, v.AmountPaid = nil, nil, nil, nil
	} else {
		v.Subtotal, v.Tax = money(t.subtotal, t.currency), money(t.tax, t.currency)
		v.Total = money(t.subtotal+t.tax, t.currency)
		v.AmountPaid = money(paid.GetMinorUnits(), t.currency)
	}
	settle(v)
	return nil
}

// settle makes the balance and the payment state follow from the other amounts and the
// state.
func settle(v *pb.Invoice) {
	total, paid := v.GetTotal().GetMinorUnits(), v.GetAmountPaid().GetMinorUnits()
	v.Balance = nil
	switch {
	case v.GetTotal() == nil:
	case v.GetState() == void:
		v.Balance = money(0, v.GetTotal().GetCurrencyCode())
	default:
		v.Balance = money(total-paid, v.GetTotal().GetCurrencyCode())
	}
	switch {
	case v.GetState() == open && paid == total:
		v.PaymentState = pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_PAID
	case paid > 0:
		v.PaymentState = pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_PARTIALLY_PAID
	default:
		v.PaymentState = pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_UNPAID
	}
}

// pay adds a payment to what is paid.
func pay(v *pb.Invoice, amount *typepb.Money) error {
	currency := v.GetBalance().GetCurrencyCode()
	switch {
	case amount.GetMinorUnits() <= 0:
		return fault.Invalid("amount", "must be more than nothing")
	case amount.GetCurrencyCode() != currency:
		return fault.Invalid("amount.currency_code", "must be %s, as that of the invoice", currency)
	case amount.GetMinorUnits() > v.GetBalance().GetMinorUnits():
		return fault.Refused("the payment must not be more than what is left to pay")
	}
	v.AmountPaid = money(v.GetAmountPaid().GetMinorUnits()+amount.GetMinorUnits(), currency)
	settle(v)
	return nil
}
