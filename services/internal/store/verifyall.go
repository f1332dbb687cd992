package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	"latchkey.dev/services/internal/fault"
)

// Verified is how much was looked at, and how much of it was wrong.
type Verified struct {
	Tenants  int64 `json:"tenants"`
	Entries  int64 `json:"entries"`
	Rows     int64 `json:"rows"`
	Pages    int64 `json:"pages"` // of files; see Checker
	Problems int64 `json:"problems"`
	Broken   int64 `json:"-"` // of the problems those that are [Broken] invariants
}

// CheckPages looks at how the store's file is made, if it is in one, and calls found with each problem.
// What is in a file that is made wrongly cannot be relied on, nor can one read it safely.
func (db *DB) CheckPages(ctx context.Context, found func(problem string)) (v Verified, err error) {
	return CheckPages(ctx, db.engine, found)
}

// CheckPages does so over an engine.
func CheckPages(ctx context.Context, e Engine, found func(problem string)) (v Verified, err error) {
	c, ok := e.(Checker)
	if !ok {
		return v, nil
	}
	v.Pages, err = c.Check(ctx, func(problem string) {
		v.Problems++
		found(problem)
	})
	return v, err
}

// Verify checks all that VerifyJournal and VerifyRecords check, and that records are what the schema
// says that they always are ([Collection.Always]), of every tenant, and goes on
// after what is wrong: it calls found with each problem. seen is called now and then, and
// may end it with an error. Others may write meanwhile.
func (db *DB) Verify(ctx context.Context, found func(problem string), seen func(Verified) error) (v Verified, err error) {
	tenants, err := db.Tenants(ctx)
	if err != nil {
		return v, err
	}
	report := func(wrong error) {
		if _, ok := errors.AsType[*Broken](wrong); ok {
			v.Broken++
		}
		v.Problems++
		found(wrong.Error())
	}
	for _, tenant := range tenants {
		v.Tenants++
		j := &verifier{invariants: true}
		err := caught(func() error {
			return db.verifyEntries(ctx, tenant, j, report, func(n int) error {
				v.Entries += int64(n)
				return seen(v)
			})
		})
		if unread, ok := errors.AsType[*unreadable](err); ok {
			report(fmt.Errorf("journal of %s: %w", tenant, unread))
			err = nil
		}
		if err == nil {
			err = db.verifyRows(ctx, tenant, j, func(wrong error) error {
				if _, ok := errors.AsType[*Broken](wrong); !ok || !db.isErased(ctx, tenant, j) {
					report(wrong)
				}
				return nil
			}, func() { v.Rows++ })
		}
		if err != nil {
			return v, err
		}
		if err := seen(v); err != nil {
			return v, err
		}
	}
	return v, nil
}

// unreadable is what an engine panics with over a file that is made wrongly.
type unreadable struct{ panicked any }

func (u *unreadable) Error() string { return fmt.Sprintf("cannot be read: %v", u.panicked) }

// caught calls f, and returns an error if it panics, also where the file ends under it.
func caught(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &unreadable{p}
		}
	}()
	return f()
}

// verifyEntries reports everything that is wrong with a tenant's journal.
func (db *DB) verifyEntries(ctx context.Context, tenant string, j *verifier, report func(error), seen func(n int) error) error {
	base, err := db.base(ctx, tenant)
	if err != nil {
		return err
	}
	last := Link{Revision: base.GetRevision(), Hash: base.GetHash()}
	for e, err := range db.Journal(ctx, tenant, 0) {
		if err != nil {
			if ctx.Err() == nil {
				report(err)
			}
			return ctx.Err()
		}
		j.see(e)
		if wrong := verifyEntry(e, last); wrong != "" {
			report(fmt.Errorf("journal of %s is damaged at revision %d: %s", tenant, e.GetRevision(), wrong))
		}
		last = Link{Revision: e.GetRevision(), Hash: e.GetHash()}
		if err := seen(1); err != nil {
			return err
		}
	}
	return db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		if wrong := tx.verifyHead(last); wrong != "" {
			report(fmt.Errorf("journal of %s is damaged at revision %d: %s", tenant, last.Revision+1, wrong))
		}
		return nil
	})
}

