package store

import "context"

// Origin says for whom and why a transaction runs. The server puts it into the
// context of each call; it goes into the journal.
type Origin struct {
	Tenant string // whose records, as a rule an organization's id
	Party  string // the caller's organization, where it is not the tenant
	Caller string // user who called; empty if the suite acts itself
	Actor  string // user who acts in the caller's name; empty but under impersonation
	Method string // full name of the method, "latchkey.invoicing.v1.InvoiceService/VoidInvoice"
	Note   *Note  // what the first transaction that changes something carries along, or nil
}

type originKey struct{}

// WithOrigin returns a context that carries the origin.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, &o)
}

// OriginOf returns the context's origin, or the zero Origin.
func OriginOf(ctx context.Context) Origin {
	if o, ok := ctx.Value(originKey{}).(*Origin); ok {
		return *o
	}
	return Origin{}
}
