package invoicing

import (
	"context"
	"time"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// scope is which invoices exist for a caller.
type scope struct {
	caller             string
	me, others, nobody bool // whose
	deleted            bool // deleted ones too
}

func scopeOf(ctx context.Context) scope {
	c := authz.Caller(ctx)
	return scope{
		caller:  c.ID,
		me:      c.Has("View:OwnedBy:Me"),
		others:  c.Has("View:OwnedBy:Others"),
		nobody:  c.Has("View:OwnedBy:Nobody"),
		deleted: c.Has("Invoices:Delete"),
	}
}

// sees tells whether the invoice exists for the caller now. One that can no longer be
// restored does not, though it may wait for its purge.
func (s scope) sees(v *pb.Invoice, now time.Time) bool {
	if v.GetState() == deleted && (!s.deleted || !now.Before(v.GetPurgeTime().AsTime())) {
		return false
	}
	switch v.GetOwnerId() {
	case s.caller:
		return s.me
	case "":
		return s.nobody
	}
	return s.others
}

// ranges returns what a list of the view reads of an index: all that the scope sees
// there. Of what is beside it the list keeps only what the scope sees.
func (s scope) ranges(index *store.Index[*pb.Invoice], view pb.InvoiceView) []store.Range[*pb.Invoice] {
	if s.others {
		return []store.Range[*pb.Invoice]{index.Range(everyone, view)}
	}
	var ranges []store.Range[*pb.Invoice]
	if s.me {
		ranges = append(ranges, index.Range(s.caller, view))
	}
	if s.nobody {
		ranges = append(ranges, index.Range("", view))
	}
	return ranges
}

// find returns the invoice if it exists for the caller.
func (s scope) find(tx *store.Tx, id string) (*pb.Invoice, error) {
	if v, ok := invoices.Get(tx, id); ok && s.sees(v, tx.Now()) {
		return v, nil
	}
	return nil, fault.NotFound(invoices.Name(), id)
}