// verifyRows calls report with everything that is wrong with a tenant's records and
// indexes, until it returns an error.
func (db *DB) verifyRows(ctx context.Context, tenant string, j *verifier, report func(error) error, seen func()) error {
	for _, c := range db.schema.collections {
		check := func(of string, space byte, name string, f func(*verifier, *Tx, Pair) error) error {
			tell := telling(of, tenant, report)
			err := caught(func() error {
				return db.each(ctx, tenant, space, name, func(tx *Tx, p Pair) error {
					seen()
					return f(j, tx, p)
				}, tell)
			})
			if unread, ok := errors.AsType[*unreadable](err); ok {
				return tell(unread)
			}
			return err
		}
		if err := check("records", spaceRecord, c.Name(), c.verify); err != nil {
			return err
		}
		for _, ix := range c.declaredIndexes() {
			name, _ := ix.describe()
			if err := check("index", spaceIndex, name, ix.verify); err != nil {
				return err
			}
		}
		if err := check("history", spaceHistory, c.Name(), c.verifyGone); err != nil {
			return err
		}
		for _, t := range c.counted() {
			if err := db.verifyTally(ctx, tenant, j, c.Name(), t, telling("records", tenant, report)); err != nil {
				return err
			}
		}
	}
	return nil
}

// telling returns what reports each of the errors that may be joined in one, and of what it is.
func telling(of, tenant string, report func(error) error) func(wrong error) error {
	return func(wrong error) error {
		for _, one := range several(wrong) {
			if err := report(fmt.Errorf("%s of %s: %w", of, tenant, one)); err != nil {
				return err
			}
		}
		return nil
	}
}

// isErased reports whether the tenant is being erased, of which nothing is expected then: its records
// go as they come. It looks at the entries of the journal since it was asked last.
func (db *DB) isErased(ctx context.Context, tenant string, j *verifier) bool {
	for e, err := range db.Journal(ctx, tenant, j.seen) {
		if f, ok := errors.AsType[*fault.Error](err); ok && f.Reason == faultpb.Reason_REASON_JOURNAL_COMPACTED {
			j.erased = true // the entries since go already, as they do in the end
		}
		if err != nil {
			break
		}
		j.see(e)
	}
	return j.erased
}

// mostAgain bounds how often a row is looked at for which the time was over.
const mostAgain = 10

// each calls f with every row of a space whose first part is a name, in one snapshot as
// many as a part of the time for a read allows. An error of f is that row's, and report
// decides whether to go on. A row for which the time was over is looked at again, alone.
func (db *DB) each(ctx context.Context, tenant string, space byte, name string, f func(*Tx, Pair) error, report func(error) error) error {
	var next []byte
	again := 0
	for more := true; more; {
		more = false
		var wrong error // of the row at which the snapshot ended
		err := db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
			more, wrong = false, nil
			lo, hi := tx.rows(space, name)
			if next != nil {
				lo = next
			}
			for p := range tx.scan(lo, hi, false) {
				wrong = f(tx, p)
				if errors.Is(tx.err, errTooLong) { // whatever f has made of it
					wrong, next, more = tx.err, bytes.Clone(p.Key), true
					break
				}
				if more = wrong != nil || tx.slices < readSlices; more {
					next = append(bytes.Clone(p.Key), 0)
					break
				}
			}
			return nil
		})
		if errors.Is(wrong, errTooLong) && again < mostAgain {
			again++
			continue
		}
		if again = 0; errors.Is(wrong, errTooLong) {
			return err
		}
		if wrong != nil {
			// A row that cannot be decoded ends its transaction with the same error.
			if ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			err = report(wrong)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
