package postgres

import (
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
)

// version is that of the tables that this program reads and writes.
const version = 1

// statements are all that the engine ever says to the database, for the tables of one
// service. doc.go lists them for the reader, and a test that they are no others.
type statements struct {
	beginRead, beginWrite, beginTurn, commit, rollback string

	get, getAll, scan, scanBack string // of records
	put, drop                   string

	turn, turns              string // of tenants
	attempt, resolve, forget string // of attempts
	sweep                    string
}

// settings are made on each connection. A database that does not know one goes without.
var settings = map[string]string{
	// Every statement finds its rows by the primary key. The planner, who knows nothing of
	// a new table, may think otherwise, and once for each execution.
	"enable_seqscan":    `SET enable_seqscan = off`,
	"enable_bitmapscan": `SET enable_bitmapscan = off`,
	"plan_cache_mode":   `SET plan_cache_mode = force_generic_plan`,
	// A process that hangs inside a transaction holds others up for no longer.
	"idle_in_transaction_session_timeout": `SET idle_in_transaction_session_timeout = '10s'`,
}

var tableName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

func statementsFor(service string) (s statements, err error) {
	if !tableName.MatchString(service) {
		return s, fmt.Errorf("service %q cannot be part of a table's name", service)
	}
	table := func(kind string) string {
		return pgx.Identifier{fmt.Sprintf("%s_%s_v%d", service, kind, version)}.Sanitize()
	}
	records, tenants, attempts := table("records"), table("tenants"), table("attempts")
	return statements{
		beginRead:  `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`,
		beginWrite: `BEGIN ISOLATION LEVEL REPEATABLE READ`,
		beginTurn:  `BEGIN ISOLATION LEVEL READ COMMITTED`,
		commit:     `COMMIT`,
		rollback:   `ROLLBACK`,

		get:      `SELECT key, val FROM ` + records + ` WHERE key = $1`,
		getAll:   `SELECT key, val FROM ` + records + ` WHERE key = ANY($1)`,
		scan:     `SELECT key, val FROM ` + records + ` WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3`,
		scanBack: `SELECT key, val FROM ` + records + ` WHERE key >= $1 AND key < $2 ORDER BY key DESC LIMIT $3`,
		put: `INSERT INTO ` + records + ` (key, val) SELECT unnest($1::bytea[]), unnest($2::bytea[])` +
			` ON CONFLICT (key) DO UPDATE SET val = excluded.val`,
		drop: `DELETE FROM ` + records + ` WHERE key = ANY($1)`,

		turn: `INSERT INTO ` + tenants + ` AS t (tenant, turn) VALUES ($1, 1)` +
			` ON CONFLICT (tenant) DO UPDATE SET turn = t.turn + 1 RETURNING t.turn`,
		turns: `SELECT tenant, turn FROM ` + tenants,

		attempt: `INSERT INTO ` + attempts + ` (id, done) VALUES ($1, true)`,
		resolve: `INSERT INTO ` + attempts + ` AS a (id, done) VALUES ($1, false)` +
			` ON CONFLICT (id) DO UPDATE SET at = now() RETURNING a.done`,
		forget: `DELETE FROM ` + attempts + ` WHERE id = ANY($1)`,
		sweep:  `DELETE FROM ` + attempts + ` WHERE at < now() - INTERVAL '1 day'`,
	}, nil
}
