package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Codes of PostgreSQL's errors, which the other databases share.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	outcomeUnknown       = "40003"
	lockNotAvailable     = "55P03"
	uniqueViolation      = "23505"
	duplicateTable       = "42P07"
	duplicateObject      = "42710"
	undefinedTable       = "42P01"
	readOnlyTransaction  = "25006"
	diskFull             = "53100"
	tooManyConnections   = "53300"
	divisionByZero       = "22012"
)

// errLost is the failure of a commit that did not happen, because its connection was lost.
var errLost = errors.New("connection to the database was lost")

func codeOf(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// conflict reports whether the database has undone a transaction because of another.
func conflict(err error) bool {
	switch codeOf(err) {
	case serializationFailure, deadlockDetected, lockNotAvailable:
		return true
	}
	return false
}

// lost reports whether err says that the database, and not the statement, is at fault, so
// that the same may succeed over another connection.
func lost(err error) bool {
	if err == nil {
		return false
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return true
	}
	class := pgErr.Code[:min(2, len(pgErr.Code))]
	return pgErr.SeverityUnlocalized == "FATAL" || class == "08" || class == "57" && pgErr.Code != "57014" ||
		pgErr.Code == readOnlyTransaction || pgErr.Code == tooManyConnections
}

// undone reports whether the failure of one of a transaction's last statements, of which
// the commit is one, means that it was surely not committed. The statements were sent
// together; after an error the server skips those that follow.
//
// What the driver says of an error, pgconn.SafeToRetry, cannot be asked: of a connection
// that was lost while an answer was awaited it says that nothing was sent.
func undone(err error, commit bool) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.SeverityUnlocalized != "ERROR" || pgErr.Code == outcomeUnknown || strings.HasPrefix(pgErr.Code, "08") {
		return false
	}
	return !commit || conflict(err) || strings.HasPrefix(pgErr.Code, "23")
}

// tell makes of an error of the database what the store's caller gets.
func tell(err error) error {
	switch {
	case err == nil:
		return nil
	case err == context.Canceled, err == context.DeadlineExceeded: // of the caller's context
		return err
	case conflict(err):
		return fmt.Errorf("%w: %w", fault.Limit("changes of the same records", time.Second), err)
	case codeOf(err) == diskFull:
		return fmt.Errorf("%w: %w", fault.New(codes.ResourceExhausted, faultpb.Reason_REASON_DISK_FULL,
			"the disk of the database is full: nothing was changed", nil), err)
	case lost(err):
		return fmt.Errorf("%w: %w", fault.Unreachable("database"), err)
	case codeOf(err) == divisionByZero: // of the one statement that divides
		return store.ErrTakenOff
	default:
		return err
	}
}

// A transaction is not run again when it was as often, or when its first run is as long ago.
const (
	tries      = 12
	retryLimit = 20 * time.Second
)

// pause waits for a random time that grows with n, or until ctx ends.
func pause(ctx context.Context, n int) error {
	limit := time.Millisecond << min(n, 8)
	timer := time.NewTimer(rand.N(limit) + time.Microsecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
