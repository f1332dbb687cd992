package invoicing

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

func linePath(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// fillLines completes the lines of a request from the price book: what a line leaves
// out of description, price and tax is that of its part. Kept are the parts that the
// invoice has already, which may be inactive by now. Path is where the lines stand.
func fillLines(tx *store.Tx, lines []*pb.InvoiceLine, kept map[string]bool, path string) error {
	for i, l := range lines {
		if id := l.GetPartId(); id != "" {
			p, ok := parts.Get(tx, id)
			if !ok || !p.GetActive() && !kept[id] {
				return fault.Invalid(linePath(path, i)+".part_id", "must name an active part of the price book")
			}
			fillLine(l, p)
		}
		if l.GetDescription() == "" {
			return fault.Invalid(linePath(path, i)+".description", "must say what is charged, or the line must name a part")
		}
	}
	return nil
}

// fillLine gives the line what it leaves out of the part.
func fillLine(l *pb.InvoiceLine, p *pb.Part) {
	if l.GetDescription() == "" {
		l.Description = p.GetName()
	}
	if l.GetUnitPrice() == nil && p.GetPrice() != nil {
		l.UnitPrice = proto.CloneOf(p.GetPrice())
	}
	if l.TaxBasisPoints == nil && p.TaxBasisPoints != nil {
		l.TaxBasisPoints = proto.Int32(p.GetTaxBasisPoints())
	}
}

// checkPriced refuses lines without a price, which an invoice that is open cannot have.
func checkPriced(lines []*pb.InvoiceLine, path string) error {
	for i, l := range lines {
		if l.GetUnitPrice() == nil {
			return fault.Invalid(linePath(path, i)+".unit_price", "must be set, or the line must name a part that has a price")
		}
	}
	return nil
}

func partsOf(v *pb.Invoice) map[string]bool {
	ids := map[string]bool{}
	for _, l := range v.GetLines() {
		ids[l.GetPartId()] = true
	}
	return ids
}

func cloneLines(lines []*pb.InvoiceLine) []*pb.InvoiceLine {
	clones := make([]*pb.InvoiceLine, len(lines))
	for i, l := range lines {
		clones[i] = proto.CloneOf(l)
	}
	return clones
}

// checkDate refuses a date that no calendar has. Absent is fine.
func checkDate(path string, d *typepb.Date) error {
	if d == nil {
		return nil
	}
	t := time.Date(int(d.GetYear()), time.Month(d.GetMonth()), int(d.GetDay()), 0, 0, 0, 0, time.UTC)
	if t.Month() != time.Month(d.GetMonth()) || t.Day() != int(d.GetDay()) {
		return fault.Invalid(path, "must be a day of the calendar")
	}
	return nil
}

// overdue tells whether something is left to pay of an open invoice though its due date
// has ended everywhere on Earth; the last place is twelve hours behind UTC.
func overdue(v *pb.Invoice, now time.Time) bool {
	d := v.GetDueDate()
	if d == nil || v.GetState() != open || v.GetPaymentState() == pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_PAID {
		return false
	}
	end := time.Date(int(d.GetYear()), time.Month(d.GetMonth()), int(d.GetDay())+1, 12, 0, 0, 0, time.UTC)
	return !now.Before(end)
}
