package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"latchkey.dev/services/internal/trial"
)

// anyOf is a connection to several replicas: each call goes to one of them at random, and a
// call that is repeated maybe to another.
type anyOf []*grpc.ClientConn

func (a anyOf) pick() *grpc.ClientConn { return a[rand.IntN(len(a))] }

func (a anyOf) Invoke(ctx context.Context, method string, req, resp any, opts ...grpc.CallOption) error {
	return a.pick().Invoke(ctx, method, req, resp, opts...)
}

func (a anyOf) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return a.pick().NewStream(ctx, desc, method, opts...)
}

// TestOverReplicas disturbs replicas of a service and of identity and permissions, which all
// keep their records in one database: they are killed, frozen, and cut off from it or from
// each other.
func TestOverReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts four processes, and some again and again")
	}
	a := newApart(t, trial.Times(2, 3), nil, sources, leaves)
	a.begin()
	t.Run("order of calls", a.testOrder)
	t.Run("a revoke while a replica is gone", a.testRevoke)
	t.Run("freshness", a.testFreshness)
	t.Run("a watch of the journal", a.testWatchJournal)
	t.Run("freshness without leases", a.testWithoutLeases)
	for _, name := range names {
		if err := a.verify(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// testOrder calls for the same few records through all replicas of a service, while one or two
// replicas at a time are disturbed: the answers must be those of calls that were made one
// after the other.
func (a *apart) testOrder(t *testing.T) {
	tr := trial.New(t, "order of the calls for a record: replicas killed, frozen, cut off", "postgres")
	random := seeded(t, *seed)
	var conns anyOf
	for _, p := range a.replicas["invoicing"] {
		conns = append(conns, a.only(p))
	}
	c := newCallers(t, tr, a.company, conns)
	c.start(random.Uint64())
	for range trial.Times(5, 300) {
		c.await(20 + random.IntN(40))
		tr.Tried()
		t.Log(a.trouble(random))
	}
	c.await(50)
	c.judge()
}

// trouble disturbs one replica, or two at once, for some moments, waits until all serve, and
// says what it did.
func (a *apart) trouble(random *rand.Rand) string {
	a.t.Helper()
	victims := slices.Clone(a.all)
	random.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	var struck []string
	var heal []func()
	for _, p := range victims[:1+random.IntN(2)] {
		d := pick(random, a.disturbances(p))
		d.strike()
		struck, heal = append(struck, d.what), append(heal, d.heal)
	}
	howLong := time.Duration(random.Int64N(int64(2 * apartLease)))
	time.Sleep(howLong)
	for _, h := range heal {
		h()
	}
	began := time.Now()
	for _, p := range a.all {
		a.serves(p)
	}
	return fmt.Sprintf("%s for %s; all served %s later", strings.Join(struck, ", "), howLong, time.Since(began))
}
