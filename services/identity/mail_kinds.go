package identity

import (
	"errors"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
)

// mailKinds are what is sent, each under the full name of its event. What anybody can cause
// who knows an address is bounded twice: resets by resetsAsked, too.
var mailKinds = kindsOf(
	mailOf(resetLife, 10, (*letter).resetRequested),
	mailOf(day, 5, (*letter).resetIssued),
	mailOf(day, 5, (*letter).wasReset),
	mailOf(day, 3, (*letter).signInFailed),
	mailOf(day, 5, (*letter).refreshReused),
	mailOf(day, 5, (*letter).passkeyCloned),
	mailOf(day, 5, (*letter).unlocked),
	mailOf(day, 5, (*letter).factorAdded),
	mailOf(day, 5, (*letter).factorRemoved),
	mailOf(day, 5, (*letter).factorTaken),
	mailOf(day, 5, (*letter).passwordChanged),
	mailOf(day, 5, (*letter).newDevice),
	mailOf(day, 5, (*letter).actBegan),
	mailOf(day, 5, (*letter).linked),
	mailOf(day, 5, (*letter).unlinked),
	mailOf(invitationLife, 3, (*letter).added),
	mailOf(invitationLife, 3, (*letter).invited),
)

func kindsOf(kinds ...mailKind) map[string]mailKind {
	byEvent := map[string]mailKind{}
	for _, k := range kinds {
		byEvent[k.event] = k
	}
	return byEvent
}

func (l *letter) resetRequested(e *pb.PasswordResetRequested) (bool, error) {
	box, err := l.box()
	if err != nil {
		return false, err
	}
	r, err := openReset(l.tx, box, e.GetId())
	if gone, ok := errors.AsType[*fault.Error](err); ok && gone.Reason == faultpb.Reason_REASON_RECORD_NOT_FOUND {
		return false, nil // it has expired, was used, or another one took its place
	}
	if err != nil {
		return false, err
	}
	l.subject = l.text("reset")
	l.say(l.text("reset asked"))
	l.say("    " + r.GetCode())
	l.say(l.text("reset until", "when", l.when(r.GetExpireTime().AsTime(), "")))
	l.lead("reset enter")
	l.say(l.text("reset not you"))
	return true, nil
}

func (l *letter) resetIssued(e *pb.PasswordResetIssued) (bool, error) {
	l.subject = l.text("issued")
	l.say(l.text("issued said", "organization", l.organization(e.GetOrganizationId()), "when", l.happened(e.GetOrganizationId())))
	l.say(l.text("issued ask"))
	return true, nil
}

func (l *letter) wasReset(e *pb.PasswordWasReset) (bool, error) {
	l.subject = l.text("replaced")
	l.say(l.text("replaced said", "when", l.happened(e.GetOrganizationId())), l.from(e.GetAddress(), e.GetUserAgent()), l.text("signed out"))
	l.say(l.text("not you"))
	return true, nil
}

// signInFailed tells of those wrong proofs that keep somebody out, and not of every slip of
// a finger.
func (l *letter) signInFailed(e *pb.SignInFailed) (bool, error) {
	if e.GetUntilTime() == nil && !e.GetLocked() {
		return false, nil
	}
	l.subject = l.text("wrong")
	l.say(l.text("wrong said", "factor", l.proof(e.GetFactor()), "times", l.times(e.GetInARow()), "when", l.happened(e.GetOrganizationId())),
		l.from(e.GetAddress(), e.GetUserAgent()))
	if e.GetLocked() {
		l.say(l.text("wrong locked"))
	} else {
		l.say(l.text("wrong slower"))
	}
	l.say(l.text("wrong nobody"))
	return true, nil
}

func (l *letter) refreshReused(e *pb.RefreshTokenReused) (bool, error) {
	l.subject = l.text("copied")
	l.say(l.text("copied said", "when", l.happened(e.GetOrganizationId())), l.from(e.GetAddress(), e.GetUserAgent()), l.text("copied ended"))
	l.say(l.text("not you"))
	return true, nil
}

func (l *letter) passkeyCloned(e *pb.PasskeyCloned) (bool, error) {
	l.subject = l.text("cloned")
	l.say(l.text("cloned said", "when", l.happened(e.GetOrganizationId())), l.from(e.GetAddress(), e.GetUserAgent()), l.text("cloned ended"))
	l.say(l.text("cloned do"))
	return true, nil
}

func (l *letter) unlocked(e *pb.UserUnlocked) (bool, error) {
	l.subject = l.text("unlocked")
	l.say(l.text("unlocked said", "organization", l.organization(e.GetOrganizationId()), "when", l.happened(e.GetOrganizationId())))
	l.lead("sign in")
	return true, nil
}

