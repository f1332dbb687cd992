package identity

import (
	"bytes"
	"encoding/hex"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// path is a way on which a credential is issued or accepted.
type path string

const (
	pathSignIn    path = "sign in with a password"         // CreateSession
	pathChallenge path = "show a password for a challenge" // CreateSession
	pathAnswer    path = "answer a challenge"              // AnswerChallenge
	pathPasskey   path = "sign in with a passkey"          // AnswerChallenge
	pathStepUp    path = "step up a session"               // AnswerChallenge
	pathSession   path = "show a session's token"          // ResolveSession
	pathRenew     path = "refresh a session"               // RefreshSession
	pathKey       path = "show an API key's token"         // ResolveSession
	pathBrandKey  path = "show a brand's API key"          // ResolveSession
	pathPassword  path = "change the password"             // ChangePassword
	pathFactor    path = "change a second factor"          // FactorService
	pathConfirm   path = "confirm a second factor"         // ConfirmTotp, CreatePasskey
	pathNewKey    path = "make an API key"                 // CreateApiKey, RotateApiKey
	pathAct       path = "act for another"                 // ImpersonateUser
	pathActing    path = "show an actor's token"           // ResolveSession
	pathClaim     path = "claim the suite"                 // ClaimOwnership
	pathClose     path = "close a brand"                   // CloseBrand, whose answer reopens it
	pathReopen    path = "reopen a brand"                  // ReopenBrand

	pathProvider  path = "configure an outside provider"  // CreateOutsideProvider, UpdateOutsideProvider
	pathInvite    path = "manage how others sign in"      // InviteToOutsideProvider, DeleteUserOutsideLink
	pathLink      path = "link an account of a provider"  // OutsideLinkService
	pathOutside   path = "sign in by a provider"          // CompleteOutsideSignIn
	pathElsewhere path = "do what is sensitive elsewhere" // CheckStepUp

	pathIssueReset path = "hand out a code for a password" // IssuePasswordReset
	pathReset      path = "reset a password"               // ResetPassword

	pathTakeFactor path = "take a factor from another" // RemoveUserFactor

	pathNewClient   path = "make an OAuth client"              // CreateOauthClient, UpdateOauthClient, RotateOauthClientSecret
	pathProve       path = "prove an OAuth client"             // every endpoint that clients call
	pathKeyAsClient path = "exchange an API key"               // the token endpoint
	pathMachine     path = "issue a token to a client"         // the token endpoint, client credentials
	pathMachineCall path = "show the token of a client"        // ResolveSession
	pathAuthorize   path = "let a client in"                   // the authorization endpoint, the pages of consent and of devices
	pathRedeem      path = "redeem a code"                     // the token endpoint, also of devices
	pathRefresh     path = "renew tokens"                      // the token endpoint
	pathClientCall  path = "show a token of a client's person" // ResolveSession

	pathConnect  path = "connect a calendar"      // ConnectCalendar
	pathCalendar path = "show a calendar's token" // ResolveSession
)

// subject is for whom a credential is to be issued or accepted, and by what.
type subject struct {
	organization string
	user         string
	session      string // that is shown, or that asks for another credential
	delegated    bool   // that session is an API key's, or of somebody who acts for the user
	apiKey       string // that is shown
	brand        string // whose key that is, if it is a brand's
	named        string // organization that the call names, or empty
	actor        string // who acts in the user's name, in session, and calls by actorSession
	actorSession string
	password     []byte      // passwordMark of the hash that the password belonged to when it was checked
	short        bool        // that password does not do alone
	code         string      // one-time code of the suite
	resetCode    []byte      // typedHash of a code for a password
	challenge    []byte      // id of the challenge that is answered
	factor       pb.Factor   // that answers it
	setup        bool        // which sets that factor up
	shown        []pb.Factor // all that was proven for a sign-in
	hours        *hours      // when the app may be used, if it was just asked
	refresh      string      // id of the refresh token that is shown
	requestID    string      // by which it is
	reopening    string      // id of what the shown code reopens

	calendar string // connection whose token is shown
	provider string // outside one that has shown a factor; empty if none has
	link     string // by which it has

	client       string // of OAuth
	clientSecret string // SHA-256 of what the client proves itself with
	keyToken     string // id of the token that an API key is shown with in place of a client
	accessToken  string // id of the access token that is shown
	authCode     string // id of the code that is redeemed
}

// block is a state in which nobody is let in on certain paths.
type block struct {
	name  string
	on    []path
	holds func(tx *store.Tx, s subject) bool
	// refusal is what the caller is told; nil for what the path tells on any block.
	refusal func() error
	// tells is refusal where it depends on whom it is told.
	tells func(tx *store.Tx, s subject) error
}

var (
	// members are the paths for which one has to be an active member.
	members = append([]path{pathSignIn, pathChallenge, pathAnswer, pathPasskey, pathOutside, pathKey, pathBrandKey, pathKeyAsClient, pathMachine, pathMachineCall, pathCalendar}, bySession...)
	// issuing are those on which somebody signed in gets or changes a credential.
	issuing = append([]path{pathPassword, pathConnect}, sensitive...)
	// sensitive are those of them for which something must have been proven lately. Who
	// changes the password proves it in the same call.
	sensitive = []path{pathFactor, pathConfirm, pathNewKey, pathAct, pathNewClient, pathIssueReset, pathTakeFactor, pathClose, pathProvider, pathInvite, pathLink, pathElsewhere}
	// bySession are those on which a session is what lets in.
	bySession = append([]path{pathSession, pathActing, pathStepUp, pathRenew, pathAuthorize, pathRedeem, pathRefresh, pathClientCall}, issuing...)
	// answering are those on which a challenge is answered, or what is like one.
	answering = []path{pathAnswer, pathPasskey, pathStepUp, pathConfirm}
	// personal are those on which it is the person who comes in, and no machine.
	personal = append([]path{pathSignIn, pathChallenge, pathAnswer, pathPasskey, pathOutside, pathCalendar}, bySession...)
	// byProvider are those on which it may be by the word of an outside provider.
	byProvider = []path{pathOutside, pathChallenge, pathAnswer}
	// byKey are those on which an API key is what lets in, byClient those on which an
	// OAuth client has to be there.
	byKey    = []path{pathKey, pathBrandKey, pathKeyAsClient}
	byClient = []path{pathProve, pathMachine, pathMachineCall, pathAuthorize, pathRedeem, pathRefresh, pathClientCall}
	// admitting are those on which a client is let in by a person, or goes on as such.
	admitting = []path{pathAuthorize, pathRedeem, pathRefresh, pathClientCall}
	// proving are those on which an OAuth client proves itself, calling those on which an
	// access token is shown.
	proving = []path{pathProve, pathMachine, pathRedeem, pathRefresh}
	calling = []path{pathSession, pathKey, pathMachineCall, pathClientCall}
)

// blocks is the whole table. TestGate tries each path of each block, before and after
// a restart.
var blocks = []block{
	{name: "one-time code wrong", on: []path{pathClaim}, holds: codeWrong},
	{name: "suite owned", on: []path{pathClaim}, holds: suiteOwned, refusal: claimed},
	{name: "reopening code wrong", on: []path{pathReopen}, holds: reopeningUnknown},
	{name: "organization not named", on: []path{pathBrandKey}, holds: unnamed, refusal: organizationUnnamed},
	{name: "another brand's organization", on: []path{pathBrandKey}, holds: ofOtherBrand, refusal: organizationRefused},
	{name: "organization unknown", on: members, holds: organizationUnknown},
	{name: "organization suspended", on: members, holds: organizationSuspended},
	{name: "organization closed", on: members, holds: organizationClosed},
	{name: "brand closed", on: members, holds: brandClosed},
	{name: "person deleted", on: append([]path{pathReset}, members...), holds: personDeleted},
	{name: "membership ended", on: members, holds: membershipEnded},
	{name: "user deactivated", on: members, holds: userDeactivated},
	{name: "service account", on: personal, holds: isServiceAccount},
	{name: "not in person", on: issuing, holds: notInPerson, refusal: inPersonOnly},
	{name: "session ended", on: bySession, holds: sessionEnded, refusal: credentialsInvalid},
	{name: "session expired", on: bySession, holds: sessionExpired, refusal: credentialsInvalid},
	{name: "session left idle", on: bySession, holds: sessionIdle, refusal: credentialsInvalid},
	{name: "code for a password wrong", on: []path{pathReset}, holds: resetWrong},
	{name: "code for a password expired", on: []path{pathReset}, holds: resetExpired},
	{name: "refresh token unknown", on: []path{pathRenew}, holds: refreshUnknown},
	{name: "refresh token exchanged", on: []path{pathRenew}, holds: refreshSpent, refusal: refreshReused},
	{name: "surface closed", on: admitting, holds: surfaceClosed},
	{name: "outside hours", on: personal, holds: outsideHours, tells: tellHours},
	{name: "key revoked", on: byKey, holds: keyNotActive},
	{name: "key expired", on: byKey, holds: keyExpired},
	{name: "key not proven", on: []path{pathKeyAsClient}, holds: keyTokenWrong},
	{name: "calendar disconnected", on: []path{pathCalendar}, holds: calendarEnded},
	{name: "client deleted", on: byClient, holds: clientGone},
	{name: "client not proven", on: proving, holds: secretWrong},
	{name: "code spent", on: []path{pathRedeem}, holds: codeSpent},
	{name: "access token expired", on: calling, holds: accessExpired},
	{name: "actor shut out", on: []path{pathActing}, holds: actorShutOut},
	{name: "another organization named", on: append([]path{pathActing, pathCalendar}, calling...), holds: otherNamed, refusal: organizationRefused},
	{name: "password changed", on: []path{pathSignIn, pathChallenge, pathAnswer, pathPassword}, holds: passwordChanged},
	{name: "challenge answered", on: answering, holds: challengeSpent},
	{name: "factor removed", on: []path{pathAnswer, pathPasskey, pathStepUp}, holds: factorRemoved, refusal: proofWrong},
	{name: "provider deleted", on: byProvider, holds: providerDeleted},
	{name: "provider disabled", on: byProvider, holds: providerDisabled},
	{name: "provider of another organization", on: byProvider, holds: providerElsewhere},
	{name: "link removed", on: byProvider, holds: linkRemoved},
	{name: "address of another domain", on: byProvider, holds: addressForeign},
	{name: "second factor not shown", on: []path{pathSignIn, pathOutside}, holds: secondFactorMissing},
	{name: "second factor not shown in the session", on: issuing, holds: sessionWeak, refusal: stepUpWeak},
	{name: "proven by a provider alone", on: []path{pathFactor, pathConfirm, pathLink}, holds: providerNarrow, refusal: stepUpOwn},
	{name: "nothing proven lately", on: sensitive, holds: proofStale, refusal: stepUpStale},
}

// refusals are what a path tells on any block that tells nothing of its own.
var refusals = map[path]func() error{
	pathSignIn:    signInFailed,
	pathChallenge: signInFailed,
	pathAnswer:    challengeOver,
	pathPasskey:   challengeOver,
	pathStepUp:    challengeOver,
	pathSession:   credentialsInvalid,
	pathRenew:     credentialsInvalid,
	pathKey:       credentialsInvalid,
	pathBrandKey:  credentialsInvalid,
	pathPassword:  wrongPassword,
	pathFactor:    credentialsInvalid,
	pathConfirm:   challengeOver,
	pathNewKey:    credentialsInvalid,
	pathAct:       credentialsInvalid,
	pathActing:    credentialsInvalid,
	pathClaim:     wrongCode,
	pathClose:     credentialsInvalid,
	pathElsewhere: credentialsInvalid,
	pathReopen:    wrongReopenCode,

	pathProvider: credentialsInvalid,
	pathInvite:   credentialsInvalid,
	pathLink:     credentialsInvalid,
	pathOutside:  outsideFailed,

	pathIssueReset: credentialsInvalid,
	pathTakeFactor: credentialsInvalid,
	pathReset:      resetFailed,

	pathNewClient:   credentialsInvalid,
	pathProve:       invalidClient,
	pathKeyAsClient: invalidClient,
	pathMachine:     invalidClient,
	pathMachineCall: credentialsInvalid,
	pathAuthorize:   invalidGrant,
	pathRedeem:      invalidGrant,
	pathRefresh:     invalidGrant,
	pathClientCall:  credentialsInvalid,

	pathConnect:  credentialsInvalid,
	pathCalendar: credentialsInvalid,
}

// admit is the one gate: whatever issues a credential and whatever accepts one asks
// it, in the transaction in which it does so.
func admit(tx *store.Tx, s subject, p path) error {
	for i := range blocks {
		b := &blocks[i]
		if !b.isOn(p) || !b.holds(tx, s) {
			continue
		}
		if b.tells != nil {
			return b.tells(tx, s)
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

func organizationSuspended(tx *store.Tx, s subject) bool {
	o, ok := organizations.Get(tx, s.organization)
	return !ok || o.GetState() == suspended
}

func organizationClosed(tx *store.Tx, s subject) bool {
	o, ok := organizations.Get(tx, s.organization)
	return !ok || o.GetDeleteTime() != nil
}

func brandClosed(tx *store.Tx, s subject) bool {
	o, _ := organizations.Get(tx, s.organization)
	b, ok := brands.Get(tx, o.GetBrandId())
	return !ok || b.GetDeleteTime() != nil
}

// reopeningUnknown holds when a code reopens nothing, or not any more.
func reopeningUnknown(tx *store.Tx, s subject) bool {
	r, ok := reopenings.Get(tx, s.reopening)
	b, known := brands.Get(tx, r.GetBrandId())
	return !ok || !known || b.GetDeleteTime() == nil || purgeDue(tx, b)
}

// personDeleted holds when there is nobody with the user's id in the suite, or not any more.
func personDeleted(tx *store.Tx, s subject) bool {
	return !profiles.Has(tx, s.user) && !isServiceAccount(tx, s)
}

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

func notInPerson(_ *store.Tx, s subject) bool { return s.delegated }

func keyNotActive(tx *store.Tx, s subject) bool {
	key, ok := apiKeys.Get(tx, s.apiKey)
	return !ok || key.GetState() != keyActive
}

func keyExpired(tx *store.Tx, s subject) bool {
	key, ok := apiKeys.Get(tx, s.apiKey)
	return !ok || hasExpired(tx, key)
}

// accessExpired holds when a token that lives for a while has.
func accessExpired(tx *store.Tx, s subject) bool {
	t, ok := tokens.Get(tx, s.accessToken)
	return ok && t.GetExpireTime() != nil && !t.GetExpireTime().AsTime().After(tx.Now())
}

// actorShutOut holds when whoever acts could not call in his own name.
func actorShutOut(tx *store.Tx, s subject) bool {
	actor := subject{organization: s.organization, user: s.actor, session: s.actorSession}
	return personDeleted(tx, actor) || userDeactivated(tx, actor) || sessionEnded(tx, actor) || sessionExpired(tx, actor)
}

func passwordChanged(tx *store.Tx, s subject) bool {
	if len(s.password) == 0 && len(s.shown) > 0 && s.shown[0] != factorPassword {
		return false // nor was one shown
	}
	kept, ok := credentials.Get(tx, s.user)
	return !ok || !bytes.Equal(passwordMark(kept.GetPasswordHash()), s.password)
}

func challengeSpent(tx *store.Tx, s subject) bool {
	return spentChallenges.Has(tx, hex.EncodeToString(s.challenge))
}

// factorRemoved holds when what answers a challenge is not the person's any more, or when
// it would be set up although another was meanwhile.
func factorRemoved(tx *store.Tx, s subject) bool {
	if s.setup {
		return hasSecondFactor(tx, s.user)
	}
	return !hasFactor(tx, s.user, s.factor)
}

// secondFactorMissing holds when a password alone is shown and does not do.
func secondFactorMissing(tx *store.Tx, s subject) bool {
	return strengthOf(s.shown) != multiFactor && (s.short || hasSecondFactor(tx, s.user) || demandsSecondFactor(tx, s.organization))
}

// callerAsSubject is who asks for a credential with the session of a call.
func callerAsSubject(c *authz.Principal) subject {
	return subject{organization: c.Organization, user: c.ID, session: c.SessionID, delegated: !c.InPerson()}
}

// inPersonOnly is what an API key is told, and whoever acts for another, that asks for
// what is the person's own.
func inPersonOnly() error {
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_IN_PERSON_ONLY,
		"only the person may do this, signed in: not an API key, and nobody who acts in the person's name", nil)
}

func credentialsInvalid() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID,
		"the credentials are not valid, or not any more: sign in again", nil)
}
