// Package identity knows who is calling, for which organization, from where, and
// whether still.
//
// A person has one Profile and one password in the suite, and is a User, that is a
// member, of any number of organizations, with a name and a state in each. A
// Session is one sign-in of a person to one organization; its token is shown once.
// An ApiKey lets a program call as its maker, within its scopes, or as a service account,
// which is a User without a Profile; one of a brand acts in the organization that each call
// names. An Impersonation is a short session that somebody else has in a user's name.
//
// On disk everything is in one tenant, "directory", because people and sessions span
// organizations: the records of proto/latchkey/identity/v1, and what is never
// shown, of proto/latchkey/identity/store/v1. The id of a user's record is
// "<organization>/<user>", so a handler that looks a user up in the caller's
// organization cannot find another's.
//
// A sign-in is a row of proofs. The first may be followed by a challenge, whose secret is
// all that there is of it: sealed, it holds what was proven, so that nothing is kept
// until it is answered. Wrong proofs are counted in the store, before they are looked at.
//
// Where HTTP is on, the service is an authorization server and an OpenID provider, and
// its pages drive the API as any client does: docs/oauth.md. An access token is known by
// its hash, as every token is.
//
// What people are told by e-mail waits in another tenant, "mail", until a server has taken
// it: docs/mail.md.
//
// What is always true, of which verify asks what one can see in the records (invariants.go):
//   - No password, token or one-time code is on disk or in a journal, only its hash. What
//     has to be read again, as the secret of an authenticator app, is sealed with a key
//     that is not in the store.
//     A request is cleared of them before the store hashes it (withoutSecrets).
//   - Everything that issues or accepts a credential passes admit, whose table says
//     what blocks which path.
//   - An API key, and whoever acts for another, gets and changes no credential.
//   - When a call that shuts somebody out has returned, no service accepts the
//     person's sessions: each such call goes through shutOut.
//   - Whoever has a second factor gets no session by a password alone, and a session
//     does what is worth stealing it for only shortly after something was proven in it.
//   - A service agent whose hours are bounded uses the app only within them; what a
//     session may be used for is known from what was asked last, and kept with it (hours).
//   - An unknown person costs a sign-in the same work and gets the same answer as a
//     wrong password. No organization learns whom another one knows.
package identity
