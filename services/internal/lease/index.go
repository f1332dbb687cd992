package lease

// handSteps bounds the search for an entry to evict.
const handSteps = 32

// index holds the entries by key and by tag. Its get may be called at any time; the
// other methods under the cache's mu.
type index[V any] struct {
	byKey table[V]
	byTag map[string]map[*Entry[V]]struct{}

	max   int
	slots []*Entry[V] // all entries, in no order
	hand  int         // where in slots the eviction looks next
}

func newIndex[V any](max int) index[V] {
	return index[V]{
		byKey: newTable[V](max),
		byTag: make(map[string]map[*Entry[V]]struct{}),
		max:   max,
	}
}

// get returns the entry of the key, or nil. It may have been dropped since.
func (x *index[V]) get(key string) *Entry[V] { return x.byKey.get(key) }

// put adds an entry in place of the one with its key, if there is one.
func (x *index[V]) put(e *Entry[V]) {
	if old := x.get(e.key); old != nil {
		x.remove(old)
	}
	if len(x.slots) >= x.max {
		x.remove(x.victim())
	}
	e.slot = len(x.slots)
	x.slots = append(x.slots, e)
	for _, tag := range e.tags {
		entries := x.byTag[tag]
		if entries == nil {
			entries = make(map[*Entry[V]]struct{}, 1)
			x.byTag[tag] = entries
		}
		entries[e] = struct{}{}
	}
	x.byKey.add(e)
}

// remove drops an entry of the index and forgets it.
func (x *index[V]) remove(e *Entry[V]) {
	e.drop()
	x.byKey.remove(e)
	for _, tag := range e.tags {
		entries := x.byTag[tag]
		delete(entries, e)
		if len(entries) == 0 {
			delete(x.byTag, tag)
		}
	}
	last := len(x.slots) - 1
	moved := x.slots[last]
	x.slots[e.slot], moved.slot = moved, e.slot
	x.slots[last] = nil
	x.slots = x.slots[:last]
}

// victim returns the entry to evict: one not used since the hand last came by and
// whose Stale nobody asked for, if a short search finds one, else the next in turn.
func (x *index[V]) victim() *Entry[V] {
	if x.hand >= len(x.slots) {
		x.hand = 0
	}
	first := x.hand
	x.hand++
	for i := range min(handSteps, len(x.slots)) {
		at := (first + i) % len(x.slots)
		if e := x.slots[at]; !e.used.Swap(false) && !e.watched() {
			x.hand = at + 1
			return e
		}
	}
	return x.slots[first]
}

// invalidate drops every entry with the tag.
func (x *index[V]) invalidate(tag string) {
	for e := range x.byTag[tag] {
		x.remove(e)
	}
}

// clear drops every entry.
func (x *index[V]) clear() {
	for _, e := range x.slots {
		e.drop()
	}
	x.slots, x.hand = nil, 0
	clear(x.byTag)
	x.byKey.clear()
}
