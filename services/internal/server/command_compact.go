package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"

	"latchkey.dev/services/internal/store"
)

func compactCommand() command {
	return command{
		name: "compact", summary: "make the files of the stores as small as what is in them",
		about: `What is deleted or replaced leaves room in a file, which later writes use; the file itself never becomes smaller. This writes each anew, beside the old one, and puts it in its place when it is whole and on disk. The services may run meanwhile: reads wait for nothing, and writes for a moment at the end. There must be room for both files.

Call it when much was deleted, or when the journals were compacted. A store in a database needs it not: the database looks after its files itself.`,
		shared: toStores,
		declare: func(*flag.FlagSet) action {
			return func(ctx context.Context, in *invocation) (report, error) { return in.compact(ctx) }
		},
	}
}

// compacted is the outcome of compact.
type compacted struct {
	Stores  []compactedStore `json:"stores"`
	Seconds float64          `json:"seconds"`
}

type compactedStore struct {
	Service string `json:"service"`
	Rows    int64  `json:"rows"`
	Before  int64  `json:"before"` // bytes
	After   int64  `json:"after"`
}

func (c *compacted) String() string {
	var b strings.Builder
	var before, after int64
	for _, s := range c.Stores {
		fmt.Fprintf(&b, "%s: %d rows, from %s to %s\n", s.Service, s.Rows, size(s.Before), size(s.After))
		before, after = before+s.Before, after+s.After
	}
	fmt.Fprintf(&b, "all: from %s to %s, in %.1f s", size(before), size(after), c.Seconds)
	return b.String()
}

func (in *invocation) compact(ctx context.Context) (report, error) {
	if scheme, ok := in.config.database(); ok {
		return nil, fmt.Errorf("--store %s://...: there are no files to compact; the database looks after its own (autovacuum)", scheme)
	}
	start := time.Now()
	s, err := in.openStores(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	all := &compacted{}
	for _, o := range s.all {
		done, err := in.compactOne(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("the store of %s: %w", o.service, err)
		}
		all.Stores = append(all.Stores, compactedStore{o.service, done.Pairs, done.Before, done.After})
	}
	all.Seconds = time.Since(start).Seconds()
	return all, nil
}

func (in *invocation) compactOne(ctx context.Context, o *opened) (store.Compacted, error) {
	tell := func(c store.Compacted) { in.progress("%s: copied %d rows", o.service, c.Pairs) }
	if o.engine == nil {
		return compactRemote(ctx, o, tell)
	}
	c, ok := o.engine.(store.Compacter)
	if !ok {
		return store.Compacted{}, errors.New("it is in no file")
	}
	return c.Compact(ctx, tell)
}

// compactRemote has the process that has a store open compact it.
func compactRemote(ctx context.Context, o *opened, tell func(store.Compacted)) (c store.Compacted, err error) {
	stream, err := o.remote.CompactStore(ctx, &operatorpb.CompactStoreRequest{Service: o.service})
	if err != nil {
		return c, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return c, err
		}
		c = store.Compacted{Pairs: m.GetRows(), Before: m.GetBeforeBytes(), After: m.GetAfterBytes()}
		if m.GetDone() {
			return c, nil
		}
		tell(c)
	}
}
