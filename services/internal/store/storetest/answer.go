package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var answerTests = map[string]func(*test){
	"a repeat gets the first answer":   repeatGetsAnswer,
	"request id of another request":    requestIDReused,
	"request ids of others":            requestIDsOfOthers,
	"errors are not kept":              errorsNotKept,
	"an answer without a change":       answerWithoutChange,
	"answers are pruned":               answersPruned,
	"many answers are pruned":          manyAnswersPruned,
	"validate only":                    validateOnly,
	"without request id":               withoutRequestID,
	"request without the conventions":  requestWithoutConventions,
	"concurrent repeats take one turn": concurrentRepeats,
}

// save is a handler that creates a record with a new id each time it runs.
func (t *test) save(ctx context.Context, requestID, note string, validateOnly bool) (*storepb.Sample, error) {
	req := &storepb.SaveSampleRequest{Sample: &storepb.Sample{Note: note}, RequestId: requestID, ValidateOnly: validateOnly}
	return store.Do(ctx, t.db, req, func(tx *store.Tx) (*storepb.Sample, error) {
		v := &storepb.Sample{Id: fmt.Sprintf("%s-%d", note, tx.Revision()), Note: note}
		return v, samples.Put(tx, v)
	})
}

func (t *test) count(ctx context.Context) (n int) {
	t.Helper()
	t.view(ctx, func(tx *store.Tx) { n = samples.Count(tx, samples.Range()) })
	return n
}

func repeatGetsAnswer(t *test) {
	first, err := t.save(t.ctx, "r1", "a", false)
	if err != nil {
		t.Fatal(err)
	}
	t.clock.advance(time.Hour)
	for range 2 {
		again, err := t.save(t.ctx, "r1", "a", false)
		if err != nil || !proto.Equal(again, first) {
			t.Errorf("got %v, %v, want the first answer %v", again, err, first)
		}
		t.reopen()
	}
	if n := t.count(t.ctx); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
	if n := len(t.journal("acme", 0)); n != 1 {
		t.Errorf("got %d entries, want 1", n)
	}
}

func requestIDReused(t *test) {
	if _, err := t.save(t.ctx, "r1", "a", false); err != nil {
		t.Fatal(err)
	}
	got, err := t.save(t.ctx, "r1", "b", false)
	t.wantReason(err, "REQUEST_ID_REUSED")
	if got != nil {
		t.Errorf("got %v with the error", got)
	}
}

func requestIDsOfOthers(t *test) {
	other := store.OriginOf(t.ctx)
	other.Method = "latchkey.store.v1.SampleService/Other"
	elsewhere := store.OriginOf(t.ctx)
	elsewhere.Party = "beta"
	for _, ctx := range []context.Context{
		t.ctx, as("acme", "bob"), as("beta", "ann"), store.WithOrigin(t.ctx, other), store.WithOrigin(t.ctx, elsewhere),
	} {
		before := t.count(ctx)
		if _, err := t.save(ctx, "r1", fmt.Sprint("n", before), false); err != nil {
			t.Errorf("got error %v for %+v", err, store.OriginOf(ctx))
		}
		if n := t.count(ctx); n != before+1 {
			t.Errorf("%+v: got %d records, want %d", store.OriginOf(ctx), n, before+1)
		}
	}
}

func errorsNotKept(t *test) {
	req := &storepb.SaveSampleRequest{RequestId: "r1"}
	no := errors.New("no")
	got, err := store.Do(t.ctx, t.db, req, func(*store.Tx) (*storepb.Sample, error) { return noted("x", "half"), no })
	if err != no || got != nil {
		t.Errorf("got %v, %v, want the function's error alone", got, err)
	}
	got, err = store.Do(t.ctx, t.db, req, func(*store.Tx) (*storepb.Sample, error) { return noted("x", "whole"), nil })
	if err != nil || got.GetNote() != "whole" {
		t.Errorf("got %v, %v after an error", got, err)
	}
}

func answerWithoutChange(t *test) {
	for range 2 {
		req := &storepb.SaveSampleRequest{RequestId: "r1"}
		got, err := store.Do(t.ctx, t.db, req, func(tx *store.Tx) (*storepb.Sample, error) {
			return noted("now", tx.Now().String()), nil
		})
		if err != nil || got.GetNote() != time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC).String() {
			t.Errorf("got %v, %v, want the first answer", got, err)
		}
		t.clock.advance(time.Minute)
	}
	if n := len(t.journal("acme", 0)); n != 0 {
		t.Errorf("an answer alone made %d entries", n)
	}
}

