// Package server runs services as a process: it is all of main, and all that a
// service gets from the outside.
//
// A process is one listener with one or more parts behind it. Parts of one process
// talk to each other over a listener too, one in memory, and through the same
// interceptors as parts of several, so that one machine and five behave alike.
//
// What is always true:
//   - No method is served that has no access rule; the process does not start.
//   - No process says SERVING before it holds the leases of identity and permissions.
//   - Every call passes, in this order: metrics, edge (time limit, log, what the
//     caller may see of an error), recovery of panics, package authz's guard.
//   - Plaintext is spoken on loopback only.
//   - Where services have certificates (--peer-ca), no call of a service is taken that
//     does not come over a connection on which it has shown its own, or from within the
//     process; and none is made but to the service that shows its own.
//   - Stop lets running calls finish, with the calls that they make, and closes the
//     stores last.
package server
