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
	l.subject = "A code for a new password"
	l.say("Somebody, probably you, has asked for a code to set a new password. The code is")
	l.say("    %s", r.GetCode())
	l.say("It is good once, until %s.", l.when(r.GetExpireTime().AsTime(), ""))
	l.lead("Go where you sign in, and enter it there together with your address")
	l.say("If it was not you, you need do nothing: your password stays as it is. Do not tell anybody the code, whoever asks for it.")
	return true, nil
}

func (l *letter) resetIssued(e *pb.PasswordResetIssued) (bool, error) {
	l.subject = "An administrator can set your password"
	l.say("An administrator of %s got a code for a new password of yours, %s, to hand it over to you.",
		l.organization(e.GetOrganizationId()), l.happened(e.GetOrganizationId()))
	l.say("If you have not asked for that, ask there.")
	return true, nil
}

func (l *letter) wasReset(e *pb.PasswordWasReset) (bool, error) {
	l.subject = "Your password was replaced"
	l.say("Your password was replaced by means of a code, %s.%s You are signed out everywhere.",
		l.happened(e.GetOrganizationId()), from(e.GetAddress(), e.GetUserAgent()))
	l.ifNotYou()
	return true, nil
}

// signInFailed tells of those wrong proofs that keep somebody out, and not of every slip of
// a finger.
func (l *letter) signInFailed(e *pb.SignInFailed) (bool, error) {
	if e.GetUntilTime() == nil && !e.GetLocked() {
		return false, nil
	}
	l.subject = "Somebody tries to sign in as you"
	l.say("Somebody has shown %s for your account that was wrong, %d times in a row, the last time %s.%s",
		proof(e.GetFactor()), e.GetInARow(), l.happened(e.GetOrganizationId()), from(e.GetAddress(), e.GetUserAgent()))
	if e.GetLocked() {
		l.say("So many were wrong that no further one is looked at. An administrator can allow it again.")
	} else {
		l.say("After each further one it takes longer until another one is looked at.")
	}
	l.say("Nobody was let in by it. If it was not you, you need do nothing but have a password that nobody guesses.")
	return true, nil
}

func (l *letter) refreshReused(e *pb.RefreshTokenReused) (bool, error) {
	l.subject = "Somebody has copied a session of yours"
	l.say("What keeps a session of yours alive was used a second time, so somebody has a copy of it, %s.%s The session has ended.",
		l.happened(e.GetOrganizationId()), from(e.GetAddress(), e.GetUserAgent()))
	l.ifNotYou()
	return true, nil
}

func (l *letter) passkeyCloned(e *pb.PasskeyCloned) (bool, error) {
	l.subject = "Somebody has copied a passkey of yours"
	l.say("There are two of a passkey of yours, of which one is a copy, as was found when one of them was used, %s.%s Neither signs anybody in any more, and you are signed out everywhere.",
		l.happened(e.GetOrganizationId()), from(e.GetAddress(), e.GetUserAgent()))
	l.say("Sign in in another way, remove the passkey and make another one. Tell your administrator.")
	return true, nil
}

func (l *letter) unlocked(e *pb.UserUnlocked) (bool, error) {
	l.subject = "You can sign in again"
	l.say("There were many wrong passwords or codes for your account. An administrator of %s has made them forgotten, %s, so that the right ones are looked at again.",
		l.organization(e.GetOrganizationId()), l.happened(e.GetOrganizationId()))
	l.lead("Sign in")
	return true, nil
}

func (l *letter) factorAdded(e *pb.FactorAdded) (bool, error) {
	l.subject = "You have another way to prove who you are"
	l.say("Your account has got another proof of who you are, %s: %s.", l.happened(e.GetOrganizationId()), proof(e.GetFactor()))
	l.ifNotYou()
	return true, nil
}

func (l *letter) factorRemoved(e *pb.FactorRemoved) (bool, error) {
	l.subject = "A way to prove who you are was removed"
	l.say("What does not prove any more who you are was removed from your account, %s: %s.", l.happened(e.GetOrganizationId()), proof(e.GetFactor()))
	l.ifNotYou()
	return true, nil
}