func answersPruned(t *test) {
	first, err := t.save(t.ctx, "r1", "a", false)
	if err != nil {
		t.Fatal(err)
	}
	t.clock.advance(23 * time.Hour)
	if _, err := t.save(t.ctx, "r2", "b", false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		advance time.Duration
		want    bool // the first answer is still known
	}{{0, true}, {time.Hour, true}, {24 * time.Hour, false}} {
		t.clock.advance(c.advance)
		if err := t.db.Prune(t.ctx); err != nil {
			t.Fatal(err)
		}
		again, err := t.save(t.ctx, "r1", "a", false)
		if err != nil || proto.Equal(again, first) != c.want {
			t.Errorf("%v later: got %v, %v, want the first answer: %t", c.advance, again, err, c.want)
		}
	}
	if again, err := t.save(t.ctx, "r2", "b", false); err != nil || again.GetId() != "b-2" {
		t.Errorf("got %v, %v, want the answer of the younger request", again, err)
	}
}

// manyAnswersPruned prunes more than one transaction does, in several tenants.
func manyAnswersPruned(t *test) {
	const n = 540
	for i := range n {
		tenant := "acme"
		if i%20 == 0 {
			tenant = "beta"
		}
		if _, err := t.save(as(tenant, "ann"), fmt.Sprint("r", i), "n", false); err != nil {
			t.Fatal(err)
		}
	}
	rows := t.rows()
	t.clock.advance(48 * time.Hour)
	if err := t.db.Prune(t.ctx); err != nil {
		t.Fatal(err)
	}
	if got := rows - t.rows(); got != n {
		t.Errorf("pruning removed %d rows, want %d", got, n)
	}
}

// rows counts everything in the engine.
func (t *test) rows() (n int) {
	t.Helper()
	t.close()
	e := t.open()
	err := e.View(t.ctx, func(s store.Snapshot) error {
		for _, err := range s.Scan([]byte{0}, []byte{0xff}, false) {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.openOver(e, schema)
	return n
}

func validateOnly(t *test) {
	v, err := t.save(t.ctx, "r1", "a", true)
	if err != nil || v.GetId() != "a-1" || v.GetEtag() != "1" {
		t.Errorf("got %v, %v, want the answer as if it were done", v, err)
	}
	if n := t.count(t.ctx); n != 0 {
		t.Errorf("validate_only left %d records", n)
	}
	if _, err := t.save(t.ctx, "r1", "a", false); err != nil {
		t.Errorf("got error %v of the request itself", err)
	}
	req := &storepb.SaveSampleRequest{ValidateOnly: true}
	t.put(t.ctx, sample("g", 1))
	_, err = store.Do(t.ctx, t.db, req, func(tx *store.Tx) (*storepb.Sample, error) {
		v := sample("g", 1)
		v.Id = "other"
		tx.Emit(v)
		return v, samples.Put(tx, v)
	})
	t.wantReason(err, "RECORD_EXISTS")
	if n := len(t.journal("acme", 0)); n != 2 {
		t.Errorf("got %d entries, want 2", n)
	}
}

func withoutRequestID(t *test) {
	for range 2 {
		if _, err := t.save(t.ctx, "", "a", false); err != nil {
			t.Fatal(err)
		}
	}
	if n := t.count(t.ctx); n != 2 {
		t.Errorf("got %d records, want 2", n)
	}
}

func requestWithoutConventions(t *test) {
	v, err := store.Do(t.ctx, t.db, &storepb.Position{}, func(tx *store.Tx) (*storepb.Sample, error) {
		v := sample("g", 1)
		return v, samples.Put(tx, v)
	})
	if err != nil || v.GetEtag() != "1" {
		t.Errorf("got %v, %v", v, err)
	}
}

func concurrentRepeats(t *test) {
	type answer struct {
		v   *storepb.Sample
		err error
	}
	answers := make(chan answer)
	for range 8 {
		go func() {
			v, err := t.save(t.ctx, "r1", "a", false)
			answers <- answer{v, err}
		}()
	}
	for range 8 {
		if a := <-answers; a.err != nil || a.v.GetId() != "a-1" {
			t.Errorf("got %v, %v, want the one answer", a.v, a.err)
		}
	}
	if n := t.count(t.ctx); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
}
