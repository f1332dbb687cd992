// Package scheduling plans visits and records how they went: who is sent out, when,
// and what it took.
//
// On disk are service agents, appointments, and the ids of service requests that
// were cancelled. Parts belong to invoicing, users to identity, service requests and
// properties to servicerequest; here are only their ids, checked when they came in.
// Where HTTP is on, a service agent's own schedule is there for calendar programs too (feed).
//
// What is always true, of which verify asks what one can see in the records (invariants.go):
//   - Two appointments of one service agent that are scheduled or in progress
//     never overlap. It is checked in the transaction that writes one of them, over
//     the index busy, and holds under any concurrency because transactions
//     are serializable. No appointment is longer than maxDuration, so the check reads a
//     bounded part of the index.
//   - An appointment that is scheduled or in progress has an active service agent.
//   - An appointment has a start time if and only if it has a service agent.
//   - No appointment of a cancelled service request is queued or scheduled, once the
//     cancellation has arrived here.
//   - When a service agent works is told from the server's clock and what is planned, and
//     from nothing that the service agent writes.
//   - What a caller may see is decided in one place, viewer: get, lists and every
//     change ask it, and what it hides answers like an id that does not exist.
package scheduling
