package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLoadTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		f.during = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		_, _, c := pair(t, f, nil)
		before := c.config.Clock()
		_, err := c.Get(background(), "a")
		if got := c.config.Clock() - before; got != DefaultLoadTimeout {
			t.Fatalf("gave up after %v, want %v", got, DefaultLoadTimeout)
		}
		if err == nil || !strings.Contains(err.Error(), "cannot be reached") {
			t.Fatalf("Get returned %v, want UNAVAILABLE", err)
		}
		f.during = nil
		want(t, c, "a", 0)
	})
}

func TestLoadWithoutTagsIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, _, c := pair(t, newFacts(), func(c *CacheConfig[int]) {
			c.Load = func(context.Context, string) (int, []string, error) { return 1, nil, nil }
		})
		if _, err := c.Get(background(), "a"); err == nil || c.Len() != 0 {
			t.Fatal("a fact without tags was cached, whose changes nobody would notice")
		}
	})
}

func TestPanicInLoadIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		f.during = func(context.Context, string) error { panic("broken") }
		_, _, c := pair(t, f, nil)
		if _, err := c.Get(background(), "a"); err == nil || !strings.Contains(err.Error(), "broken") {
			t.Fatalf("Get returned %v", err)
		}
		f.during = nil
		want(t, c, "a", 0)
	})
}

func TestLoadsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		gate := make(chan struct{})
		f.during = func(context.Context, string) error { <-gate; return nil }
		_, _, c := pair(t, f, func(c *CacheConfig[int]) { c.MaxLoads = 2 })
		done := make(chan error, 5)
		for i := range 5 {
			go func() {
				_, err := c.Get(background(), fmt.Sprint(i))
				done <- err
			}()
		}
		synctest.Wait()
		if f.loaded() != 2 {
			t.Fatalf("%d loads at a time, want 2", f.loaded())
		}
		ctx, cancel := context.WithTimeout(background(), time.Second)
		defer cancel()
		if _, err := c.Get(ctx, "late"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Get returned %v, want the end of its context", err)
		}
		close(gate)
		for range 5 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if len(c.places) != 0 || len(c.flights) != 0 {
			t.Fatal("a load that ended still has its place")
		}
	})
}

func TestLoadsUnderWayEndWithTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		f.during = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		_, w, c := pair(t, f, nil)
		done := make(chan error, 1)
		go func() {
			_, err := c.Get(background(), "a")
			done <- err
		}()
		synctest.Wait()
		w.connect(nil)
		w.cut()
		if err := <-done; !errors.Is(err, c.lost) {
			t.Fatalf("Get returned %v, want LEASE_LOST", err)
		}
	})
}