func (l *letter) factorAdded(e *pb.FactorAdded) (bool, error) {
	l.subject = l.text("factor added")
	l.say(l.text("factor added said", "when", l.happened(e.GetOrganizationId()), "factor", l.proof(e.GetFactor())))
	l.say(l.text("not you"))
	return true, nil
}

func (l *letter) factorRemoved(e *pb.FactorRemoved) (bool, error) {
	l.subject = l.text("factor removed")
	l.say(l.text("factor removed said", "when", l.happened(e.GetOrganizationId()), "factor", l.proof(e.GetFactor())))
	l.say(l.text("not you"))
	return true, nil
}

func (l *letter) passwordChanged(e *pb.PasswordChanged) (bool, error) {
	l.subject = l.text("changed")
	l.say(l.text("changed said", "when", l.happened(e.GetOrganizationId())), l.from(e.GetAddress(), e.GetUserAgent()))
	l.say(l.text("changed not you"))
	return true, nil
}

func (l *letter) newDevice(e *pb.NewDeviceUsed) (bool, error) {
	l.subject = l.text("device")
	l.say(l.text("device said", "organization", l.organization(e.GetOrganizationId()), "when", l.happened(e.GetOrganizationId())),
		l.from(e.GetAddress(), e.GetUserAgent()))
	l.say(l.text("not you"))
	return true, nil
}

// added says nothing of a password: whether the person had one before is nothing that the
// organization is to learn from what she shows it.
func (l *letter) added(e *pb.UserAdded) (bool, error) {
	if _, err := activeMember(l.tx, e.GetOrganizationId(), e.GetUserId()); err != nil {
		return false, nil // not any more
	}
	l.subject = l.text("added")
	l.say(l.text("added said", "organization", l.organization(e.GetOrganizationId()), "when", l.happened(e.GetOrganizationId())))
	l.lead("sign in")
	l.say(l.text("added ask"))
	return true, nil
}

func (l *letter) factorTaken(e *pb.UserFactorRemoved) (bool, error) {
	l.subject = l.text("taken")
	l.say(l.text("taken said", "person", l.person(e.GetOrganizationId(), e.GetRemoverId()), "organization", l.organization(e.GetOrganizationId()),
		"factor", l.proof(e.GetFactor()), "when", l.happened(e.GetOrganizationId())))
	if r, ok := factorRemovals.Get(l.tx, e.GetFactorRemovalId()); ok {
		l.say(l.text("reason", "reason", plain(r.GetReason())))
	}
	l.say(l.text("ask there"))
	return true, nil
}

func (l *letter) actBegan(e *pb.ImpersonationBegan) (bool, error) {
	l.subject = l.text("acts")
	l.say(l.text("acts said", "person", l.person(e.GetOrganizationId(), e.GetActorId()), "organization", l.organization(e.GetOrganizationId()),
		"when", l.happened(e.GetOrganizationId())))
	if i, ok := impersonations.Get(l.tx, e.GetImpersonationId()); ok {
		l.say(l.text("acts until", "when", l.when(i.GetExpireTime().AsTime(), e.GetOrganizationId())), l.text("reason", "reason", plain(i.GetReason())))
	}
	l.say(l.text("acts noted"), l.text("ask there"))
	return true, nil
}

func (l *letter) linked(e *pb.OutsideLinked) (bool, error) {
	l.subject = l.text("linked")
	l.say(l.text("linked said", "provider", l.provider(e.GetProviderId()), "when", l.happened(e.GetOrganizationId())))
	l.say(l.text("not you"))
	return true, nil
}

func (l *letter) unlinked(e *pb.OutsideUnlinked) (bool, error) {
	l.subject = l.text("unlinked")
	l.say(l.text("unlinked said", "provider", l.provider(e.GetProviderId()), "when", l.happened(e.GetOrganizationId())))
	l.say(l.text("unlinked ask"))
	return true, nil
}

func (l *letter) invited(e *pb.OutsideInvited) (bool, error) {
	i, ok := outsideInvitations.Get(l.tx, invitationKey(e.GetProviderId(), e.GetUserId()))
	if !ok || !i.GetExpireTime().AsTime().After(l.tx.Now()) {
		return false, nil
	}
	l.subject = l.text("invited")
	l.say(l.text("invited said", "organization", l.organization(e.GetOrganizationId()), "provider", l.provider(e.GetProviderId())))
	l.say(l.text("invited until", "when", l.when(i.GetExpireTime().AsTime(), e.GetOrganizationId())))
	l.lead("sign in")
	l.say(l.text("invited not you"))
	return true, nil
}
