package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var modelTests = map[string]func(*test){
	"random transactions against maps": randomTransactions,
}

// model is what the store should hold for one tenant.
type model map[string]*storepb.Sample

// sorted returns the ids of the records that are wanted, in the order of less.
func (m model) sorted(want func(*storepb.Sample) bool, less func(a, b *storepb.Sample) int) []string {
	var all []*storepb.Sample
	for _, v := range m {
		if want(v) {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, less)
	return ids(slices.Values(all))
}

func byID(a, b *storepb.Sample) int { return cmp.Compare(a.GetId(), b.GetId()) }

func byRankThenID(a, b *storepb.Sample) int {
	return cmp.Or(cmp.Compare(a.GetRank(), b.GetRank()), byID(a, b))
}

func (m model) holds(number string) (id string) {
	for _, v := range m {
		if number != "" && v.GetNumber() == number {
			return v.GetId()
		}
	}
	return ""
}

// randomTransactions runs transactions of random operations, some of which fail in
// the end, and compares everything that can be read with a map, within the transaction
// and after it.
func randomTransactions(t *test) {
	n := 0
	rapid.Check(t.T, func(rt *rapid.T) {
		n++
		r := &run{test: t, rt: rt, models: map[string]model{}}
		for _, tenant := range []string{fmt.Sprint("a", n), fmt.Sprint("a", n, "\x00b")} {
			r.models[tenant] = model{}
		}
		for range rapid.IntRange(1, 6).Draw(rt, "transactions") {
			r.transaction(rapid.SampledFrom(slices.Sorted(maps.Keys(r.models))).Draw(rt, "tenant"))
		}
		for tenant := range r.models {
			if err := errors.Join(t.db.VerifyJournal(t.ctx, tenant), t.db.VerifyRecords(t.ctx, tenant)); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

type run struct {
	*test
	rt     *rapid.T
	models map[string]model
}

// operation is drawn before the transaction, which may run more than once.
type operation struct {
	kind     string
	v        *storepb.Sample
	from, to int
}

var (
	someID     = rapid.SampledFrom([]string{"a", "aa", "b", "c\x00", "d"})
	someNumber = rapid.SampledFrom([]string{"", "1", "2", "3"})
	someGroup  = rapid.SampledFrom([]string{"", "x", "x\x00", "y"})
)

func (r *run) draw() operation {
	kind := rapid.SampledFrom([]string{"put", "put", "put", "delete", "change all", "compare"}).Draw(r.rt, "kind")
	return operation{kind: kind,
		v: &storepb.Sample{
			Id: someID.Draw(r.rt, "id"), Number: someNumber.Draw(r.rt, "number"), Group: someGroup.Draw(r.rt, "group"),
			Rank: rapid.Int64Range(-2, 2).Draw(r.rt, "rank"), Tags: rapid.SliceOfN(someGroup, 0, 3).Draw(r.rt, "tags"),
		},
		from: rapid.IntRange(-2, 2).Draw(r.rt, "from"), to: rapid.IntRange(-2, 2).Draw(r.rt, "to"),
	}
}

func (r *run) transaction(tenant string) {
	var operations []operation
	for range rapid.IntRange(1, 12).Draw(r.rt, "operations") {
		operations = append(operations, r.draw())
	}
	fails := rapid.IntRange(0, 4).Draw(r.rt, "fails") == 0
	ctx := as(tenant, "ann")
	var after model
	err := r.db.Update(ctx, func(tx *store.Tx) error {
		after = maps.Clone(r.models[tenant])
		for _, op := range operations {
			r.apply(tx, after, op)
		}
		if fails {
			return errBoom
		}
		return nil
	})
	switch {
	case fails && err != errBoom || !fails && err != nil:
		r.rt.Fatalf("update: %v", err)
	case !fails:
		r.models[tenant] = after
	}
	r.compare(ctx, tenant)
}

func (r *run) apply(tx *store.Tx, m model, op operation) {
	switch op.kind {
	case "put":
		v := proto.CloneOf(op.v)
		err := samples.Put(tx, v)
		if holder := m.holds(v.GetNumber()); holder != "" && holder != v.GetId() {
			if err == nil {
				r.rt.Fatalf("put %v although %q has its number", v, holder)
			}
			return
		}
		if err != nil {
			r.rt.Fatalf("put %v: %v", v, err)
		}
		m[v.GetId()] = proto.CloneOf(v)
	case "delete":
		samples.Delete(tx, op.v.GetId())
		delete(m, op.v.GetId())
	case "change all":
		for v := range byGroup.Scan(tx, byGroup.Range(op.v.GetGroup())) {
			v.Rank, v.Group = op.v.GetRank(), "y"
			if err := samples.Put(tx, v); err != nil {
				r.rt.Fatalf("put %v: %v", v, err)
			}
		}
		for id, v := range m {
			if v.GetGroup() == op.v.GetGroup() {
				changed := proto.CloneOf(v)
				changed.Rank, changed.Group = op.v.GetRank(), "y"
				m[id] = changed
			}
		}
	}
	r.compareTx(tx, m, op)
}

// compareTx compares what the transaction sees with the model.
func (r *run) compareTx(tx *store.Tx, m model, op operation) {
	all := func(*storepb.Sample) bool { return true }
	inGroup := func(v *storepb.Sample) bool { return v.GetGroup() == op.v.GetGroup() }
	group := byGroup.Range(op.v.GetGroup())
	down := func(a, b *storepb.Sample) int { return -byRankThenID(a, b) }
	within := func(v *storepb.Sample) bool {
		return inGroup(v) && v.GetRank() >= int64(op.from) && v.GetRank() < int64(op.to)
	}
	r.same("all", ids(samples.All(tx)), m.sorted(all, byID))
	r.same("all, reverse", ids(samples.Scan(tx, samples.Range().Reverse())), m.sorted(all, func(a, b *storepb.Sample) int { return byID(b, a) }))
	r.same("group", ids(byGroup.Scan(tx, group)), m.sorted(inGroup, byRankThenID))
	r.same("group, reverse", ids(byGroup.Scan(tx, group.Reverse())), m.sorted(inGroup, down))
	r.same("part", ids(byGroup.Scan(tx, group.From(op.from).To(op.to))), m.sorted(within, byRankThenID))
	r.same("tag", ids(byTag.Scan(tx, byTag.Range("x"))), m.sorted(func(v *storepb.Sample) bool { return slices.Contains(v.GetTags(), "x") }, byID))
	v, ok := byNumber.First(tx, op.v.GetNumber())
	if want := m.holds(op.v.GetNumber()); v.GetId() != want || ok != (want != "") {
		r.rt.Fatalf("number %q: got %v, want %q", op.v.GetNumber(), v, want)
	}
	got, ok := samples.Get(tx, op.v.GetId())
	want, there := m[op.v.GetId()]
	if ok != there || ok && !proto.Equal(stripped(got), stripped(want)) {
		r.rt.Fatalf("record %q: got %v, want %v", op.v.GetId(), got, want)
	}
}

// stripped returns the record without what the store sets.
func stripped(v *storepb.Sample) *storepb.Sample {
	v = proto.CloneOf(v)
	v.CreateTime, v.UpdateTime, v.Etag = nil, nil, ""
	return v
}

func (r *run) same(what string, got, want []string) {
	if !slices.Equal(got, want) {
		r.rt.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

// compare compares what a later transaction sees with the model.
func (r *run) compare(ctx context.Context, tenant string) {
	op := r.draw()
	err := r.db.View(ctx, func(tx *store.Tx) error {
		r.compareTx(tx, r.models[tenant], op)
		return nil
	})
	if err != nil {
		r.rt.Fatalf("view: %v", err)
	}
}
