package bolt

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// putBack makes a file what it was when the log's base was taken, if the log is needed. The base's
// pages are as they were; what else a process wrote lies in pages that are free in it. It can be
// done again and again, until redo has come to its end.
func (l *left) putBack(path string) (err error) {
	h := l.wal.head
	if h.Needed == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	m, ok := newest(f)
	if !ok {
		return errors.New("file is damaged: neither of its meta pages is valid")
	}
	most := h.Base.Txid + l.count + 1 // a transaction for each record, and one that lists free pages
	if m.PageSize != h.Base.PageSize || m.Txid < h.Base.Txid || m.Txid > most {
		return l.unfit()
	}
	before := h.Base
	before.Txid-- // in the other meta page: the same, and older
	for _, m := range []meta{before, h.Base} {
		if err := m.write(f); err != nil {
			return err
		}
	}
	return datasync(f)
}

// stillSo fails unless the log is as it was read. Between then and having the lock to write, another
// process may have used the file.
func (l *left) stillSo() error {
	now, err := readLog(l.wal.path)
	if err == nil && (now.wal.head != l.wal.head || now.count != l.count) {
		err = ErrInUse
	}
	return err
}

// redo does again what the log has, in one commit, after which the file needs it no more.
func (l *left) redo(db *bbolt.DB, o Options) error {
	w := &l.wal
	w.noSync = o.NoSync
	if w.head.Needed == 0 {
		return nil
	}
	if len(l.writes) > 0 {
		err := guarded(func() error {
			return db.Update(func(tx *bbolt.Tx) error {
				b := tx.Bucket(bucket)
				for _, w := range l.writes {
					if err := apply(b, w); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err != nil {
			return fmt.Errorf("do again what its log has: %w", err)
		}
	}
	if err := w.open(); err != nil {
		return err
	}
	_, err := w.put(head{Sequence: w.seq})
	return err
}
