package lease

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkGet is the check of a fact in memory under a held lease.
func BenchmarkGet(b *testing.B) {
	f := newFacts()
	s := newSource(b, nil)
	c := NewCache(CacheConfig[int]{Source: "permissions", Dial: dialTo(b, s.addr), Load: f.load, Log: quiet()})
	runCache(b, c)
	held(b, c)
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("organization-%d/user-%d", i%100, i)
		want(b, c, keys[i], 0)
	}
	b.Run("one key", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Get(background(), keys[0]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("10000 keys in parallel", func(b *testing.B) {
		b.ReportAllocs()
		var start atomic.Uint32
		b.RunParallel(func(pb *testing.PB) {
			for i := start.Add(7919); pb.Next(); i++ {
				if _, err := c.Get(background(), keys[i%10_000]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("entry in hand", func(b *testing.B) {
		b.ReportAllocs()
		e := want(b, c, keys[0], 0)
		for b.Loop() {
			if !e.Valid() {
				b.Fatal("not valid")
			}
		}
	})
	b.Run("clock alone", func(b *testing.B) {
		for b.Loop() {
			c.config.Clock()
		}
	})
}

// BenchmarkRevoke is Publish and Wait with that many live subscribers.
func BenchmarkRevoke(b *testing.B) {
	for _, subscribers := range []int{1, 5, 50} {
		b.Run(fmt.Sprint(subscribers, " subscribers"), func(b *testing.B) {
			f := newFacts()
			s := newSource(b, nil)
			for range subscribers {
				c := NewCache(CacheConfig[int]{Source: "permissions", Dial: dialTo(b, s.addr), Load: f.load, Log: quiet()})
				runCache(b, c)
				held(b, c)
				want(b, c, "a", 0)
			}
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				if err := s.hub.Wait(background(), s.hub.Publish(tagOf("a"))); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}

func TestGetDoesNotAllocate(t *testing.T) {
	f := newFacts()
	s := newSource(t, nil)
	c := NewCache(CacheConfig[int]{Source: "permissions", Dial: dialTo(t, s.addr), Load: f.load, Log: quiet()})
	runCache(t, c)
	held(t, c)
	want(t, c, "a", 0)
	ctx := background()
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Get(ctx, "a") }); n != 0 {
		t.Fatalf("Get of what is in memory allocates %v times", n)
	}
}

// BenchmarkMemory fills a cache to its bound, and then on.
func BenchmarkMemory(b *testing.B) {
	x, h := newTestIndex(DefaultMaxEntries)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	put := func(i int) {
		key := fmt.Sprintf("organization-%d/user-%d", i%100, i)
		x.put(&Entry[int]{key: key, tags: []string{key, key[:15]}, hold: h})
	}
	for i := range DefaultMaxEntries {
		put(i)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	i := DefaultMaxEntries
	b.ReportAllocs()
	for b.Loop() {
		put(i)
		i++
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/DefaultMaxEntries, "B/entry")
	if len(x.slots) != DefaultMaxEntries {
		b.Fatalf("the cache holds %d entries", len(x.slots))
	}
}
