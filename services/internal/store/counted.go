package store

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// SetCounted notes with the transaction how many have written something that was counted
// in a file. Only the process that has the file does so.
func (tx *Tx) SetCounted(file string, generation uint64) {
	tx.mustWrite()
	row, err := encode(&storepb.Counted{Generation: generation, Day: tx.today()})
	tx.fail("encode row", err)
	tx.beside = append(tx.beside, Write{countedKey(file), row})
}

// Counted returns what was noted of a file last, 0 if nothing.
func (db *DB) Counted(ctx context.Context, file string) (generation uint64, err error) {
	row := &storepb.Counted{}
	err = db.engine.View(ctx, func(s Snapshot) error { return read(s, countedKey(file), row) })
	return row.GetGeneration(), err
}

// DropCounted removes what was noted of the files that are gone, by the day on which it was.
func (db *DB) DropCounted(ctx context.Context, gone func(file string, day int64) bool) error {
	find := func(s Snapshot) (due []Write, err error) {
		for p, err := range s.Scan(countedRows, after(countedRows), false) {
			if err != nil {
				return nil, err
			}
			file, _, ok := cutString(p.Key[len(countedRows):])
			row := &storepb.Counted{}
			if err := proto.Unmarshal(p.Value, row); err != nil || !ok {
				return nil, fmt.Errorf("row %x is malformed", p.Key)
			}
			if gone(file, row.GetDay()) {
				due = append(due, Write{bytes.Clone(p.Key), nil})
			}
		}
		return due, nil
	}
	some := false
	err := db.engine.View(ctx, func(s Snapshot) error { // mostly there are none, and looking takes no turn at writing
		due, err := find(s)
		some = len(due) > 0
		return err
	})
	if err != nil || !some {
		return err
	}
	return db.system(ctx, find)
}

func countedKey(file string) []byte { return appendString(bytes.Clone(countedRows), file) }
