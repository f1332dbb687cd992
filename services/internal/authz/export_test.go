package authz

import (
	"time"

	"google.golang.org/protobuf/proto"

	"latchkey.dev/services/internal/catalog"
)

// Permit decides by the rule of a method alone.
func (r *Rules) Permit(method string, p *Principal) error { return r.methods[method].permits(p) }

// CheckRequest decides by the content of a request.
func (r *Rules) CheckRequest(method string, p *Principal, msg proto.Message) error {
	g := NewGuard(Config{Rules: r, Validate: func(proto.Message) error { return nil }})
	_, err := g.checkRequest(r.methods[method], p, msg)
	return err
}

// Redact clears what may not leave to a person with the grants.
func (r *Rules) Redact(method string, set catalog.Set, msg proto.Message) {
	r.RedactFor(method, &Principal{ID: "somebody", Grants: set}, msg)
}

// RedactFor clears what may not leave to a caller.
func (r *Rules) RedactFor(method string, p *Principal, msg proto.Message) {
	r.methods[method].clean(p, msg)
}

// SetPatience sets how long calls wait for a lease.
func (g *Guard) SetPatience(d time.Duration) { g.patience = d }

// Count counts a reading call.
func (m *Meter) Count(u *Uses, grants catalog.Set) error { return m.count(u, grants, false) }

// Consult notes that a handler found a grant held.
func (u *Uses) Consult(bit catalog.Bit) { u.consult(bit) }

// Untransported says what it means that a connection passed no message on.
var Untransported = untransported
