package lease

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
)

func TestLeaseOfEveryReplicaIsNeeded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFacts(), newGroup(t)
		hubs := []*Hub{g.start("a"), g.start("b")}
		g.poll("a", "b")
		g.wires["b"].freeze()
		c := g.cache(f, "a")
		synctest.Wait()
		wantLost(t, c, "k")
		g.wires["b"].thaw()
		held(t, c)
		for _, source := range hubs {
			e := want(t, c, "k", f.versions["k"])
			version := revoke(t, source, f, "k")
			if e.Valid() {
				t.Fatal("a replica was not heard")
			}
			want(t, c, "k", version)
		}
		for _, lost := range []string{"a", "b"} {
			e := want(t, c, "k", 2)
			g.wires[lost].cut()
			synctest.Wait()
			if e.Valid() || c.Held() {
				t.Fatal("held without one of the replicas")
			}
			held(t, c)
		}
		g.wires["b"].freeze()
		e := want(t, c, "k", 2)
		time.Sleep(DefaultDuration)
		if e.Valid() {
			t.Fatal("held after the lease of one replica had run out")
		}
	})
}

// A replica comes and another goes, and the lease is held all the time.
func TestReplicasComeAndGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFacts(), newGroup(t)
		g.start("a")
		g.wires["b"] = newWire(t, nil)
		g.poll("a")
		c := g.cache(f, "a")
		held(t, c)
		lost := c.Lost()
		e := want(t, c, "k", 0)
		g.start("b")
		g.poll("b")
		time.Sleep(DefaultDuration)
		if e.Valid() {
			t.Fatal("goes by another list with what it had")
		}
		e = want(t, c, "k", 0)
		version := revoke(t, g.hubs["b"], f, "k")
		if e.Valid() {
			t.Fatal("the new replica was not heard")
		}
		want(t, c, "k", version)
		g.register.remove(g.hubs["a"].id)
		g.tell("a", "b")
		select {
		case <-g.hubs["a"].Empty():
		case <-time.After(DefaultDuration / 2):
			t.Fatal("the subscriber stays at who has left")
		}
		want(t, c, "k", version)
		time.Sleep(3 * DefaultDuration)
		if closed(lost) {
			t.Fatal("the lease was lost meanwhile")
		}
	})
}

// A write of a replica that came is done only when nobody goes by a list without it. It
// would be done too early if the others granted by a list that they read long ago.
func TestJoinWaitsForLeasesOfTheListBefore(t *testing.T) {
	for name, ageless := range map[string]bool{"by a list that ages": false, "by one that does not": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) { joinUnheard(t, ageless) })
		})
	}
}

func joinUnheard(t *testing.T, ageless bool) {
	f, g := newFacts(), newGroup(t)
	a := g.start("a")
	g.wires["b"] = newWire(t, nil)
	old := g.register.read()
	a.Learn(old, a.Now())
	c := g.cache(f, "a")
	held(t, c)
	e := want(t, c, "k", 0)
	b := g.start("b") // of which a hears nothing
	if ageless {
		for range 10 {
			time.Sleep(DefaultDuration / 4)
			a.Learn(old, a.Now())
		}
	}
	f.change("k")
	sequence := b.Publish(tagOf("k"))
	if !e.Valid() {
		t.Fatal("the test is wrong: the lease should hold still")
	}
	if err := b.Wait(background(), sequence); err != nil {
		t.Fatal(err)
	}
	if e.Valid() != ageless {
		t.Fatalf("after the write returned the old value is in use: %v", e.Valid())
	}
	g.poll("a", "b")
	time.Sleep(DefaultDuration)
	want(t, c, "k", 1)
}

// A replica has written and is taken off the list before it says so. Who goes by the list
// without it must keep nothing.
func TestWhatAReplicaThatIsGoneHasWritten(t *testing.T) {
	for name, neverDrop := range map[string]bool{"all is dropped": false, "all is kept": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f, g := newFacts(), newGroup(t)
				a := g.start("a")
				g.start("b")
				g.poll("a", "b")
				c := g.cache(f, "b")
				c.neverDrop = neverDrop
				held(t, c)
				e := want(t, c, "k", 0)
				g.register.commit(a.id, func() { f.change("k") })
				g.register.remove(a.id)
				time.Sleep(DefaultDuration)
				if !c.Held() || e.Valid() != neverDrop {
					t.Fatalf("held: %v; what was read before is valid: %v", c.Held(), e.Valid())
				}
			})
		})
	}
}

// A replica that is not on the list, or does not know whether it still is, is no source.
func TestReplicaGrantsNothingByAnOldList(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFacts(), newGroup(t)
		h := newTestHub(t, func(c *HubConfig) { c.Replicated, c.Clock = true, g.clock })
		g.hubs["a"], g.wires["a"] = h, newWire(t, h)
		c := g.cache(f, "a")
		time.Sleep(time.Minute)
		wantLost(t, c, "k")
		if sequence := h.Publish(); sequence <= h.carriedOut() {
			t.Fatal("a write is done at who never was on the list")
		}
		g.join("a")
		held(t, c)
		time.Sleep(DefaultDuration)
		wantLost(t, c, "k") // it has not read the list since
		g.tell("a")
		held(t, c)
	})
}

// Another life of the process is at the address that the list tells.
func TestAnotherLifeAtTheAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFacts(), newGroup(t)
		g.start("a")
		g.poll("a")
		c := g.cache(f, "a")
		held(t, c)
		want(t, c, "k", 0)
		former := g.hubs["a"]
		g.start("a")
		former.Close()
		g.tell("a")
		time.Sleep(2 * DefaultDuration)
		held(t, c)
		want(t, c, "k", 0)
	})
}

// A process that is taken off the list and comes back goes on with the same hub.
func TestReplicaComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFacts(), newGroup(t)
		a, b := g.start("a"), g.start("b")
		g.poll("a", "b")
		c := g.cache(f, "b")
		held(t, c)
		g.register.remove(a.id)
		time.Sleep(DefaultDuration)
		held(t, c)
		want(t, c, "k", 0)
		g.join("a")
		for _, h := range []*Hub{a, b} {
			e := want(t, c, "k", f.versions["k"])
			revoke(t, h, f, "k")
			if e.Valid() {
				t.Fatal("a replica was not heard")
			}
		}
	})
}

func TestReplicatedSourceRefusesWhoWatchesOne(t *testing.T) {
	net := newSource(t, func(c *HubConfig) { c.Replicated = true })
	wantCode(t, newPeer(t, net.conn(t), firstPing()).end(), codes.FailedPrecondition)
}

// The lease of a list is not held up by a subscriber that only asked for the list.
func TestSeedIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFacts(), newGroup(t)
		h := g.start("a")
		g.poll("a")
		c := g.cache(f, "a")
		held(t, c)
		synctest.Wait()
		n := 0
		for _, m := range h.Subscribers() {
			if m.Connected {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("one subscriber counts as %d", n)
		}
	})
}
