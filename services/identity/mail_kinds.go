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
