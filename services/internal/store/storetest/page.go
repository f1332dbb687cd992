package storetest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var pageTests = map[string]func(*test){
	"pages":                    pages,
	"page sizes":               pageSizes,
	"pages of merged ranges":   mergedPages,
	"pages that are filtered":  filteredPages,
	"budget of a page":         pageBudget,
	"pages while data changes": changingPages,
	"page of own writes":       pageOfOwnWrites,
	"tokens of others":         tokensOfOthers,
	"tokens tell nothing":      tokensTellNothing,
	"tokens after reopen":      tokensAfterReopen,
}

type sampleRange = store.Range[*storepb.Sample]

// page returns one page as a call would.
func (t *test) page(req *storepb.ListSamplesRequest, ranges ...sampleRange) (got []string, next string) {
	t.Helper()
	return t.keptPage(req, nil, ranges...)
}

func (t *test) keptPage(req *storepb.ListSamplesRequest, keep func(*storepb.Sample) bool, ranges ...sampleRange) (got []string, next string) {
	t.Helper()
	t.view(t.ctx, func(tx *store.Tx) {
		items, token, err := store.Page(tx, req, keep, ranges...)
		if err != nil {
			t.Fatalf("page: %v", err)
		}
		got, next = ids(slices.Values(items)), token
	})
	return got, next
}

// allPages returns the ids of all pages, and fails the test if one is too big.
func (t *test) allPages(size int32, keep func(*storepb.Sample) bool, ranges ...sampleRange) []string {
	t.Helper()
	var all []string
	req := &storepb.ListSamplesRequest{PageSize: size}
	for {
		got, next := t.keptPage(req, keep, ranges...)
		if all = append(all, got...); len(got) > int(size) {
			t.Fatalf("got %d records in a page of %d", len(got), size)
		}
		if next == "" {
			return all
		}
		req.PageToken = next
	}
}

func (t *test) putMany(group string, n int) (all []string) {
	t.Helper()
	var records []*storepb.Sample
	for i := range n {
		records = append(records, sample(group, i))
		all = append(all, records[i].GetId())
	}
	t.put(t.ctx, records...)
	return all
}

func pages(t *test) {
	want := t.putMany("g", 23)
	t.putMany("h", 3)
	down := slices.Clone(want)
	slices.Reverse(down)
	for _, size := range []int32{1, 5, 22, 23, 24} {
		t.wantIDs(t.allPages(size, nil, byGroup.Range("g")), want...)
		t.wantIDs(t.allPages(size, nil, byGroup.Range("g").Reverse()), down...)
		t.wantIDs(t.allPages(size, nil, byRank.Range("g")), down...)
		t.wantIDs(t.allPages(size, nil, byGroup.Range("g").From(3).To(20)), want[3:20]...)
		t.wantIDs(t.allPages(size, nil, byGroup.Range("g").From(3).To(20).Reverse()), down[3:20]...)
		t.wantIDs(t.allPages(size, nil, samples.Range().To("h")), want...)
	}
	if got, next := t.page(&storepb.ListSamplesRequest{PageSize: 23}, byGroup.Range("g")); len(got) != 23 || next != "" {
		t.Errorf("got %d records and token %q of a page that holds all", len(got), next)
	}
	if got, next := t.page(&storepb.ListSamplesRequest{}); len(got) != 0 || next != "" {
		t.Errorf("got %v and token %q of no range", got, next)
	}
}

func pageSizes(t *test) {
	t.putMany("g", 510)
	for size, want := range map[int32]int{0: 50, 1: 1, 500: 500, 501: 500, 1 << 30: 500} {
		if got, _ := t.page(&storepb.ListSamplesRequest{PageSize: size}, byGroup.Range("g")); len(got) != want {
			t.Errorf("page_size %d: got %d records, want %d", size, len(got), want)
		}
	}
	t.view(t.ctx, func(tx *store.Tx) {
		_, _, err := store.Page(tx, &storepb.ListSamplesRequest{PageSize: -1}, nil, byGroup.Range("g"))
		t.wantReason(err, "FIELD_INVALID")
	})
	// A token is good for pages of another size.
	_, next := t.page(&storepb.ListSamplesRequest{PageSize: 3}, byGroup.Range("g"))
	got, _ := t.page(&storepb.ListSamplesRequest{PageSize: 2, PageToken: next}, byGroup.Range("g"))
	t.wantIDs(got, "g-003", "g-004")
}

// mergedPages pages over groups in the order of the rank, and over tags, of which a
// record has several.
func mergedPages(t *test) {
	var want []string
	for i := range 12 {
		group := fmt.Sprintf("g%d", i%3)
		v := sample(group, i)
		v.Tags = []string{"all", group, fmt.Sprintf("odd%d", i%2)}
		t.put(t.ctx, v)
		want = append(want, v.GetId())
	}
	down := slices.Clone(want)
	slices.Reverse(down)
	groups := []sampleRange{byGroup.Range("g2"), byGroup.Range("g0"), byGroup.Range("none"), byGroup.Range("g1"), byGroup.Range("g0")}
	var backward []sampleRange
	for _, r := range groups {
		backward = append(backward, r.Reverse())
	}
	byID := slices.Sorted(slices.Values(want))
	for _, size := range []int32{1, 2, 5, 12, 50} {
		t.wantIDs(t.allPages(size, nil, groups...), want...)
		t.wantIDs(t.allPages(size, nil, backward...), down...)
		t.wantIDs(t.allPages(size, nil, byTag.Range("all"), byTag.Range("odd1"), byTag.Range("g2"), samples.Range().To("g1")), byID...)
	}
}

