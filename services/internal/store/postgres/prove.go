package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// proofs returns what makes a server, if the URL names several, prove itself before a
// connection to it is used: a write must be acknowledged. A former primary that comes back
// after a failover still takes itself for one; but its standby follows another, and so it
// acknowledges nothing. Reading there would show the past.
//
// The row is that of an attempt which is none: its id is that of the process alone. When
// the time to connect is over the driver has the write canceled, which harms nobody.
func proofs(s statements, process []byte) func(context.Context, *pgx.ConnConfig) error {
	return func(ctx context.Context, config *pgx.ConnConfig) error {
		if err := neverCancel(ctx, config); err != nil || !several(config) {
			return err
		}
		fits := config.ValidateConnect // by target_session_attrs
		config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
			if fits != nil {
				if err := fits(ctx, conn); err != nil {
					return err
				}
			}
			const binary = 1
			_, err := conn.ExecParams(ctx, s.resolve, [][]byte{process}, nil, []int16{binary}, nil).Close()
			if codeOf(err) == undefinedTable {
				return nil // they are yet to be made
			}
			return err
		}
		return nil
	}
}

// several reports whether there is more than one server to choose from.
func several(config *pgx.ConnConfig) bool {
	for _, f := range config.Fallbacks {
		if f.Host != config.Host || f.Port != config.Port {
			return true
		}
	}
	return false
}
