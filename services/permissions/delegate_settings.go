package permissions

import "math"

// checkSettings guards against raising settings. It takes the user for one who is
// linked to a service agent, because he may become one later.
func (d *delegation) checkSettings(e edit) error {
	was, is, own := e.before.settingsOf(true), e.after.settingsOf(true), d.own.settings()
	own.on &^= d.uncarried(own)
	self := e.user == d.caller
	for i, name := range settingNames {
		n := i + 1
		if !raised(n, was, is) {
			continue
		}
		switch {
		case n == invoiceApprover || agentSettings.has(n):
			if self {
				return beyondGrant("setting:"+name, "nobody raises his own %s")
			}
		case self || raised(n, own, is):
			return beyondGrant("setting:"+name, "the user would have more of %s than you")
		}
	}
	return nil
}

// uncarried returns the boolean settings that are on and that the session lacks.
func (d *delegation) uncarried(own values) settingMask {
	var m settingMask
	for n := range settingBits {
		if own.on.has(n) && !restricting.has(n) && !d.limit.Has(settingBits[n]) {
			m |= 1 << n
		}
	}
	return m
}

// raised reports whether a setting lets a user do more in b than in a.
func raised(n int, a, b values) bool {
	switch n {
	case searchScope:
		return b.effective().GetSearchScope() > a.effective().GetSearchScope()
	case proposalScope:
		return b.effective().GetProposalScope() > a.effective().GetProposalScope()
	case invoiceApprover:
		return a.approver != "" && a.approver != b.approver
	case futureVisibility:
		return b.horizon() > a.horizon()
	case loginRestrictions:
		a0, a1 := a.margins()
		b0, b1 := b.margins()
		return b0 > a0 || b1 > a1
	}
	if restricting.has(n) {
		return a.on.has(n) && !b.on.has(n)
	}
	return b.on.has(n) && !a.on.has(n)
}

// horizon returns how many days ahead the user sees.
func (v values) horizon() int32 {
	if !v.says.has(futureVisibility) {
		return math.MaxInt32
	}
	return v.days
}

// margins returns how many minutes around the work of a day the user may sign in.
func (v values) margins() (before, after int32) {
	if v.login == nil {
		return math.MaxInt32, math.MaxInt32
	}
	return v.login.GetBeforeMinutes(), v.login.GetAfterMinutes()
}
