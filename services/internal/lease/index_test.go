package lease

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func newTestIndex(max int) (*index[int], *hold) {
	x := newIndex[int](max)
	h := newHold(plainClock())
	h.until.Store(1 << 62)
	return &x, h
}

// The index does what a list of entries that is searched from end to end would do.
func TestIndexAgainstAList(t *testing.T) {
	key := rapid.StringMatching(`[ab]{0,2}`)
	tags := rapid.SliceOfN(rapid.StringMatching(`[xy]{1,2}`), 1, 3)
	rapid.Check(t, func(t *rapid.T) {
		const max = 5
		x, h := newTestIndex(max)
		var list, made []*Entry[int]
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				e := &Entry[int]{key: key.Draw(t, "key"), tags: tags.Draw(t, "tags"), hold: h}
				x.put(e)
				made = append(made, e)
				list = append(slices.DeleteFunc(list, func(old *Entry[int]) bool { return old.key == e.key }), e)
				if len(list) > max {
					list = slices.DeleteFunc(list, func(old *Entry[int]) bool { return x.get(old.key) != old })
				}
			},
			"use": func(t *rapid.T) {
				if e := x.get(key.Draw(t, "key")); e != nil {
					e.touch()
				}
			},
			"watch": func(t *rapid.T) {
				if e := x.get(key.Draw(t, "key")); e != nil {
					e.Stale()
				}
			},
			"invalidate": func(t *rapid.T) {
				tag := tags.Draw(t, "tag")[0]
				x.invalidate(tag)
				list = slices.DeleteFunc(list, func(e *Entry[int]) bool { return slices.Contains(e.tags, tag) })
			},
			"remove": func(t *rapid.T) {
				if e := x.get(key.Draw(t, "key")); e != nil {
					x.remove(e)
					list = slices.DeleteFunc(list, func(old *Entry[int]) bool { return old == e })
				}
			},
			"clear": func(*rapid.T) {
				x.clear()
				list = nil
			},
			"": func(t *rapid.T) { agree(t, x, list, made) },
		})
	})
}

// agree checks that the index holds the entries of the list and no others, and that
// just they are valid.
func agree(t *rapid.T, x *index[int], list, made []*Entry[int]) {
	if len(x.slots) != len(list) || len(list) > x.max {
		t.Fatalf("the index holds %d entries, the list %d, of at most %d", len(x.slots), len(list), x.max)
	}
	tags := map[string]int{}
	for _, e := range list {
		if x.get(e.key) != e || x.slots[e.slot] != e {
			t.Fatalf("entry %q is lost", e.key)
		}
		for _, tag := range slices.Compact(slices.Sorted(slices.Values(e.tags))) {
			tags[tag]++
		}
	}
	if len(x.byTag) != len(tags) {
		t.Fatalf("the index knows %d tags, the list %d", len(x.byTag), len(tags))
	}
	for tag, count := range tags {
		if len(x.byTag[tag]) != count {
			t.Fatalf("the index knows %d entries of tag %q, the list %d", len(x.byTag[tag]), tag, count)
		}
	}
	for _, e := range made {
		if e.Valid() != slices.Contains(list, e) {
			t.Fatalf("entry %q is valid: %v", e.key, e.Valid())
		}
		if m := e.mark.Load(); m != nil && closed(m.ch) == e.Valid() {
			t.Fatalf("entry %q is valid: %v, and its Stale is closed: %v", e.key, e.Valid(), closed(m.ch))
		}
	}
}

// Readers find every entry that is there all the time, while its neighbours come and
// go. The table has one bucket, so all of them are neighbours.
func TestTableWhileItChanges(t *testing.T) {
	table := newTable[int](1)
	stay := []*Entry[int]{{key: "a"}, {key: "b"}, {key: "c"}}
	pass := []*Entry[int]{{key: "x"}, {key: "y"}, {key: "z"}}
	table.add(pass[0])
	for i := range stay {
		table.add(stay[i])
		if i > 0 {
			table.add(pass[i])
		}
	}
	var reading sync.WaitGroup
	ended := make(chan struct{})
	for range 2 {
		reading.Go(func() {
			for i := 0; !closed(ended); i++ {
				if e := stay[i%len(stay)]; table.get(e.key) != e {
					t.Errorf("entry %q is not found", e.key)
					return
				}
			}
		})
	}
	for i := range 20_000 {
		e := pass[i%len(pass)]
		table.remove(e)
		if table.get(e.key) != nil {
			t.Fatalf("entry %q is still found", e.key)
		}
		again := &Entry[int]{key: e.key}
		table.add(again)
		pass[i%len(pass)] = again
	}
	close(ended)
	reading.Wait()
}

// An entry that was used, or whose Stale somebody waits for, outlives one that was not.
func TestEvictionSparesWhatIsUsedAndWatched(t *testing.T) {
	x, h := newTestIndex(4)
	entries := make([]*Entry[int], 4)
	for i := range entries {
		entries[i] = &Entry[int]{key: fmt.Sprint(i), hold: h}
		x.put(entries[i])
	}
	entries[0].touch()
	stale := entries[1].Stale()
	x.put(&Entry[int]{key: "new", hold: h})
	if !entries[0].Valid() || !entries[1].Valid() || entries[2].Valid() || !entries[3].Valid() {
		t.Fatal("the wrong entry was evicted")
	}
	// When all are watched one must go, and those who watch it are told.
	for _, e := range x.slots {
		e.Stale()
	}
	for i := range 4 {
		x.put(&Entry[int]{key: fmt.Sprint("more", i), hold: h})
		for _, e := range x.slots {
			e.Stale()
		}
	}
	if len(x.slots) != 4 || !closed(stale) || entries[1].Valid() {
		t.Fatal("an evicted entry is valid, though no invalidation would reach it")
	}
}

func TestTagLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 4).Draw(t, "size")
		log := newTagLog(size)
		var since []string // since the beginning or the last forget
		var base uint64    // the position of the first of them
		var gone []uint64  // positions that were to be forgotten
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				tag := fmt.Sprint(len(since))
				log.add(tag)
				since = append(since, tag)
			},
			"forget": func(t *rapid.T) {
				gone = append(gone, log.next)
				log.forget()
				since, base = nil, log.next
			},
			"": func(t *rapid.T) {
				for back := range len(since) + 1 {
					position := base + uint64(len(since)-back)
					if log.knows(position) != (back <= size) {
						t.Fatalf("knows what was %d back: %v", back, log.knows(position))
					}
					if back > size {
						continue
					}
					if got := slices.Collect(log.since(position)); !slices.Equal(got, since[len(since)-back:]) {
						t.Fatalf("got %v, want the last %d of %v", got, back, since)
					}
				}
				if slices.ContainsFunc(gone, log.knows) {
					t.Fatal("knows what it was told to forget")
				}
			},
		})
	})
}
