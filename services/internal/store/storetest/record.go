package storetest

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

var recordTests = map[string]func(*test){
	"put sets times and etag":         putSetsConventions,
	"put of an equal record":          putEqual,
	"available actions stay out":      actionsStayOut,
	"got records may be changed":      gotMayBeChanged,
	"unique key of another":           uniqueKeyOfAnother,
	"unique key moves":                uniqueKeyMoves,
	"match":                           match,
	"message without the conventions": withoutConventions,
	"odd ids and values":              oddIDs,
}

func putSetsConventions(t *test) {
	created := timestamppb.New(t.clock.Now())
	v := sample("g", 1)
	t.update(t.ctx, func(tx *store.Tx) error { return samples.Put(tx, v) })
	want := sample("g", 1)
	want.CreateTime, want.UpdateTime, want.Etag = created, created, "1"
	if !proto.Equal(v, want) {
		t.Errorf("the caller's record is %v, want %v", v, want)
	}
	if got := t.get(t.ctx, "g-001"); !proto.Equal(got, want) {
		t.Errorf("stored is %v, want %v", got, want)
	}
	t.clock.advance(time.Hour)
	// A caller that builds the record anew keeps the time when it was created.
	changed := sample("g", 1)
	changed.Note = "changed"
	t.put(t.ctx, changed)
	want.UpdateTime, want.Etag, want.Note = timestamppb.New(t.clock.Now()), "2", "changed"
	if got := t.get(t.ctx, "g-001"); !proto.Equal(got, want) {
		t.Errorf("stored is %v, want %v", got, want)
	}
	imported := sample("g", 2)
	imported.CreateTime = timestamppb.New(time.Unix(1e9, 0))
	t.put(t.ctx, imported)
	if got := t.get(t.ctx, "g-002"); !proto.Equal(got.GetCreateTime(), imported.GetCreateTime()) {
		t.Errorf("got create_time %v, want the one given, %v", got.GetCreateTime(), imported.GetCreateTime())
	}
}

func putEqual(t *test) {
	t.put(t.ctx, sample("g", 1))
	want := t.get(t.ctx, "g-001")
	t.clock.advance(time.Hour)
	v := sample("g", 1)
	v.Etag, v.UpdateTime = "77", timestamppb.New(t.clock.Now())
	t.update(t.ctx, func(tx *store.Tx) error { return samples.Put(tx, v) })
	if !proto.Equal(v, want) {
		t.Errorf("the caller's record is %v, want what is stored: %v", v, want)
	}
	if got := t.get(t.ctx, "g-001"); !proto.Equal(got, want) {
		t.Errorf("stored is %v, want %v", got, want)
	}
}

func actionsStayOut(t *test) {
	v := sample("g", 1)
	v.AvailableActions = []string{"void"}
	t.update(t.ctx, func(tx *store.Tx) error { return samples.Put(tx, v) })
	if got := v.GetAvailableActions(); len(got) != 1 || got[0] != "void" {
		t.Errorf("the caller's record lost its actions: %v", got)
	}
	if got := t.get(t.ctx, "g-001").GetAvailableActions(); got != nil {
		t.Errorf("stored are actions %v", got)
	}
	v.AvailableActions = []string{"issue", "void"}
	t.update(t.ctx, func(tx *store.Tx) error { return samples.Put(tx, v) })
	if got := t.get(t.ctx, "g-001").GetEtag(); got != "1" {
		t.Errorf("a put with other actions is a change: etag %s", got)
	}
}

func gotMayBeChanged(t *test) {
	t.put(t.ctx, sample("g", 1))
	t.update(t.ctx, func(tx *store.Tx) error {
		v, _ := samples.Get(tx, "g-001")
		v.Number, v.Group = "other", "h"
		again, _ := samples.Get(tx, "g-001")
		if again.GetGroup() != "g" {
			t.Errorf("changing what Get returned changed the store: %v", again)
		}
		return samples.Put(tx, v)
	})
	t.view(t.ctx, func(tx *store.Tx) {
		_, old := byNumber.First(tx, "g/1")
		_, now := byNumber.First(tx, "other")
		if old || !now {
			t.Errorf("old number found: %t, new number found: %t", old, now)
		}
		t.wantIDs(ids(byGroup.Scan(tx, byGroup.Range("g"))))
		t.wantIDs(ids(byGroup.Scan(tx, byGroup.Range("h"))), "g-001")
	})
}

