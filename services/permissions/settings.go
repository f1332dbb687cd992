package permissions

import (
	"latchkey.dev/services/internal/catalog"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// settingMask is a set of settings; bit n is setting n.
type settingMask uint32

func (m settingMask) has(n int) bool { return m>>n&1 != 0 }

// Numbers of the settings that are not boolean.
const (
	searchScope       = 5
	proposalScope     = 7
	invoiceApprover   = 8
	futureVisibility  = 14
	loginRestrictions = 16
)

// values is the settings of one layer, or of several put together. Nothing says
// anything in the zero values.
type values struct {
	says settingMask // which settings it speaks about
	on   settingMask // which boolean ones are on

	search   pb.SearchScope
	proposal pb.ProposalScope
	approver string
	days     int32
	login    *pb.LoginRestrictions // never changed
}

var (
	agentSettings = maskOf(func(s catalog.Setting) bool { return s.AgentOnly })
	boolSettings  = maskOf(func(s catalog.Setting) bool { return s.Kind == catalog.Bool })
	restricting   = maskOf(func(s catalog.Setting) bool { return s.Restricts })
	settingNames  = namesOfSettings()
	settingBits   = bitsOfSettings()
)

func maskOf(match func(catalog.Setting) bool) settingMask {
	var m settingMask
	for _, s := range catalog.Settings() {
		if match(s) {
			m |= 1 << s.Number
		}
	}
	return m
}

func namesOfSettings() (names []string) {
	for _, s := range catalog.Settings() {
		names = append(names, s.Name)
	}
	return names
}

func bitsOfSettings() (bits [32]catalog.Bit) {
	for _, s := range catalog.Settings() {
		if b, ok := s.Grant(); ok {
			bits[s.Number] = b
		}
	}
	return bits
}

// compileSettings returns what a record says.
func compileSettings(s *pb.UserSettings) values {
	var v values
	if s == nil {
		return v
	}
	for n, on := range []*bool{
		1: s.SeePricing, 2: s.RescheduleAppointments, 3: s.TransferAppointments, 4: s.LimitSlots,
		6: s.IncludeMemberOrgs, 9: s.TrackInventory, 10: s.CcAppointmentConfirmations, 11: s.SelfEditInventory,
		12: s.AlterStartFinish, 13: s.PullFromQueue, 15: s.HideFutureOnDetails,
	} {
		if on != nil {
			v.says |= 1 << n
			if *on {
				v.on |= 1 << n
			}
		}
	}
	if s.SearchScope != nil {
		v.says, v.search = v.says|1<<searchScope, *s.SearchScope
	}
	if s.ProposalScope != nil {
		v.says, v.proposal = v.says|1<<proposalScope, *s.ProposalScope
	}
	if s.InvoiceApprover != nil {
		v.says, v.approver = v.says|1<<invoiceApprover, *s.InvoiceApprover
	}
	if s.FutureVisibility != nil {
		v.says, v.days = v.says|1<<futureVisibility, *s.FutureVisibility
	}
	if s.LoginRestrictions != nil {
		v.says, v.login = v.says|1<<loginRestrictions, s.LoginRestrictions
	}
	return v
}

// over returns v where it speaks, and lower elsewhere.
func (v values) over(lower values) values {
	v.on |= lower.on &^ v.says
	if !v.says.has(searchScope) {
		v.search = lower.search
	}
	if !v.says.has(proposalScope) {
		v.proposal = lower.proposal
	}
	if !v.says.has(invoiceApprover) {
		v.approver = lower.approver
	}
	if !v.says.has(futureVisibility) {
		v.days = lower.days
	}
	if !v.says.has(loginRestrictions) {
		v.login = lower.login
	}
	v.says |= lower.says
	return v
}

// withoutAgent returns v without what exists only for service agents.
func (v values) withoutAgent() values {
	v.says &^= agentSettings
	v.on &^= agentSettings
	v.days, v.login = 0, nil
	return v
}

// grants returns the grants of the boolean settings that are on.
func (v values) grants() catalog.Set {
	var set catalog.Set
	for n := range settingBits {
		if v.on.has(n) {
			set.Add(settingBits[n])
		}
	}
	return set
}

// effective returns what counts of the settings that are not boolean.
func (v values) effective() *pb.EffectiveSettings {
	e := &pb.EffectiveSettings{
		SearchScope:       max(v.search, pb.SearchScope_SEARCH_SCOPE_NONE),
		ProposalScope:     max(v.proposal, pb.ProposalScope_PROPOSAL_SCOPE_OWNED),
		InvoiceApprover:   v.approver,
		LoginRestrictions: v.login,
	}
	if v.says.has(futureVisibility) {
		e.FutureVisibility = &v.days
	}
	return e
}

// proto returns the value of every setting that exists for a user.
func (v values) proto(agent bool) *pb.UserSettings {
	e := v.effective()
	s := &pb.UserSettings{
		SearchScope: &e.SearchScope, ProposalScope: &e.ProposalScope, InvoiceApprover: &e.InvoiceApprover,
		FutureVisibility: e.FutureVisibility, LoginRestrictions: e.LoginRestrictions,
	}
	on := func(n int) *bool {
		b := v.on.has(n)
		return &b
	}
	s.SeePricing, s.RescheduleAppointments, s.TransferAppointments = on(1), on(2), on(3)
	s.LimitSlots, s.IncludeMemberOrgs = on(4), on(6)
	if agent {
		s.TrackInventory, s.CcAppointmentConfirmations, s.SelfEditInventory = on(9), on(10), on(11)
		s.AlterStartFinish, s.PullFromQueue, s.HideFutureOnDetails = on(12), on(13), on(15)
	}
	return s
}

// say reports whether v says that a boolean setting is on, to grant it, or off.
func (v values) say(n int, effect pb.Effect) bool {
	return v.says.has(n) && v.on.has(n) == (effect == pb.Effect_EFFECT_GRANT)
}

// tells reports whether a setting is on, is more than the least there is, or has a value.
func (v values) tells(n int) bool {
	switch n {
	case searchScope:
		return v.search > pb.SearchScope_SEARCH_SCOPE_NONE
	case proposalScope:
		return v.proposal > pb.ProposalScope_PROPOSAL_SCOPE_OWNED
	case invoiceApprover:
		return v.approver != ""
	case futureVisibility, loginRestrictions:
		return v.says.has(n)
	}
	return v.on.has(n)
}

// agentOnly returns the name of the first setting that v speaks about and that exists
// only for service agents, or "".
func (v values) agentOnly() string {
	for i, name := range settingNames {
		if agentSettings.has(i+1) && v.says.has(i+1) {
			return name
		}
	}
	return ""
}
