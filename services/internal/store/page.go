package store

import (
	"bytes"
	"iter"

	"google.golang.org/protobuf/proto"

	"latchkey.dev/services/internal/fault"
)

const (
	defaultPageSize = 50
	maxPageSize     = 500
)

// PageRequest is a request for a page of a list.
type PageRequest interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

// Page returns a page of the records of the ranges that keep keeps, and the token
// of the next page, "" after the last. keep may be nil.
//
// The ranges are merged in the order of what follows their parts in the key; where
// that is equal, a record comes once. So they must be of one collection and one
// direction, and their keys must be alike after their parts. No range is no records.
//
// A page can be short, or even empty, and have a token: after a number of records in
// proportion to the page's size the search for those to keep is interrupted. A token
// is good for the same request, but for the page's size, by the same caller.
func Page[T proto.Message](tx *Tx, req PageRequest, keep func(T) bool, ranges ...Range[T]) (items []T, next string, err error) {
	return PageInSections(tx, req, Section[T]{Keep: keep, Ranges: ranges})
}

func pageSize(req PageRequest) (int, error) {
	switch n := req.GetPageSize(); {
	case n < 0:
		return 0, fault.Invalid("page_size", "must not be negative")
	case n == 0:
		return defaultPageSize, nil
	default:
		return min(int(n), maxPageSize), nil
	}
}

// row is a pair of the range with the number source. Its place is what follows the
// range's prefix in the key.
type row struct {
	Pair
	source int
	place  []byte
}

// merge yields the rows of the ranges after a place, in the order of their places
// and each place once. A nil place is before all others.
func merge[T proto.Message](tx *Tx, writes *node, place []byte, ranges []Range[T]) iter.Seq[row] {
	if len(ranges) == 1 {
		return ranges[0].rows(tx, writes, place, 0)
	}
	return func(yield func(row) bool) {
		heads := make([]row, 0, len(ranges))
		nexts := make([]func() (row, bool), len(ranges))
		for i, r := range ranges {
			if r.c != ranges[0].c || r.reverse != ranges[0].reverse {
				panic("store: page over ranges of several collections or directions")
			}
			next, stop := iter.Pull(r.rows(tx, writes, place, i))
			defer stop()
			nexts[i] = next
			if head, ok := next(); ok {
				heads = append(heads, head)
			}
		}
		var last []byte
		for len(heads) > 0 {
			first := 0
			for i := range heads {
				if comesFirst(heads[i].place, heads[first].place, ranges[0].reverse) {
					first = i
				}
			}
			r := heads[first]
			if (last == nil || !bytes.Equal(r.place, last)) && !yield(r) {
				return
			}
			last = r.place
			if head, ok := nexts[r.source](); ok {
				heads[first] = head
			} else {
				heads = append(heads[:first], heads[first+1:]...)
			}
		}
	}
}

// rows yields the rows of the range after a place.
func (r Range[T]) rows(tx *Tx, writes *node, place []byte, source int) iter.Seq[row] {
	return func(yield func(row) bool) {
		lo, hi, reverse := r.bounds(tx)
		start := len(tx.prefix) + len(r.prefix)
		if place != nil && reverse {
			if at := append(bytes.Clone(lo[:start]), place...); bytes.Compare(at, hi) < 0 {
				hi = at
			}
		} else if place != nil {
			if at := append(append(bytes.Clone(lo[:start]), place...), 0); bytes.Compare(at, lo) > 0 {
				lo = at
			}
		}
		for p := range tx.scanIn(writes, lo, hi, reverse) {
			if !yield(row{p, source, p.Key[start:]}) {
				return
			}
		}
	}
}

// sheet is a page of rows that are no records.
type sheet struct {
	tx    *Tx
	req   PageRequest
	size  int
	place []byte // of the last row seen, after the space of its key; nil at the beginning
}

func (tx *Tx) openPage(req PageRequest) (*sheet, error) {
	size, err := pageSize(req)
	if err != nil {
		return nil, err
	}
	s := &sheet{tx: tx, req: req, size: size}
	if token := req.GetPageToken(); token != "" {
		s.place, err = tx.openToken(token, req)
	}
	return s, err
}

// turn gives the rows to take until the page is full, and returns the next token.
func (s *sheet) turn(rows iter.Seq[Pair], start int, take func(value []byte) (bool, error)) (next string, err error) {
	budget := 20*s.size + 1000
	taken := 0
	for p := range rows {
		if taken == s.size || budget == 0 {
			return s.tx.sealToken(s.place, s.req)
		}
		budget--
		s.place = p.Key[start:]
		ok, err := take(p.Value)
		if err != nil {
			return "", err
		}
		if ok {
			taken++
		}
	}
	return "", s.tx.err
}
