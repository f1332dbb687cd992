// Package authz enforces the access rules that .proto files declare.
//
// A method says who may call it with (latchkey.authz.v1.rule), a field who may
// see and set it with (latchkey.authz.v1.guard), an enum value who may choose it with
// (latchkey.authz.v1.choose). [Compile] reads them once, when a server starts, and
// refuses a server that has a method without a rule or a rule that names an
// unknown grant. [Guard] then enforces them on every call, unary and stream, so that
// nothing in a handler repeats them.
//
// The order of checks is that of AIP-211: who is calling, the surface he signed in
// to, the plan, the keys, the content of the request, and only then whether the
// request is well formed and valid. So a caller who may not do a thing learns
// nothing else about it.
//
// What is always true:
//   - A method that was not registered is denied; there is no default that allows.
//   - A decision uses a session and grants only while the lease of their source is
//     held (package lease). Without one the answer is UNAVAILABLE.
//   - An error is not a denial and is never remembered.
//   - A stream is let in like a call, and lives only while its caller holds what its
//     rule and its messages asked for.
//   - A denial, and what a mutation was let in by, is on disk before the caller is
//     answered; where it cannot be, the call fails. Reads are counted.
//   - What leaves was redacted: a guarded field goes only to a caller who holds its
//     read grant.
package authz
