// Package decision keeps what was decided on calls, and counts what was used.
//
// A [Log] is kept for each service of a process, in that service's own store and under
// the organization of the caller. The guard (package authz) fills it, and [Server] shows it.
//
// What is always true:
//   - A decision is on disk before its call is answered. That of a call which changed
//     something is in the same commit as the first change.
//   - What was used is counted in memory and written every [FlushTime], and once more at
//     the end. What could not be written is kept and tried again; when too much of it
//     waits, calls that would add to it fail.
//   - Both go after store.KeepDays days, when the store prunes.
package decision
