package lease

import "time"

// Now tells the time by which Learn wants to know when a list was read.
func (h *Hub) Now() time.Duration { return h.config.Clock() }

// Join makes the hub that of a replica, which enter puts on the list under an id that was
// never used before. Enter returns the list with it, or an error, which Join returns.
//
// No Wait returns from before enter is called until all leases have run out that were
// granted by a list without the replica: the source may write at once, but is not done
// before. It is called again when the replica was taken off the list.
func (h *Hub) Join(id string, enter func() (List, error)) error {
	h.suspend()
	read := h.Now()
	list, err := enter()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id = id
	h.learn(list, read)
	if h.config.FirstStart && list.Number == 1 {
		h.remove(h.former, nil) // there was never a source, and nobody could have had a lease
		h.former = nil
		return nil
	}
	// SECURITY: the clock is read after enter has returned. A lease by a list without this
	// replica ends at most Duration after that list was read, which was before.
	h.former.until = h.config.Clock() + h.config.Quarantine
	h.former.timer.Reset(h.config.Quarantine)
	return nil
}

// suspend has no Wait return until further notice.
func (h *Hub) suspend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.former != nil && h.former.until == forever {
		return
	}
	before := h.former
	h.former = &member{name: "unknown subscribers of a former life", until: forever}
	h.add(h.former)
	if before != nil {
		h.remove(before, nil)
	}
}

// Learn says what the list of replicas was at some time after read, a time by Now. The hub
// grants leases by it until Duration after read: whoever comes later and waits for so
// long can rely on it that nobody goes by a list without him.
func (h *Hub) Learn(list List, read time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.learn(list, read)
}

// learn is Learn with h.mu held.
func (h *Hub) learn(list List, read time.Duration) {
	if list.Number < h.list.Number || list.Number == h.list.Number && read < h.read {
		return // it was overtaken
	}
	changed := list.Number != h.list.Number
	h.list, h.read = list, read
	for _, m := range h.members {
		if m.link != nil && (changed || m.link.ping != m.link.ponged) {
			m.nudge()
		}
	}
}

// grantable returns how long a lease that is granted now may last, 0 for not at all. h.mu
// is held.
func (h *Hub) grantable() time.Duration {
	if !h.config.Replicated {
		return h.config.Duration
	}
	if h.list.Number == 0 {
		return 0
	}
	left := h.read + h.config.Duration - h.config.Clock()
	if left < h.config.Duration/pingsPerLease {
		return 0 // hardly worth it: the answer comes with the next list
	}
	return min(left, h.config.Duration)
}

// Empty returns a channel that is closed once no subscriber has a stream. A replica that
// has left the list waits for it: they go on to the others meanwhile.
func (h *Hub) Empty() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.empty == nil {
		h.empty = make(chan struct{})
	}
	h.checkEmpty()
	return h.empty
}

// checkEmpty closes the channel of Empty if it is time. h.mu is held.
func (h *Hub) checkEmpty() {
	if h.empty == nil {
		return
	}
	select {
	case <-h.empty:
		return
	default:
	}
	for _, m := range h.members {
		if m.link != nil {
			return
		}
	}
	close(h.empty)
}