func filteredPages(t *test) {
	all := t.putMany("g", 60)
	var want []string
	for i := 0; i < len(all); i += 7 {
		want = append(want, all[i])
	}
	keep := func(v *storepb.Sample) bool { return v.GetRank()%7 == 0 }
	for _, size := range []int32{1, 3, 9, 10} {
		t.wantIDs(t.allPages(size, keep, byGroup.Range("g")), want...)
		t.wantIDs(t.allPages(size, keep, byGroup.Range("g").To(30), byGroup.Range("g").From(20)), want...)
	}
}

// pageBudget finds that a search without results is interrupted and goes on.
func pageBudget(t *test) {
	all := t.putMany("g", 2100)
	searched := 0
	last := func(v *storepb.Sample) bool { searched++; return v.GetId() == all[len(all)-1] }
	req := &storepb.ListSamplesRequest{PageSize: 1}
	got, next := t.keptPage(req, last, byGroup.Range("g"))
	if len(got) != 0 || next == "" || searched != 1020 {
		t.Fatalf("got %v, token %q after %d records, want an empty page after 1020", got, next, searched)
	}
	t.wantIDs(t.allPages(1, last, byGroup.Range("g")), all[len(all)-1])
}

// changingPages finds that records which stay are seen once, whatever happens to others.
func changingPages(t *test) {
	t.putMany("g", 9)
	req := &storepb.ListSamplesRequest{PageSize: 3}
	var got []string
	for i := 0; ; i++ {
		some, next := t.page(req, byGroup.Range("g"))
		if got = append(got, some...); next == "" {
			break
		}
		t.update(t.ctx, func(tx *store.Tx) error {
			samples.Delete(tx, some[len(some)-1]) // the place of the token
			v := sample("g", 100+i)
			v.Rank = 0 // before all places
			return samples.Put(tx, v)
		})
		req.PageToken = next
	}
	t.wantIDs(got, "g-000", "g-001", "g-002", "g-003", "g-004", "g-005", "g-006", "g-007", "g-008")
}

func pageOfOwnWrites(t *test) {
	t.putMany("g", 3)
	t.update(t.ctx, func(tx *store.Tx) error {
		samples.Delete(tx, "g-001")
		if err := samples.Put(tx, sample("g", 7)); err != nil {
			return err
		}
		items, _, err := store.Page(tx, &storepb.ListSamplesRequest{}, nil, byGroup.Range("g").To(1), byGroup.Range("g").From(1))
		t.wantIDs(ids(slices.Values(items)), "g-000", "g-002", "g-007")
		return err
	})
}

func tokensOfOthers(t *test) {
	t.putMany("g", 9)
	req := &storepb.ListSamplesRequest{PageSize: 3, Group: "g"}
	_, token := t.page(req, byGroup.Range("g"))
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatalf("token %q: %v", token, err)
	}
	flip := func(i int) string {
		b := slices.Clone(raw)
		b[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	ctx := t.ctx
	for name, c := range map[string]struct {
		ctx   func()
		token string
		group string
	}{
		"another request":    {token: token, group: "h"},
		"another tenant":     {token: token, group: "g", ctx: func() { t.ctx = as("other", "ann") }},
		"another caller":     {token: token, group: "g", ctx: func() { t.ctx = as("acme", "bob") }},
		"no base64":          {token: "%", group: "g"},
		"too short":          {token: token[:8], group: "g"},
		"cut":                {token: token[:len(token)-4], group: "g"},
		"changed version":    {token: flip(0), group: "g"},
		"changed tag":        {token: flip(1), group: "g"},
		"changed place":      {token: flip(len(raw) - 1), group: "g"},
		"longer":             {token: token + "AAAA", group: "g"},
		"token as plain key": {token: base64.RawURLEncoding.EncodeToString([]byte("g-003")), group: "g"},
	} {
		if t.ctx = ctx; c.ctx != nil {
			c.ctx()
		}
		t.view(t.ctx, func(tx *store.Tx) {
			_, _, err := store.Page(tx, &storepb.ListSamplesRequest{PageToken: c.token, Group: c.group}, nil, byGroup.Range("g"))
			if t.wantReason(err, "PAGE_TOKEN_INVALID"); t.Failed() {
				t.Fatalf("%s", name)
			}
		})
	}
	t.ctx = ctx
	good := proto.CloneOf(req)
	good.PageToken = token
	if got, _ := t.page(good, byGroup.Range("g")); len(got) != 3 {
		t.Errorf("got %v with the right token", got)
	}
}

// tokensTellNothing looks for the key in the token.
func tokensTellNothing(t *test) {
	t.putMany("secretgroup", 3)
	_, token := t.page(&storepb.ListSamplesRequest{PageSize: 1}, byGroup.Range())
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || token == "" {
		t.Fatalf("token %q: %v", token, err)
	}
	if bytes.Contains(raw, []byte("secret")) {
		t.Errorf("token %q tells the key", raw)
	}
}

func tokensAfterReopen(t *test) {
	t.putMany("g", 5)
	_, token := t.page(&storepb.ListSamplesRequest{PageSize: 3}, byGroup.Range("g"))
	t.reopen()
	got, _ := t.page(&storepb.ListSamplesRequest{PageToken: token}, byGroup.Range("g"))
	t.wantIDs(got, "g-003", "g-004")
}
