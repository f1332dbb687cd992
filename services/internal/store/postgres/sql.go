package postgres

import (
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
)

// version is that of the tables that this program reads and writes.
const version = 1

// statements are what the engine says to the database, for the tables of one service. With
// the settings, and what schema.go has, they are all. doc.go lists them for the reader.
type statements struct {
	prepared                      [statementCount]string
	turns, resolve, forget, sweep string
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
	s = statements{
		turns: `SELECT tenant, turn FROM ` + tenants,
		resolve: `INSERT INTO ` + attempts + ` AS a (id, done) VALUES ($1, false)` +
			` ON CONFLICT (id) DO UPDATE SET at = now() RETURNING a.done`,
		forget: `DELETE FROM ` + attempts + ` WHERE id = ANY($1)`,
		sweep:  `DELETE FROM ` + attempts + ` WHERE at < now() - INTERVAL '1 day'`,
	}
	s.prepared = [statementCount]string{
		beginReadSQL:  `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`,
		beginWriteSQL: `BEGIN ISOLATION LEVEL REPEATABLE READ`,
		beginTurnSQL:  `BEGIN ISOLATION LEVEL READ COMMITTED`,
		commitSQL:     `COMMIT`,
		rollbackSQL:   `ROLLBACK`,
		getSQL:        `SELECT key, val FROM ` + records + ` WHERE key = $1`,
		getAllSQL:     `SELECT key, val FROM ` + records + ` WHERE key = ANY($1)`,
		scanSQL:       `SELECT key, val FROM ` + records + ` WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3`,
		scanBackSQL:   `SELECT key, val FROM ` + records + ` WHERE key >= $1 AND key < $2 ORDER BY key DESC LIMIT $3`,
		putSQL: `INSERT INTO ` + records + ` (key, val) SELECT unnest($1::bytea[]), unnest($2::bytea[])` +
			` ON CONFLICT (key) DO UPDATE SET val = excluded.val`,
		dropSQL: `DELETE FROM ` + records + ` WHERE key = ANY($1)`,
		turnSQL: `INSERT INTO ` + tenants + ` AS t (tenant, turn) VALUES ($1, 1)` +
			` ON CONFLICT (tenant) DO UPDATE SET turn = t.turn + 1 RETURNING t.turn`,
		attemptSQL: `INSERT INTO ` + attempts + ` (id, done) VALUES ($1, true)`,
		// Fails if there is no such row. Else nobody can delete it before the commit.
		fenceSQL: `SELECT 1 / count(*) FROM (SELECT key FROM ` + records + ` WHERE key = $1 FOR SHARE) AS held`,
	}
	return s, nil
}
