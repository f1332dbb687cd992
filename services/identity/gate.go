package identity

import (
	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// path is a way on which a credential is issued or accepted.
type path string

const (
	pathSignIn   path = "sign in with a password" // CreateSession
	pathSession  path = "show a session's token"  // ResolveSession
	pathPassword path = "change the password"     // ChangePassword
	pathClaim    path = "claim the suite"         // ClaimOwnership
)

// subject is for whom a credential is to be issued or accepted, and by what.
type subject struct {
	organization string
	user         string
	session      string // that is shown, or that asks for another credential
	password     string // the kept hash that the password belonged to when it was checked
	code         string // one-time code of the suite
}

// block is a state in which nobody is let in on certain paths.
type block struct {
	name  string
	on    []path
	holds func(tx *store.Tx, s subject) bool
	// refusal is what the caller is told; nil for what the path tells on any block.
	refusal func() error
}

// members are the paths for which one has to be an active member.
var members = []path{pathSignIn, pathSession, pathPassword}

// blocks is the whole table. TestGate tries each path of each block, before and after
// a restart.
var blocks = []block{
	{name: "one-time code wrong", on: []path{pathClaim}, holds: codeWrong},
	{name: "suite owned", on: []path{pathClaim}, holds: suiteOwned, refusal: claimed},
	{name: "organization unknown", on: members, holds: organizationUnknown},
	{name: "person deleted", on: members, holds: personDeleted},
	{name: "membership ended", on: members, holds: membershipEnded},
	{name: "user deactivated", on: members, holds: userDeactivated},
	{name: "session ended", on: []path{pathSession, pathPassword}, holds: sessionEnded, refusal: credentialsInvalid},
	{name: "session expired", on: []path{pathSession, pathPassword}, holds: sessionExpired, refusal: credentialsInvalid},
	{name: "password changed", on: []path{pathSignIn, pathPassword}, holds: passwordChanged},
}

// refusals are what a path tells on any block that tells nothing of its own.
var refusals = map[path]func() error{
	pathSignIn:   signInFailed,
	pathSession:  credentialsInvalid,
	pathPassword: wrongPassword,
	pathClaim:    wrongCode,
}

// admit is the one gate: whatever issues a credential and whatever accepts one asks
// it, in the transaction in which it does so.
func admit(tx *store.Tx, s subject, p path) error {
	for i := range blocks {
		b := &blocks[i]
		if !b.isOn(p) || !b.holds(tx, s) {
			continue
		}
		if b.refusal != nil {
			return b.refusal()
		}
		return refusals[p]()
	}
	return tx.Failed()
}

func (b *block) isOn(p path) bool {
	for _, on := range b.on {
		if on == p {
			return true
		}
	}
	return false
}

func codeWrong(tx *store.Tx, s subject) bool {
	claim, ok := claims.Get(tx, claimID)
	return !ok || !codeMatches(claim, s.code)
}

func suiteOwned(tx *store.Tx, _ subject) bool {
	claim, _ := claims.Get(tx, claimID)
	return claim.GetFinishTime() != nil
}

func organizationUnknown(tx *store.Tx, s subject) bool { return !organizations.Has(tx, s.organization) }

func personDeleted(tx *store.Tx, s subject) bool { return !profiles.Has(tx, s.user) }

func membershipEnded(tx *store.Tx, s subject) bool {
	_, err := member(tx, s.organization, s.user)
	return err != nil
}

func userDeactivated(tx *store.Tx, s subject) bool {
	u, err := member(tx, s.organization, s.user)
	return err != nil || u.GetState() != active
}

func sessionEnded(tx *store.Tx, s subject) bool {
	session, ok := sessions.Get(tx, s.session)
	return !ok || session.GetUserId() != s.user
}

func sessionExpired(tx *store.Tx, s subject) bool {
	session, ok := sessions.Get(tx, s.session)
	return !ok || !session.GetExpireTime().AsTime().After(tx.Now())
}

func passwordChanged(tx *store.Tx, s subject) bool {
	kept, ok := credentials.Get(tx, s.user)
	return !ok || kept.GetPasswordHash() != s.password
}

func credentialsInvalid() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID,
		"the credentials are not valid, or not any more: sign in again", nil)
}
