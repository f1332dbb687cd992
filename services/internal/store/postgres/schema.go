package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"latchkey.dev/services/internal/store"
)

// layouts are the versions of the tables of a service, the first being version 1. Each
// gives the statements that lead from the version before to it. They may run
// more than once, and in several processes at the same time.
var layouts = []func(service string) []string{layout1}

func layout1(service string) []string {
	table := func(kind string) string {
		return `CREATE TABLE IF NOT EXISTS ` + pgx.Identifier{service + "_" + kind + "_v1"}.Sanitize()
	}
	return []string{
		table("records") + ` (key bytea PRIMARY KEY, val bytea NOT NULL)`,
		table("tenants") + ` (tenant bytea PRIMARY KEY, turn bigint NOT NULL)`,
		table("attempts") + ` (id bytea PRIMARY KEY, done boolean NOT NULL, at timestamptz NOT NULL DEFAULT now())`,
	}
}

// The version of each service's tables is in a table that all services share.
const (
	createVersions = `CREATE TABLE IF NOT EXISTS latchkey_schema (service text PRIMARY KEY, version bigint NOT NULL)`
	readVersion    = `SELECT version FROM latchkey_schema WHERE service = $1`
	firstVersion   = `INSERT INTO latchkey_schema (service, version) VALUES ($1, $2) ON CONFLICT (service) DO NOTHING`
	nextVersion    = `UPDATE latchkey_schema SET version = $2 WHERE service = $1 AND version = $3`
)

// prepareLimit is how long the tables may take to be made, or to be upgraded.
const prepareLimit = 5 * time.Minute

// prepare makes the tables those of the newest of the layouts, and reports whether they
// did not exist before. Several processes may do so at the same time.
func prepare(ctx context.Context, config *pgxpool.Config, service string, layouts []func(string) []string, how store.Opening) (created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	connConfig := config.ConnConfig.Copy()
	if err := config.BeforeConnect(ctx, connConfig); err != nil {
		return false, err
	}
	conn, err := pgx.ConnectConfig(ctx, connConfig)
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx)
	for n := 0; n < tries; n++ {
		created, err = upgrade(ctx, conn, service, layouts, how)
		if !concurrent(err) {
			break
		}
		if err := pause(ctx, n); err != nil {
			return false, err
		}
	}
	return created, err
}

func upgrade(ctx context.Context, conn *pgx.Conn, service string, layouts []func(string) []string, how store.Opening) (created bool, err error) {
	var found int64
	err = conn.QueryRow(ctx, readVersion, service).Scan(&found)
	none := codeOf(err) == undefinedTable
	switch {
	case how == store.KeepMissing && (none || errors.Is(err, pgx.ErrNoRows)):
		return false, store.ErrMissing
	case none:
		if _, err := conn.Exec(ctx, createVersions); err != nil {
			return false, err
		}
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return false, err
	}
	newest := int64(len(layouts))
	if found > newest {
		return false, fmt.Errorf("its tables are of version %d, made by a newer program; this one knows version %d", found, newest)
	}
	for _, layout := range layouts[found:] {
		for _, statement := range layout(service) {
			if _, err := conn.Exec(ctx, statement); err != nil {
				return false, err
			}
		}
	}
	if found == newest {
		return false, nil
	}
	var tag pgconn.CommandTag
	if found == 0 {
		tag, err = conn.Exec(ctx, firstVersion, service, newest)
	} else {
		tag, err = conn.Exec(ctx, nextVersion, service, newest, found)
	}
	return found == 0 && tag.RowsAffected() == 1, err
}

// concurrent reports whether the error may be due to another process that makes the same
// tables.
func concurrent(err error) bool {
	switch codeOf(err) {
	case uniqueViolation, duplicateTable, duplicateObject, undefinedTable:
		return true
	}
	return conflict(err)
}
