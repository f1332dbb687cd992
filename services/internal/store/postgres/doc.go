// Package postgres is the store's engine for many processes: the tables of a database that
// speaks PostgreSQL's protocol. PostgreSQL, CockroachDB and YugabyteDB do.
//
// # What is in the database
//
// Each service has three tables, of which "v1" is the version:
//
//	<service>_records_v1    key, val     every pair of the store; bytes sort as in the other engines
//	<service>_tenants_v1    tenant, turn how many transactions each tenant has had
//	<service>_attempts_v1   id, done, at what became of commits, for as long as somebody may ask
//
// and all services of a database share one more:
//
//	latchkey_schema         service, version
//
// Open makes what is missing and refuses tables of a newer version.
//
// # What is always true
//
//   - An Update is one SERIALIZABLE transaction, a View one of REPEATABLE READ. Neither
//     begins before its first read. What is written goes to the database with the
//     commit, in one round trip.
//   - The Updates of one tenant in one process stand in a line. Those who wait while
//     a transaction runs are the members of the next: each sees what the members before it
//     wrote, and all share the commit. So a process never conflicts with itself
//     within a tenant, and a tenant that is much in use costs one commit for many Updates.
//     Conflicts with other processes are run again, after random pauses that grow,
//     and not forever. From the second time on the transaction begins by taking the
//     tenant's turn, so that it waits for the others instead of working in vain.
//   - A commit whose connection is lost is never guessed. It has written the row of its
//     attempt, under an id that is used once. The engine writes that row again, over
//     another connection: this waits for the old transaction if it still runs, tells
//     whether it has committed, keeps it from committing later if it has not, and
//     as it is a write, is acknowledged only when the commit before it is as safe
//     as itself. Only if no database tells within a minute is the outcome unknown.
//   - The engine asks the server to cancel nothing, a commit least of all.
package postgres
