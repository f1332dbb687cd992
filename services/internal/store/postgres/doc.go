// Package postgres is the store's engine for many processes: the tables of a database that
// speaks PostgreSQL's protocol. PostgreSQL, CockroachDB and YugabyteDB do.
//
// # What is in the database
//
// Each service has three tables, so that one database serves all of them; "v1" is the
// version of the tables:
//
//	<service>_records_v1    key, val      every pair of the store; bytes sort as in the other engines
//	<service>_tenants_v1    tenant, turn  how many transactions each tenant has had
//	<service>_attempts_v1   id, done, at  what became of commits, for as long as somebody may ask
//
// and all services of a database share one more:
//
//	latchkey_schema         service, version
//
// Open makes what is missing, upgrades what is older and refuses what is newer.
//
// # What is always true
//
//   - The Updates of one tenant are serializable, over all processes. Each transaction
//     that writes takes the tenant's next turn, by writing one row: two that
//     overlap both write it, and the database lets only one of them commit. What
//     different tenants have are different keys, and a View reads one snapshot.
//   - The Updates of one tenant in one process stand in a line. Those who wait while
//     a transaction runs are the members of the next: each sees what the members
//     before it wrote, and all share the commit. So a process never conflicts with
//     itself, and many Updates of a tenant cost one commit.
//   - After a conflict with another process the transaction runs again, and begins by
//     taking the turn: it waits for those who have it, one after the other, and
//     cannot lose it again. Only a database that fails otherwise is tried again
//     after random pauses that grow, and not forever.
//   - No transaction begins before its first read, or ends later than its commit: a
//     read is one round trip, and so is the commit with all that was written.
//   - A commit whose connection is lost is never guessed. It has written the row of its
//     attempt, under an id that is used once. The engine writes that row again, over
//     another connection: this waits for the old transaction if it still runs, tells
//     whether it has committed, keeps it from committing later if it has not, and
//     as it is a write, is acknowledged only when the commit before it is as safe
//     as itself. Only if no database tells within a minute is the outcome unknown.
//   - The engine asks the server to cancel nothing, a commit least of all, and a caller
//     who goes away ends no statement.
//   - A fenced Update reads its fence in the round trip of its commit, and locks that row
//     against deletion until it has committed. Whoever deletes it waits for that.
//   - What other processes commit is found by reading the turns, five times a second
//     while somebody listens: [store.DB.Changed] is that much later for them.
//
// Why not the isolation level SERIALIZABLE: it finds conflicts by the pages of the index,
// and small tenants share pages. With 100 tenants and 16 callers PostgreSQL undid 30
// of 100 transactions, none of which had met another's record, and needed 1.8 times
// the processor time. The turn says the same of exactly those who share a tenant.
//
// # The URL
//
// It is that of libpq and pgx: sslmode, sslrootcert, sslcert, sslkey, connect_timeout,
// target_session_attrs (read-write, with several hosts), pool_max_conns and its like, and
// any setting of a session. Where it does not say otherwise a database that is not on
// this machine must prove who it is (sslmode=verify-full), a service has 10
// connections, and a process that hangs inside a transaction holds up others for 10
// seconds (idle_in_transaction_session_timeout). A password is better kept in PGPASSWORD
// or a file that PGPASSFILE names. A pooler in between must keep sessions (PgBouncer's
// pool_mode = session).
//
// On PostgreSQL a key of more than about 2,600 bytes that do not compress is refused. On
// YugabyteDB the database must be created WITH COLOCATION = true, or
// yb_use_hash_splitting_by_default=off be in the URL, so that keys are kept in their order.
//
// # Failover
//
// With several hosts and target_session_attrs=read-write the engine finds the server that
// was promoted by itself. What was acknowledged survives if the primary waits for its
// standby (synchronous_standby_names, with synchronous_commit on); with an asynchronous
// standby it can be lost, whatever the engine does.
//
// A primary that was replaced and comes back still takes itself for one. A connection to one of
// several hosts is used only when a write over it was acknowledged, and such a primary
// acknowledges nothing, since its standby follows another: so no process reads the past
// from it, and what is written there was never acknowledged. That needs its setting of
// synchronous_standby_names to be still there. Against a primary that was only frozen
// or cut off while another was promoted nothing here helps: over connections that it still
// has it answers reads with the past. Whoever promotes must end it first.
//
// # Statements
//
// These are all, for the tables of a service, and nothing in them differs between the
// three databases:
//
//	CREATE TABLE IF NOT EXISTS latchkey_schema (service text PRIMARY KEY, version bigint NOT NULL)
//	SELECT version FROM latchkey_schema WHERE service = $1
//	INSERT INTO latchkey_schema (service, version) VALUES ($1, $2) ON CONFLICT (service) DO NOTHING
//	UPDATE latchkey_schema SET version = $2 WHERE service = $1 AND version = $3
//	CREATE TABLE IF NOT EXISTS records (key bytea PRIMARY KEY, val bytea NOT NULL)
//	CREATE TABLE IF NOT EXISTS tenants (tenant bytea PRIMARY KEY, turn bigint NOT NULL)
//	CREATE TABLE IF NOT EXISTS attempts (id bytea PRIMARY KEY, done boolean NOT NULL, at timestamptz NOT NULL DEFAULT now())
//	BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY
//	BEGIN ISOLATION LEVEL REPEATABLE READ
//	BEGIN ISOLATION LEVEL READ COMMITTED
//	COMMIT
//	ROLLBACK
//	SELECT key, val FROM records WHERE key = $1
//	SELECT key, val FROM records WHERE key = ANY($1)
//	SELECT key, val FROM records WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3
//	SELECT key, val FROM records WHERE key >= $1 AND key < $2 ORDER BY key DESC LIMIT $3
//	INSERT INTO records (key, val) SELECT unnest($1::bytea[]), unnest($2::bytea[]) ON CONFLICT (key) DO UPDATE SET val = excluded.val
//	DELETE FROM records WHERE key = ANY($1)
//	INSERT INTO tenants AS t (tenant, turn) VALUES ($1, 1) ON CONFLICT (tenant) DO UPDATE SET turn = t.turn + 1 RETURNING t.turn
//	SELECT tenant, turn FROM tenants
//	INSERT INTO attempts (id, done) VALUES ($1, true)
//	SELECT 1 / count(*) FROM (SELECT key FROM records WHERE key = $1 FOR SHARE) AS held
//	INSERT INTO attempts AS a (id, done) VALUES ($1, false) ON CONFLICT (id) DO UPDATE SET at = now() RETURNING a.done
//	DELETE FROM attempts WHERE id = ANY($1)
//	DELETE FROM attempts WHERE at < now() - INTERVAL '1 day'
//	SET enable_seqscan = off
//	SET enable_bitmapscan = off
//	SET plan_cache_mode = force_generic_plan
//	SET idle_in_transaction_session_timeout = '10s'
//
// The settings are PostgreSQL's; a database that does not know one refuses it, and goes on.
package postgres