func (l *letter) passwordChanged(e *pb.PasswordChanged) (bool, error) {
	l.subject = "Your password was changed"
	l.say("Your password was changed by somebody who was signed in, %s.%s", l.happened(e.GetOrganizationId()), from(e.GetAddress(), e.GetUserAgent()))
	l.say("If it was not you, ask for a code for a new password now, and tell your administrator.")
	return true, nil
}

func (l *letter) newDevice(e *pb.NewDeviceUsed) (bool, error) {
	l.subject = "You have signed in with a new device"
	l.say("Somebody has signed in to %s as you, with a device from which you have not done so before, %s.%s",
		l.organization(e.GetOrganizationId()), l.happened(e.GetOrganizationId()), from(e.GetAddress(), e.GetUserAgent()))
	l.ifNotYou()
	return true, nil
}

// added says nothing of a password: whether the person had one before is nothing that the
// organization is to learn from what she shows it.
func (l *letter) added(e *pb.UserAdded) (bool, error) {
	if _, err := activeMember(l.tx, e.GetOrganizationId(), e.GetUserId()); err != nil {
		return false, nil // not any more
	}
	l.subject = "You are invited to sign in"
	l.say("%s has added you to its members, %s. You sign in with this address.", l.organization(e.GetOrganizationId()), l.happened(e.GetOrganizationId()))
	l.lead("Sign in")
	l.say("If you have no password, or do not know it, ask there for a code to set one. If you do not know who has added you, you need do nothing.")
	return true, nil
}

func (l *letter) factorTaken(e *pb.UserFactorRemoved) (bool, error) {
	l.subject = "Somebody took a way to prove who you are from you"
	l.say("%s of %s has taken %s from your account, %s, and you are signed out everywhere.",
		l.person(e.GetOrganizationId(), e.GetRemoverId()), l.organization(e.GetOrganizationId()), proof(e.GetFactor()), l.happened(e.GetOrganizationId()))
	if r, ok := factorRemovals.Get(l.tx, e.GetFactorRemovalId()); ok {
		l.say("The reason that was given: %s", plain(r.GetReason()))
	}
	l.say("If you do not know of it, ask there.")
	return true, nil
}

func (l *letter) actBegan(e *pb.ImpersonationBegan) (bool, error) {
	l.subject = "Somebody acts in your name"
	l.say("%s of %s has begun to act in your name, %s.",
		l.person(e.GetOrganizationId(), e.GetActorId()), l.organization(e.GetOrganizationId()), l.happened(e.GetOrganizationId()))
	if i, ok := impersonations.Get(l.tx, e.GetImpersonationId()); ok {
		l.say("It ends on %s at the latest. The reason that was given: %s", l.when(i.GetExpireTime().AsTime(), e.GetOrganizationId()), plain(i.GetReason()))
	}
	l.say("Whatever is done is written down with both names. If you do not know of it, ask there.")
	return true, nil
}

func (l *letter) linked(e *pb.OutsideLinked) (bool, error) {
	l.subject = "You can sign in in another way"
	l.say("Your account was linked with one at %s, which signs you in from now on, %s.", l.provider(e.GetProviderId()), l.happened(e.GetOrganizationId()))
	l.ifNotYou()
	return true, nil
}

func (l *letter) unlinked(e *pb.OutsideUnlinked) (bool, error) {
	l.subject = "A way to sign in has ended"
	l.say("The link of your account with one at %s was removed, %s. It does not sign you in any more.",
		l.provider(e.GetProviderId()), l.happened(e.GetOrganizationId()))
	l.say("If you do not know of it, ask your administrator.")
	return true, nil
}

func (l *letter) invited(e *pb.OutsideInvited) (bool, error) {
	i, ok := outsideInvitations.Get(l.tx, invitationKey(e.GetProviderId(), e.GetUserId()))
	if !ok || !i.GetExpireTime().AsTime().After(l.tx.Now()) {
		return false, nil
	}
	l.subject = "You are invited to sign in"
	l.say("%s invites you to sign in by %s, with the account that you have there under this address.",
		l.organization(e.GetOrganizationId()), l.provider(e.GetProviderId()))
	l.say("You can do so until %s.", l.when(i.GetExpireTime().AsTime(), e.GetOrganizationId()))
	l.lead("Sign in")
	l.say("If you do not know who that is, you need do nothing.")
	return true, nil
}
