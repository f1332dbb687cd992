package store

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"
)

// Section is a part of a list, all of which comes before the next.
type Section[T proto.Message] struct {
	// Name is what a page token names the section by: unique in the list, and empty only
	// if there is no other.
	Name string
	// Keep tells which records are in the list; nil keeps all.
	Keep func(T) bool
	// Ranges are merged, as [Page] says.
	Ranges []Range[T]
	// Gathered is where the records are, instead of in Ranges.
	Gathered *Gathered[T]
}

// PageInSections is [Page] of a list of several sections. A token is refused if it is of a
// section that the list does not have any more.
func PageInSections[T proto.Message](tx *Tx, req PageRequest, sections ...Section[T]) (items []T, next string, err error) {
	size, err := pageSize(req)
	if err != nil {
		return nil, "", err
	}
	from, place, err := openPlace(tx, req, sections)
	if err != nil {
		return nil, "", err
	}
	writes := tx.overlay.freeze()
	budget := 20*size + 1000
	items = make([]T, 0, min(size, defaultPageSize))
	last := place
	for i, s := range sections[from:] {
		if i > 0 {
			place = nil
		}
		ranges, rows := s.rows(tx, writes, place)
		for row := range ahead(tx, size+1-len(items), rows, func(row row) []byte { return ranges[row.source].recordKey(tx, row.Pair) }) {
			if len(items) == size || budget == 0 {
				next, err = tx.sealToken(last, req)
				return items, next, err
			}
			budget--
			last = s.place(row)
			v, ok := ranges[row.source].record(tx, writes, row.Pair)
			if !ok {
				return items, "", tx.err
			}
			if s.Keep == nil || s.Keep(v) {
				items = append(items, v)
			}
		}
	}
	return items, "", tx.err
}

// openPlace returns at which section a page begins, and after which place in it.
func openPlace[T proto.Message](tx *Tx, req PageRequest, sections []Section[T]) (from int, place []byte, err error) {
	token := req.GetPageToken()
	if token == "" {
		return 0, nil, nil
	}
	place, err = tx.openToken(token, req)
	if err != nil || len(sections) == 0 || sections[0].Name == "" {
		return 0, place, err
	}
	name, place, ok := cutString(place)
	from = slices.IndexFunc(sections, func(s Section[T]) bool { return s.Name == name })
	if !ok || from < 0 {
		return 0, nil, wrongToken()
	}
	return from, place, nil
}

// place is what a token tells of a row of the section.
func (s Section[T]) place(r row) []byte {
	if s.Name == "" {
		return r.place
	}
	return append(appendString(nil, s.Name), r.place...)
}

// rows yields the rows of the section after a place, and the ranges that they are of.
func (s Section[T]) rows(tx *Tx, writes *node, place []byte) ([]Range[T], iter.Seq[row]) {
	if s.Gathered != nil {
		return s.Gathered.ranges, s.Gathered.after(place)
	}
	return s.Ranges, merge(tx, writes, place, s.Ranges)
}

// Gathered are entries of an index that were read at once, to be had in another order: that
// of what follows the first part after those of their range.
type Gathered[T proto.Message] struct {
	ranges  []Range[T]
	reverse bool
	rows    []row
}

// Gather reads the entries of the ranges, which must be as those of a [Page]. It returns false
// if they have more than so many entries.
func Gather[T proto.Message](tx *Tx, most int, ranges ...Range[T]) (*Gathered[T], bool) {
	g := &Gathered[T]{ranges: ranges}
	for i, r := range ranges {
		g.reverse = r.reverse
		for row := range r.rows(tx, tx.overlay.freeze(), nil, i) {
			n := partLen(row.place)
			if n == 0 {
				tx.fail("scan "+r.index.name, fmt.Errorf("entry %x is malformed", row.Key))
				return g, true
			}
			if len(g.rows) == most {
				return nil, false
			}
			row.place = row.place[n:]
			g.rows = append(g.rows, row)
		}
	}
	slices.SortFunc(g.rows, g.compare)
	g.rows = slices.CompactFunc(g.rows, func(a, b row) bool { return bytes.Equal(a.place, b.place) })
	return g, true
}

func (g *Gathered[T]) compare(a, b row) int {
	if g.reverse {
		return bytes.Compare(b.place, a.place)
	}
	return bytes.Compare(a.place, b.place)
}

// after yields the rows after a place, all if it is nil.
func (g *Gathered[T]) after(place []byte) iter.Seq[row] {
	rows := g.rows
	if place != nil {
		at, found := slices.BinarySearchFunc(rows, row{place: place}, g.compare)
		if found {
			at++
		}
		rows = rows[at:]
	}
	return slices.Values(rows)
}
