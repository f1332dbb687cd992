package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// Link is an entry of a journal that was found to follow the one before.
type Link struct {
	Revision int64
	Hash     []byte
	Base     int64 // the revision after which the journal begins
	Head     int64 // its last revision when it was looked at first
}

// VerifyJournal returns an error that names the first revision of the tenant's
// journal that is missing, or differs from what was committed: a fault with the reason
// JOURNAL_DAMAGED. An erased value is no difference.
func (db *DB) VerifyJournal(ctx context.Context, tenant string) error {
	return db.VerifyChain(ctx, tenant, func(Link) error { return nil })
}

// VerifyChain is VerifyJournal and calls visit with where the journal begins and then with
// each entry that is right, to the last. It stops with the error that visit returns. What
// is compacted meanwhile is passed over.
func (db *DB) VerifyChain(ctx context.Context, tenant string, visit func(Link) error) error {
	for {
		var stopped error
		err := db.verifyChain(ctx, tenant, func(l Link) error {
			stopped = visit(l)
			return stopped
		})
		f, ok := errors.AsType[*fault.Error](err)
		if stopped != nil || !ok || f.Reason != faultpb.Reason_REASON_JOURNAL_COMPACTED {
			return err
		}
	}
}

func (db *DB) verifyChain(ctx context.Context, tenant string, visit func(Link) error) error {
	var link Link
	err := db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		base := tx.journalBase()
		link = Link{Revision: base.GetRevision(), Hash: base.GetHash(), Base: base.GetRevision(), Head: tx.journalHead().GetRevision()}
		return nil
	})
	if err != nil {
		return err
	}
	if err := visit(link); err != nil {
		return err
	}
	for more := true; more; {
		entries, err := db.entries(ctx, tenant, link.Revision)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if wrong := verifyEntry(e, link); wrong != "" {
				return damaged(tenant, link.Revision+1, wrong)
			}
			link.Revision, link.Hash = e.GetRevision(), e.GetHash()
			if err := visit(link); err != nil {
				return err
			}
		}
		more = len(entries) > 0
	}
	return db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		if wrong := tx.verifyHead(link); wrong != "" && tx.BaseRevision() <= link.Revision {
			return damaged(tenant, link.Revision+1, wrong)
		}
		return nil
	})
}

func damaged(tenant string, revision int64, what string) error {
	return fault.New(codes.DataLoss, faultpb.Reason_REASON_JOURNAL_DAMAGED,
		fmt.Sprintf("journal of %s is damaged at revision %d: %s", tenant, revision, what),
		map[string]string{"revision": strconv.FormatInt(revision, 10), "what": what})
}

// verifyHead says what is wrong with the journal's head if last is the last entry that
// was found before. More may have come since.
func (tx *Tx) verifyHead(last Link) string {
	head := tx.journalHead()
	switch {
	case head.GetRevision() < last.Revision:
		return "head is behind"
	case head.GetRevision() > last.Revision:
		if tx.get(tx.row(spaceJournal, last.Revision+1)) == nil {
			return "entry is missing"
		}
	case !bytes.Equal(head.GetHash(), last.Hash):
		return "head has another hash"
	}
	return ""
}

// verifyEntry says what is wrong with the entry that follows last, if anything.
func verifyEntry(e *storepb.JournalEntry, last Link) string {
	switch {
	case e.GetRevision() != last.Revision+1:
		return "entry is missing"
	case !bytes.Equal(e.GetPreviousHash(), last.Hash):
		return "entry does not follow the one before"
	case !bytes.Equal(e.GetHash(), entryHash(e)):
		return "entry has another hash"
	}
	for _, c := range e.GetChanges() {
		if c.OldValue != nil && !bytes.Equal(sum(c.GetOldValue()), c.GetOldHash()) ||
			c.NewValue != nil && !bytes.Equal(sum(c.GetNewValue()), c.GetNewHash()) {
			return "value of " + c.GetCollection() + " " + c.GetId() + " has another hash"
		}
	}
	for _, ev := range e.GetEvents() {
		if ev.Payload == nil {
			return "event " + ev.GetType() + " is missing"
		}
		if !bytes.Equal(sum(ev.GetPayload()), ev.GetHash()) {
			return "event " + ev.GetType() + " has another hash"
		}
	}
	return ""
}
