// Package fault makes the errors that callers of the suite see.
//
// A handler returns one of the constructors' errors: Invalid, NotFound, Exists,
// Stale, Refused and their like. Each carries a status code, a sentence for a
// person, and an ErrorInfo with a stable reason of
// latchkey.fault.v1.Reason for a program. Any other error means that the suite is at
// fault: [Seal] logs it and tells the caller only that, with the request id.
//
// What is always true: nothing that a caller sent is answered with INTERNAL, and
// no text of an error that the suite did not make for callers leaves it.
package fault
