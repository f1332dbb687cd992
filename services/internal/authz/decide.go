package authz

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
)

var (
	webKey = catalog.MustGrant("Web")
	appKey = catalog.MustGrant("App")

	impersonationKey = catalog.MustGrant("User: Impersonation")
	seePricing       = catalog.MustGrant("setting:see_pricing")
)

// permits decides by the rule alone. It allocates nothing: what allows compares words
// of bits, and what denies was made when the rules were compiled, since a page of
// records asks for the same denials again and again.
func (m *method) permits(p *Principal) error {
	switch {
	case m.kind == byAnyone:
		return nil
	case m.kind == byInternal:
		if p.Service == "" {
			return m.denials.notService
		}
		return nil
	case p.ID == "":
		return m.denyNobody(p)
	case p.OnlyMethod != "" && p.OnlyMethod != m.name[1:]:
		// SECURITY: a token that stands in an address, as that of a feed, opens that alone.
		return m.denials.bound
	case p.mayNotAct:
		return m.denials.acting
	case m.kind == bySignedIn:
		return nil
	}
	if err := checkSurface(p); err != nil {
		return err
	}
	switch m.kind {
	case byAll:
		if !p.Grants.Contains(m.grants) {
			return m.denyAll(p)
		}
	case byAny:
		if !p.Grants.Intersects(m.grants) {
			return m.denyAny(p)
		}
	}
	return nil
}

// denials are what a method answers to whom its rule does not let in.
type denials struct {
	notService error // to people, where the suite's services alone may call
	service    error // to services, where people alone may call
	bound      error // to sessions that may call another method alone
	acting     error // to who acts for another and may not any more
	any        error // to holders of none of the grants
}

func (m *method) prepareDenials() {
	of := map[string]string{"method": m.name[1:]}
	m.denials.notService = fault.New(codes.PermissionDenied, faultpb.Reason_REASON_INTERNAL_ONLY,
		short(m.name)+" is for the services of the suite only", of)
	m.denials.bound = fault.New(codes.PermissionDenied, faultpb.Reason_REASON_IN_PERSON_ONLY,
		"only the person may do this, signed in: these credentials are for another method alone", nil)
	m.denials.acting = fault.New(codes.PermissionDenied, faultpb.Reason_REASON_GRANT_MISSING,
		fmt.Sprintf("you no longer have the permission %s, so you act for nobody: call in your own name", impersonationKey),
		map[string]string{"grant": impersonationKey.String(), "method": m.name[1:]})
	m.denials.service = fault.New(codes.PermissionDenied, faultpb.Reason_REASON_PEOPLE_ONLY,
		short(m.name)+" is for people and not for services", of)
	var others []string
	for i := range m.named {
		n := &m.named[i]
		n.features = m.featuresOf(n.bit)
		n.denial = m.missing(n.bit, "", "")
		if i > 0 {
			others = append(others, n.bit.String())
		}
	}
	if m.kind == byAny {
		m.denials.any = m.missing(m.named[0].bit, "", strings.Join(others, " or "))
	}
}

// featuresOf returns the add-on features that the grant and the keys above it need.
func (m *method) featuresOf(bit catalog.Bit) []feature {
	needs := catalog.Needs(bit)
	var found []feature
	for _, f := range catalog.Features() {
		if needs.Has(f.Bit()) {
			found = append(found, feature{f.Bit(), fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_FEATURE_NOT_IN_PLAN,
				fmt.Sprintf("the organization's plan does not include %q, which %s needs", f.Name, bit),
				map[string]string{"feature": f.Name, "grant": bit.String()})})
		}
	}
	return found
}

// closed are the answers to sessions whose surface is closed to their user.
var closed = map[Surface]error{
	SurfaceWeb: closedSurface(SurfaceWeb, webKey),
	SurfaceApp: closedSurface(SurfaceApp, appKey),
	SurfaceAPI: closedSurface(SurfaceAPI, appKey),
}

func closedSurface(s Surface, key catalog.Bit) error {
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_SURFACE_CLOSED,
		fmt.Sprintf("you no longer have the permission %s, so sessions of %s are closed to you: sign in where you may", key, s),
		map[string]string{"surface": s.String(), "grant": key.String()})
}

func checkSurface(p *Principal) error {
	switch {
	case p.Surface == SurfaceWeb && !p.Grants.Has(webKey),
		p.Surface == SurfaceApp && !p.Grants.Has(appKey),
		p.Surface == SurfaceAPI && p.InPerson() && !p.Grants.Has(appKey):
		return closed[p.Surface]
	}
	return nil
}

// denyNobody answers whoever is no user.
func (m *method) denyNobody(p *Principal) error {
	if p.Service == "" {
		return missingCredentials()
	}
	return m.denials.service
}

// denyAll says which of all grants is missing: the plan's before the caller's.
func (m *method) denyAll(p *Principal) error {
	for _, n := range m.named {
		if err := n.notInPlan(p); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(m.named, func(n named) bool { return !p.Grants.Has(n.bit) })
	return m.named[i].denial
}

// denyAny says that one of the grants is needed; or that the plan lacks something, if
// with it none of them could count.
func (m *method) denyAny(p *Principal) error {
	for _, n := range m.named {
		if n.notInPlan(p) == nil {
			return m.denials.any
		}
	}
	return m.named[0].notInPlan(p)
}

func (n *named) notInPlan(p *Principal) error {
	for _, f := range n.features {
		if !p.Grants.Has(f.bit) {
			return f.denial
		}
	}
	return nil
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
	return &fault.Error{
		Code: codes.PermissionDenied, Reason: faultpb.Reason_REASON_GRANT_MISSING,
		Message:  fmt.Sprintf("%s needs %s, which you do not have: ask an administrator for it, or sign in as somebody who has it", by, what),
		Brief:    "needs " + what,
		Metadata: metadata,
	}
}

// lacks is the denial of a request that asks for a grant which the caller lacks.
func (m *method) lacks(p *Principal, bit catalog.Bit, field string) error {
	n := named{bit: bit, features: m.featuresOf(bit)}
	if err := n.notInPlan(p); err != nil {
		return err
	}
	return m.missing(bit, field, "")
}

// checkContent decides by what the request carries. Where the rule is by_content, a
// request that does nothing that asks for a grant is denied to who holds none of
// the possible ones; for others it is merely incomplete, which empty says.
func (m *method) checkContent(p *Principal, a *asked) (empty bool, err error) {
	if a.missing {
		return false, m.lacks(p, a.bit, a.field)
	}
	if m.kind != byContent || a.acts {
		return false, nil
	}
	possible := m.content.actions()
	if p.Grants.Intersects(possible) {
		return true, nil
	}
	for bit := range possible.All() {
		return false, m.missing(bit, "", "")
	}
	return true, nil
}

func unknownMethod(fullMethod string) error {
	if len(fullMethod) > maxSaid {
		fullMethod = fullMethod[:maxSaid] + "..."
	}
	return fault.New(codes.Unimplemented, faultpb.Reason_REASON_METHOD_UNKNOWN,
		fmt.Sprintf("there is no method %q here", fullMethod), map[string]string{"method": strings.TrimPrefix(fullMethod, "/")})
}

// maxSaid is how much of a wrong name is said back.
const maxSaid = 200

// short returns "VoidInvoice" for "/latchkey.invoicing.v1.InvoiceService/VoidInvoice".
func short(fullMethod string) string { return path.Base(fullMethod) }
