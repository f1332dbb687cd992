package lease

// logSize is how many tags a tagLog remembers. A reader that falls further behind
// must assume the worst, so the number trades 64 KiB of memory against needless
// drops in a burst; it has no bearing on correctness.
const logSize = 4096

// tagLog remembers the newest tags in order. It answers what came after a
// position, or that it no longer knows. The zero value is not usable.
type tagLog struct {
	ring []string
	next uint64 // position of the next tag; the tag at position p stands at p % len(ring)
}

func newTagLog(size int) tagLog {
	return tagLog{ring: make([]string, size)}
}

func (l *tagLog) add(tag string) {
	l.ring[l.next%uint64(len(l.ring))] = tag
	l.next++
}

// forget makes every position up to now one of which the log knows nothing: it
// stands for more tags than the log could hold.
func (l *tagLog) forget() {
	l.next += uint64(len(l.ring)) + 1
	clear(l.ring)
}

// knows reports whether each tag since the position is still in the log.
func (l *tagLog) knows(since uint64) bool {
	return l.next-since <= uint64(len(l.ring))
}

// since yields the tags added at the position and after. The log must know them.
func (l *tagLog) since(position uint64) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for p := position; p != l.next; p++ {
			if !yield(l.ring[p%uint64(len(l.ring))]) {
				return
			}
		}
	}
}
