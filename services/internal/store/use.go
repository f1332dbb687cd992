package store

import (
	"bytes"
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// Use is how often a user used a grant on a day.
type Use struct {
	Day       int64 // of UTC; see DayOf
	User      string
	Grant     string // empty for calls that need none
	Reads     int64
	Changes   int64
	Consulted bool // a handler asked for it and found it held
}

// DayOf numbers the day, in UTC, of an instant: 0 is 1 January 1970.
func DayOf(t time.Time) int64 { return t.Unix() / int64(day/time.Second) }

// DayStart returns the instant at which a day begins.
func DayStart(n int64) time.Time { return time.Unix(n*int64(day/time.Second), 0).UTC() }

// AddUses adds each to what is kept of its user, grant and day.
func (tx *Tx) AddUses(uses ...Use) {
	keys := make([][]byte, len(uses))
	for i, u := range uses {
		keys[i] = bytes.Clone(tx.row(spaceUse, u.Day, u.User, u.Grant))
	}
	tx.fetch(keys...)
	for i, u := range uses {
		row := &storepb.Use{}
		tx.load(keys[i], row)
		row.Reads += u.Reads
		row.Changes += u.Changes
		row.Consulted = row.Consulted || u.Consulted
		tx.save(keys[i], row)
	}
}

// Uses yields the uses of a user, or of all with "", from a day up to and with another,
// in the order of day, user and grant.
func (tx *Tx) Uses(user string, from, to int64) iter.Seq[Use] {
	return func(yield func(Use) bool) {
		lo, _ := tx.rows(spaceUse)
		for p := range tx.uses(user, from, to, nil) {
			u, ok := tx.decodeUse(p.Key[len(lo):], p.Value)
			if !ok || !yield(u) {
				return
			}
		}
	}
}

// PageUses gives take what Uses yields until it took a page of them, and returns the
// token of the next page, "" after the last. Pages can be short as those of Page can.
func PageUses(tx *Tx, req PageRequest, user string, from, to int64, take func(Use) bool) (next string, err error) {
	p, err := tx.openPage(req)
	if err != nil {
		return "", err
	}
	lo, _ := tx.rows(spaceUse)
	place := p.place
	return p.turn(tx.uses(user, from, to, place), len(lo), func(value []byte) (bool, error) {
		u, ok := tx.decodeUse(p.place, value)
		return ok && take(u), tx.err
	})
}

// uses yields the rows after a place. Those of one user are looked up day by day.
func (tx *Tx) uses(user string, from, to int64, place []byte) iter.Seq[Pair] {
	return func(yield func(Pair) bool) {
		least, greatest := tx.rows(spaceUse)
		least = append(least, place...)
		if place != nil {
			least = append(least, 0)
		}
		from, to := max(from, tx.today()-KeepDays), min(to, tx.today()+1)
		for n := from; n <= to; n++ {
			lo, hi := tx.rows(spaceUse, n, user)
			if user == "" {
				lo, hi = bytes.Clone(tx.row(spaceUse, n)), bytes.Clone(tx.row(spaceUse, to+1))
				n = to
			}
			if bytes.Compare(lo, least) < 0 {
				lo = least
			}
			if bytes.Compare(hi, greatest) > 0 {
				hi = greatest
			}
			for p := range tx.scan(lo, hi, false) {
				if !yield(p) {
					return
				}
			}
		}
	}
}

const (
	// usesAtOnce is how many uses one transaction looks at to find the last ones, and
	// usesOfLook how many it could have looked at while it finds where to begin.
	usesAtOnce = 20_000
	usesOfLook = 1000
	// usesPassed is how many uses of others are passed before the next of those who are
	// asked about is looked up.
	usesPassed = 100
)

// LastUses notes in last on which day, of those from a day on, each grant was last used by any
// of some users, who come in order. It looks at what there is of them and at little else, in
// as many transactions as that takes.
func (db *DB) LastUses(ctx context.Context, users []string, from int64, last map[string]int64) error {
	var l *lastUses
	for l == nil || l.day >= l.from {
		err := db.View(ctx, func(tx *Tx) error {
			if l == nil {
				l = &lastUses{users: users, left: users, last: last, day: tx.today() + 1, from: max(from, tx.today()-KeepDays)}
			}
			for budget := usesAtOnce; budget > 0 && l.day >= l.from && tx.err == nil; {
				budget -= max(usesOfLook, l.look(tx, budget))
			}
			return tx.err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lastUses is a search for last uses, from the latest day back.
type lastUses struct {
	users []string
	last  map[string]int64
	from  int64

	day   int64
	left  []string // the users of whom the day's uses are still to be looked at
	place []byte   // the key after which they are; nil for all of them
}

// look goes on where the search is, up to a number of uses, and returns how many it saw.
func (l *lastUses) look(tx *Tx, budget int) (seen int) {
	lo, hi, ok := l.ahead(tx)
	if !ok {
		l.day, l.left, l.place = l.day-1, l.users, nil
		return 0
	}
	space, _ := tx.rows(spaceUse)
	passed := 0
	for p := range tx.scan(lo, hi, false) {
		seen++
		_, rest, _ := cutInt(p.Key[len(space):])
		user, rest, _ := cutString(rest)
		grant, _, _ := cutString(rest)
		for len(l.left) > 0 && l.left[0] < user {
			l.left = l.left[1:]
		}
		l.place = nil
		switch {
		case len(l.left) == 0:
			return seen
		case l.left[0] == user:
			passed = 0
			l.last[grant] = max(l.last[grant], l.day)
			l.place = p.Key
		default:
			passed++
		}
		if seen == budget || passed == usesPassed {
			l.place = bytes.Clone(l.place)
			return seen
		}
	}
	l.left = nil
	return seen
}

// ahead returns where the rest of the day's uses is, or false if there is none.
func (l *lastUses) ahead(tx *Tx) (lo, hi []byte, ok bool) {
	if len(l.left) == 0 {
		return nil, nil, false
	}
	lo, _ = tx.rows(spaceUse, l.day, l.left[0])
	if l.place != nil {
		lo = append(bytes.Clone(l.place), 0)
	}
	_, hi = tx.rows(spaceUse, l.day, l.left[len(l.left)-1])
	return lo, hi, true
}

func (tx *Tx) decodeUse(key, value []byte) (u Use, ok bool) {
	n, rest, _ := cutInt(key)
	user, rest, _ := cutString(rest)
	grant, _, ok := cutString(rest)
	row := &storepb.Use{}
	tx.fail("decode use", proto.Unmarshal(value, row))
	return Use{
		Day: n, User: user, Grant: grant, Reads: row.GetReads(), Changes: row.GetChanges(), Consulted: row.GetConsulted(),
	}, ok && tx.err == nil
}
