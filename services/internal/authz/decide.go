package authz

import (
	"fmt"
	"path"
	"strings"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
)

var (
	webKey = catalog.MustGrant("Web")
	appKey = catalog.MustGrant("App")
)

// permits decides by the rule alone. The path that allows compares words of bits and
// allocates nothing.
func (m *method) permits(p *Principal) error {
	switch m.kind {
	case byAnyone:
		return nil
	case byInternal:
		if p.Service != "" {
			return nil
		}
		return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_INTERNAL_ONLY,
			short(m.name)+" is for the services of the suite only", map[string]string{"method": m.name[1:]})
	case bySignedIn:
		if p.ID != "" {
			return nil
		}
		return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_INTERNAL_ONLY,
			short(m.name)+" is for people and not for services", map[string]string{"method": m.name[1:]})
	}
	if err := m.checkSurface(p); err != nil {
		return err
	}
	if m.kind == byAll && p.Grants.Contains(m.grants) || m.kind == byAny && p.Grants.Intersects(m.grants) || m.kind == byContent {
		return nil
	}
	return m.refuse(p)
}

func (m *method) checkSurface(p *Principal) error {
	key := webKey
	switch p.Surface {
	case SurfaceWeb:
	case SurfaceApp:
		key = appKey
	default:
		return nil
	}
	if p.Grants.Has(key) {
		return nil
	}
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_SURFACE_CLOSED,
		fmt.Sprintf("you no longer have the permission %s, so this %s session is closed to you: sign in where you may", key, p.Surface),
		map[string]string{"surface": p.Surface.String(), "grant": key.String()})
}

// refuse says why the rule does not let the caller in: the plan before the keys.
func (m *method) refuse(p *Principal) error {
	for _, n := range m.features {
		if !p.Grants.Has(n.feature) {
			feature := strings.TrimPrefix(n.feature.String(), "feature:")
			return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_FEATURE_NOT_IN_PLAN,
				fmt.Sprintf("the organization's plan does not include %q, which %s needs", feature, n.key),
				map[string]string{"feature": feature, "grant": n.key.String()})
		}
	}
	for _, bit := range m.order {
		if m.kind == byAll && !p.Grants.Has(bit) {
			return m.missing(bit, "", "")
		}
	}
	var others []string
	for _, bit := range m.order[1:] {
		others = append(others, bit.String())
	}
	return m.missing(m.order[0], "", strings.Join(others, " or "))
}

// missing is the denial that names a grant, the field that asked for it, and the
// grants that would do instead.
func (m *method) missing(bit catalog.Bit, field, instead string) error {
	name := bit.String()
	metadata := map[string]string{"grant": name, "method": m.name[1:]}
	what := "the permission " + name
	if setting, ok := strings.CutPrefix(name, "setting:"); ok {
		what = "the setting " + setting
	}
	if instead != "" {
		what += " (or " + instead + ")"
		metadata["instead"] = instead
	}
	by := short(m.name)
	if field != "" {
		by += " with " + field
		metadata["field"] = field
	}
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_GRANT_MISSING,
		fmt.Sprintf("%s needs %s, which you do not have: ask an administrator for it, or sign in as somebody who has it", by, what), metadata)
}

// checkContent decides by what the request carries. Where the rule is by_content, a
// request that carries nothing that asks for a grant is denied to who holds none of
// the possible ones; for others it is merely incomplete, which empty says.
func (m *method) checkContent(p *Principal, a *asked) (empty bool, err error) {
	if a.missing {
		return false, m.missing(a.first.bit, a.first.field, "")
	}
	if m.kind != byContent || a.any {
		return false, nil
	}
	possible := m.content.possible()
	if p.Grants.Intersects(possible) {
		return true, nil
	}
	for bit := range possible.All() {
		return false, m.missing(bit, "", "")
	}
	return true, nil
}

// possible returns every grant that a request of a by_content method could ask for.
func (c *content) possible() catalog.Set {
	set := c.within
	if c.update != nil {
		set = set.Union(c.update.inner.within)
	}
	for _, f := range c.fields {
		for _, bit := range f.choose {
			set.Add(bit)
		}
	}
	return set
}

func unknownMethod(fullMethod string) error {
	return fault.New(codes.Unimplemented, faultpb.Reason_REASON_METHOD_UNKNOWN,
		fmt.Sprintf("there is no method %q here", fullMethod), map[string]string{"method": strings.TrimPrefix(fullMethod, "/")})
}

// short returns "VoidInvoice" for "/latchkey.invoicing.v1.InvoiceService/VoidInvoice".
func short(fullMethod string) string { return path.Base(fullMethod) }
