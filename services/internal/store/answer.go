package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// day is the unit by which answers are kept: a repeat is recognized on the day, in UTC,
// of the first request and on the day after, so for 24 hours at least.
const day = 24 * time.Hour

// today numbers the day of the transaction.
func (tx *Tx) today() int64 { return tx.now.Unix() / int64(day/time.Second) }

// Do is Update for a method with a request and a response, the usual form of a
// mutating handler. If the request has the fields:
//
//   - request_id: a repeat by the same caller, in the same organization if the call has one,
//     gets the first answer, and f does not run. A different request under the same id is
//     refused. Errors are not kept, and answers for at least 24 hours.
//   - validate_only: f runs and its result is returned, but nothing is changed or
//     kept, and the request_id is not looked at.
func Do[R proto.Message](ctx context.Context, db *DB, req proto.Message, f func(*Tx) (R, error)) (R, error) {
	var result, none R
	o, err := origin(ctx)
	if err != nil {
		return none, err
	}
	requestID, validateOnly := requestFields(req.ProtoReflect())
	run := func(tx *Tx) (err error) {
		result, err = f(tx)
		return err
	}
	switch {
	case validateOnly:
		err = db.read(ctx, o, true, run)
	case requestID == "":
		err = db.update(ctx, o, run)
	default:
		result, err = once(ctx, db, o, requestID, req, f)
	}
	if err != nil {
		return none, err
	}
	return result, nil
}

func requestFields(m protoreflect.Message) (requestID string, validateOnly bool) {
	fields := m.Descriptor().Fields()
	if fd := fields.ByName("request_id"); fd != nil && fd.Kind() == protoreflect.StringKind {
		requestID = m.Get(fd).String()
	}
	if fd := fields.ByName("validate_only"); fd != nil && fd.Kind() == protoreflect.BoolKind {
		validateOnly = m.Get(fd).Bool()
	}
	return requestID, validateOnly
}

// once runs f unless its answer is kept, and keeps its answer.
//
// SECURITY: answers are kept by caller and method, so that nobody gets another's
// answer by knowing its request id. Those who have not signed in are one caller: an
// answer to them must not hold what its request did not prove. They are kept by
// organization, be it the tenant or the origin's party, so that a call in another one
// is another call.
func once[R proto.Message](ctx context.Context, db *DB, o Origin, requestID string, req proto.Message, f func(*Tx) (R, error)) (R, error) {
	var result R
	request, err := encode(req)
	if err != nil {
		return result, fmt.Errorf("encode request: %w", err)
	}
	hash := sha256.Sum256(request)
	err = db.update(ctx, o, func(tx *Tx) (err error) {
		tx.requestID = requestID
		if kept := tx.answer(requestID); kept != nil {
			result, err = repeat[R](kept, hash[:])
			return err
		}
		if result, err = f(tx); err != nil || tx.err != nil {
			return err
		}
		return tx.keep(requestID, hash[:], result)
	})
	return result, err
}

// repeat returns the kept answer if it is the answer to a request with the hash.
func repeat[R proto.Message](kept *storepb.Answer, hash []byte) (R, error) {
	var none R
	if !bytes.Equal(kept.GetRequestHash(), hash) {
		return none, fault.New(codes.InvalidArgument, faultpb.Reason_REASON_REQUEST_ID_REUSED,
			"the request id was used before for a different request", nil)
	}
	result := none.ProtoReflect().New().Interface().(R)
	if err := proto.Unmarshal(kept.GetResponse(), result); err != nil {
		return none, fmt.Errorf("decode kept answer: %w", err)
	}
	return result, nil
}

// answer returns the answer kept for the caller's request id, or nil.
func (tx *Tx) answer(requestID string) *storepb.Answer {
	today, yesterday := tx.answerRow(tx.today(), requestID), tx.answerRow(tx.today()-1, requestID)
	tx.fetch(today, yesterday)
	kept := &storepb.Answer{}
	if tx.load(today, kept) || tx.load(yesterday, kept) {
		return kept
	}
	return nil
}

// answerRow returns the key of the answer of a day to the caller's request id.
func (tx *Tx) answerRow(day int64, requestID string) []byte {
	return answerRow(tx.Tenant(), day, &storepb.JournalEntry{
		Caller: tx.origin.Caller, Method: tx.origin.Method, RequestId: requestID, RequestParty: tx.origin.Party,
	})
}

// keep writes the answer.
func (tx *Tx) keep(requestID string, hash []byte, result proto.Message) error {
	response, err := encode(result)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	tx.save(tx.answerRow(tx.today(), requestID), &storepb.Answer{
		RequestHash: hash, Response: response, CommitTime: timestamppb.New(tx.now),
	})
	return nil
}

// Prune deletes the answers that no repeat will find, and notes and uses that were kept
// for as long as they are. The DB calls it every hour.
func (db *DB) Prune(ctx context.Context) error {
	tenants, err := db.Tenants(ctx)
	if err != nil {
		return err
	}
	for _, t := range tenants {
		for more := true; more; {
			if more, err = db.pruneSome(ctx, t); err != nil {
				return fmt.Errorf("prune %s: %w", t, err)
			}
		}
	}
	return nil
}

// pruneSome deletes a bounded number of rows and reports whether there may be more.
func (db *DB) pruneSome(ctx context.Context, tenant string) (more bool, err error) {
	var due [][]byte
	find := func(tx *Tx) error {
		due = tx.due()
		return nil
	}
	// Most tenants have nothing to prune; looking takes no turn at writing.
	o := Origin{Tenant: tenant}
	if err := db.view(ctx, o, find); err != nil || len(due) == 0 {
		return false, err
	}
	err = db.update(WithFence(ctx, ""), o, func(tx *Tx) error {
		if err := find(tx); err != nil {
			return err
		}
		for _, key := range due {
			tx.set(key, nil)
		}
		return nil
	})
	return len(due) == chunk, err
}

// due returns the keys of some rows that are to be deleted.
func (tx *Tx) due() (due [][]byte) {
	for _, r := range []struct {
		space  byte
		before any // of the first part of the key
	}{
		{spaceAnswer, tx.today() - 1}, {spaceNote, tx.now.AddDate(0, 0, -KeepDays)}, {spaceUse, tx.today() - KeepDays},
	} {
		lo, _ := tx.rows(r.space)
		hi := bytes.Clone(tx.row(r.space, r.before))
		for p := range tx.scan(lo, hi, false) {
			if due = append(due, bytes.Clone(p.Key)); len(due) == chunk {
				return due
			}
		}
	}
	return due
}

// pruneForever prunes every hour until ctx ends.
func (db *DB) pruneForever(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := db.Prune(ctx); err != nil && ctx.Err() == nil {
				db.cfg.Log.ErrorContext(ctx, "what is old was not pruned", "error", err)
			}
		}
	}
}