func uniqueKeyOfAnother(t *test) {
	t.put(t.ctx, sample("g", 1), sample("g", 2))
	err := t.db.Update(t.ctx, func(tx *store.Tx) error {
		v, _ := samples.Get(tx, "g-002")
		v.Number, v.Group = "g/1", "h"
		err := samples.Put(tx, v)
		t.wantReason(err, "RECORD_EXISTS")
		// Whoever goes on after the error finds that nothing was written.
		t.wantIDs(ids(byGroup.Scan(tx, byGroup.Range("g"))), "g-001", "g-002")
		return err
	})
	t.wantReason(err, "RECORD_EXISTS")
	if f, ok := err.(*fault.Error); ok && (f.Metadata["kind"] != "sample" || f.Metadata["field"] != "number") {
		t.Errorf("got metadata %v", f.Metadata)
	}
	t.put(t.ctx, &storepb.Sample{Id: "x"}, &storepb.Sample{Id: "y"}) // no number is no conflict
}

func uniqueKeyMoves(t *test) {
	t.put(t.ctx, sample("g", 1), sample("g", 2))
	t.update(t.ctx, func(tx *store.Tx) error {
		one, _ := samples.Get(tx, "g-001")
		two, _ := samples.Get(tx, "g-002")
		one.Number = ""
		if err := samples.Put(tx, one); err != nil {
			return err
		}
		two.Number, one.Number = "g/1", "g/2"
		if err := samples.Put(tx, two); err != nil {
			return err
		}
		return samples.Put(tx, one)
	})
	t.update(t.ctx, func(tx *store.Tx) error {
		samples.Delete(tx, "g-001")
		v := sample("g", 3)
		v.Number = "g/2"
		return samples.Put(tx, v)
	})
	t.view(t.ctx, func(tx *store.Tx) {
		for number, want := range map[string]string{"g/1": "g-002", "g/2": "g-003"} {
			if v, _ := byNumber.First(tx, number); v.GetId() != want {
				t.Errorf("number %s: got %q, want %q", number, v.GetId(), want)
			}
		}
	})
}

func match(t *test) {
	t.put(t.ctx, sample("g", 1))
	v := t.get(t.ctx, "g-001")
	for _, etag := range []string{"", v.GetEtag()} {
		if err := samples.Match(v, etag); err != nil {
			t.Errorf("etag %q: got error %v", etag, err)
		}
	}
	err := samples.Match(v, "0")
	t.wantReason(err, "ETAG_STALE")
	if f, ok := err.(*fault.Error); ok && (f.Metadata["id"] != "g-001" || f.Metadata["etag"] != "1") {
		t.Errorf("got metadata %v", f.Metadata)
	}
}

func withoutConventions(t *test) {
	want := &storepb.Answer{Response: []byte("x")}
	t.update(t.ctx, func(tx *store.Tx) error { return notes.Put(tx, proto.CloneOf(want)) })
	t.view(t.ctx, func(tx *store.Tx) {
		if got, ok := notes.Get(tx, want.String()); !ok || !proto.Equal(got, want) {
			t.Errorf("got %v, %t, want %v", got, ok, want)
		}
	})
}

func oddIDs(t *test) {
	var want []string
	for _, id := range []string{"\x00", "\x00\x01", "\x01", " ", "a", "a\x00", "a\x00b", "aa", "\u00fc", "\U0010ffff"} {
		t.put(t.ctx, &storepb.Sample{Id: id, Number: id, Tags: []string{id, id}})
		want = append(want, id)
	}
	t.view(t.ctx, func(tx *store.Tx) {
		t.wantIDs(ids(samples.All(tx)), want...)
		t.wantIDs(ids(byTag.Scan(tx, byTag.Range())), want...)
		for _, id := range want {
			v, ok := byNumber.First(tx, id)
			if !ok || v.GetId() != id || !samples.Has(tx, id) {
				t.Errorf("record %q is not found", id)
			}
		}
	})
}
