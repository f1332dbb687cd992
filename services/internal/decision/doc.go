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
//     waits, calls that would add to it fail, and so do those for whom there is no cell.
//   - If the memory is a file ([Config].Counts), what a process had counted that was killed is
//     written by the next, once. See below.
//   - Both go after store.KeepDays days, when the store prunes.
//
// # The file of counts
//
// It is mapped, so what is counted is in it at the price of an addition, and outlives the
// process; nothing syncs it, so it does not outlive the machine. Its first 64 KiB are the
// [head]: what it is, of which boot of the machine and of which store. [cell]s of 256 bytes
// follow, each with what it counts of whom, which only grows, and two marks of how much of that is in the
// store. A transaction that writes counts has a generation, one more than that before,
// and commits it with them (store.SetCounted). Before it commits, each of its cells notes in the
// older mark what the store will have then, under that generation. So whoever finds the
// file believes of each cell the newest mark of a generation that the store has: what is
// above it is owed. If the store has neither the last generation that the head knows nor the
// next, they are not of one time, and the file is thrown away.
//
// A cell is given back when the garbage collector finds that no session can count in it
// any more, and used again once nothing of it is owed.
package decision
