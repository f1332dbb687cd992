package permissions

import (
	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
)

// inquiry is what somebody can hold: a grant, or a method that he may call.
type inquiry struct {
	bit    catalog.Bit
	method *authz.Requirement // nil if it is about the grant
}

// asking is a request with a question.
type asking interface {
	GetGrant() string
	GetMethod() string
}

func inquiryOf(req asking) (q inquiry, err error) {
	if name := req.GetMethod(); name != "" {
		q.method, err = findMethod(name)
	} else {
		q.bit, err = exactGrant("grant", req.GetGrant())
	}
	return q, err
}

// holds tells whether who has these grants holds what is asked about.
func (q *inquiry) holds(set catalog.Set) bool {
	if q.method != nil {
		return q.method.Permits(set)
	}
	return set.Has(q.bit)
}
