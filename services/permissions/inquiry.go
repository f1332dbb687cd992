package permissions

import (
	"slices"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
)

// inquiry is what somebody can hold: a grant, a method that he may call, or a setting that
// says something for him.
type inquiry struct {
	bit     catalog.Bit
	method  *authz.Requirement // nil if it is not about a method
	setting int                // 0 if it is not about a setting
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

// aboutSetting returns the inquiry about a setting.
func aboutSetting(name string) (inquiry, error) {
	n := slices.Index(settingNames, name) + 1
	if n == 0 {
		return inquiry{}, fault.Invalid("setting", "must be one of %q, and %q is none", settingNames, name)
	}
	return inquiry{setting: n}, nil
}
