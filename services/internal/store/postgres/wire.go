package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"latchkey.dev/services/internal/store"
)

// statement is one that is prepared on every connection.
type statement int

const (
	beginReadSQL statement = iota
	beginWriteSQL
	beginTurnSQL
	commitSQL
	rollbackSQL
	getSQL
	getAllSQL
	scanSQL
	scanBackSQL
	putSQL
	dropSQL
	turnSQL
	attemptSQL
	fenceSQL
	statementCount
)

// prepared says of each statement how it is called and how many columns it returns.
var prepared = func() (all [statementCount]*pgconn.StatementDescription) {
	for i := range all {
		all[i] = &pgconn.StatementDescription{Name: fmt.Sprint("latchkey_", i)}
		switch statement(i) {
		case getSQL, getAllSQL, scanSQL, scanBackSQL:
			all[i].Fields = make([]pgconn.FieldDescription, 2)
		case turnSQL, fenceSQL:
			all[i].Fields = make([]pgconn.FieldDescription, 1)
		}
	}
	return all
}()

// prepareAll prepares the statements on a new connection, in one round trip.
func (s *statements) prepareAll(ctx context.Context, conn *pgx.Conn) error {
	p := conn.PgConn().StartPipeline(ctx)
	for i, text := range s.prepared {
		p.SendPrepare(prepared[i].Name, text, nil)
	}
	err := p.Sync()
	for range s.prepared {
		if err == nil {
			_, err = p.GetResults()
		}
	}
	return errors.Join(err, p.Close())
}

// call is a statement with its parameters, in the binary form of their types.
type call struct {
	statement  statement
	parameters [][]byte
}

// inBinary is the form of all parameters and results.
var inBinary = []int16{pgx.BinaryFormatCode}

// exchange sends the calls at once and gives each row of the answers to row, with the
// number of its call; the values are valid until row returns. It returns the number of
// the call that failed, if one did: those after it were not executed.
//
// It takes no context. A connection that is left in the middle of an answer is lost, so
// the end of a caller's patience ends nothing here.
func exchange(conn *pgconn.PgConn, patience time.Duration, calls []call, row func(call int, values [][]byte)) (failed int, err error) {
	if err := conn.Conn().SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	ctx := context.Background()
	batch := &pgconn.Batch{}
	for _, c := range calls {
		batch.ExecStatement(prepared[c.statement], c.parameters, inBinary, inBinary)
	}
	results := conn.ExecBatch(ctx, batch)
	for i, c := range calls {
		if !results.NextResult() {
			if err = results.Close(); err == nil {
				err = errors.New("the database did not answer")
			}
			return i, err
		}
		r := results.ResultReader()
		for r.NextRow() {
			row(i, r.Values())
		}
		tag, err := r.Close()
		if err == nil && c.statement == commitSQL && tag.String() != committed {
			err = fmt.Errorf("the database answered %q to the commit", tag)
		}
		if err != nil {
			_ = results.Close() // the first error is the one that counts
			return i, err
		}
	}
	return len(calls) - 1, results.Close()
}

// committed is the answer to a commit that did not end in a rollback.
const committed = "COMMIT"

// arrayOf returns an array of bytea.
func arrayOf(elements [][]byte) []byte {
	const bytea = 17 // its object id
	size := 20
	for _, e := range elements {
		size += 4 + len(e)
	}
	b := make([]byte, 0, size)
	for _, field := range []uint32{1, 0, bytea, uint32(len(elements)), 1} { // dimensions, nulls, type, length, first index
		b = binary.BigEndian.AppendUint32(b, field)
	}
	for _, e := range elements {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(e))), e...)
	}
	return b
}

// bigint returns an integer of 8 bytes.
func bigint(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// rows collects pairs out of answers. Their bytes share memory.
type rows struct {
	pairs []store.Pair
	room  []byte // not used yet
}

// roomSize is that of what several pairs share.
const roomSize = 8 << 10

func (r *rows) add(values [][]byte) {
	if r.pairs == nil {
		r.pairs = make([]store.Pair, 0, 8)
	}
	r.pairs = append(r.pairs, store.Pair{Key: r.keep(values[0]), Value: r.keep(values[1])})
}

func (r *rows) keep(b []byte) []byte {
	if len(b) > roomSize/8 {
		return bytes.Clone(b)
	}
	if r.room == nil || len(b) > len(r.room) { // nothing is not nil
		r.room = make([]byte, roomSize)
	}
	kept := r.room[:copy(r.room, b):len(b)]
	r.room = r.room[len(b):]
	return kept
}
