package bolt

import (
	"bytes"
	"iter"

	"go.etcd.io/bbolt"

	"latchkey.dev/services/internal/store"
)

// snapshot is a bbolt transaction as its reader sees it.
type snapshot struct {
	bucket   *bbolt.Bucket
	point    *bbolt.Cursor // for Get: a cursor keeps its memory from search to search
	writable bool          // the transaction also has writes
}

func newSnapshot(tx *bbolt.Tx) *snapshot {
	b := tx.Bucket(bucket)
	return &snapshot{bucket: b, point: b.Cursor(), writable: tx.Writable()}
}

func (s *snapshot) Get(key []byte) ([]byte, error) {
	if k, v := s.point.Seek(key); bytes.Equal(k, key) {
		return v, nil
	}
	return nil, nil
}

func (s *snapshot) Scan(lo, hi []byte, reverse bool) iter.Seq2[store.Pair, error] {
	if reverse {
		return s.backward(lo, hi)
	}
	return func(yield func(store.Pair, error) bool) {
		c := s.bucket.Cursor()
		for k, v := c.Seek(lo); k != nil && bytes.Compare(k, hi) < 0; k, v = c.Next() {
			if !yield(store.Pair{Key: k, Value: v}, nil) {
				return
			}
		}
	}
}

func (s *snapshot) backward(lo, hi []byte) iter.Seq2[store.Pair, error] {
	return func(yield func(store.Pair, error) bool) {
		c := s.bucket.Cursor()
		var k, v []byte
		if at, _ := c.Seek(hi); at == nil {
			k, v = c.Last()
		} else {
			k, v = s.previous(c, at)
		}
		for k != nil && bytes.Compare(k, lo) >= 0 {
			if !yield(store.Pair{Key: k, Value: v}, nil) {
				return
			}
			k, v = s.previous(c, k)
		}
	}
}

// previous moves the cursor from the key at to the one before. Prev returns nil not
// only at the beginning, but also in a page that this transaction has emptied and
// not yet removed; there it must be called again.
func (s *snapshot) previous(c *bbolt.Cursor, at []byte) (k, v []byte) {
	k, v = c.Prev()
	if k != nil || !s.writable {
		return k, v
	}
	if first, _ := s.bucket.Cursor().First(); bytes.Equal(first, at) {
		return nil, nil
	}
	for k == nil {
		k, v = c.Prev()
	}
	return k, v
}
