package backup

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"latchkey.dev/services/internal/store"
)

// goBack takes every tenant back to where it should be, and the positions of consumers to
// where their sources are.
func (r *Restoring) goBack(ctx context.Context) error {
	services := slices.Sorted(maps.Keys(r.replays))
	heads := map[string]map[string]int64{}
	for _, service := range services {
		var err error
		if heads[service], err = r.goBackIn(ctx, service); err != nil {
			return err
		}
	}
	for service, revisions := range r.Revisions {
		for tenant := range revisions {
			if _, ok := heads[service][tenant]; !ok {
				return fmt.Errorf("the backup has no tenant %q of %s", tenant, service)
			}
		}
	}
	for _, consumer := range services {
		for _, source := range services {
			n, err := r.replays[consumer].ClampPositions(ctx, source, heads[source])
			if err != nil {
				return err
			}
			r.done.Clamped += n
		}
	}
	return nil
}

// goBackIn does so in one service, and returns where each tenant is then.
func (r *Restoring) goBackIn(ctx context.Context, service string) (map[string]int64, error) {
	replay := r.replays[service]
	if err := replay.Flush(ctx); err != nil {
		return nil, err
	}
	pages := store.PagesOf(r.engines[service])
	tenants, err := store.ReadTenants(ctx, pages)
	if err != nil {
		return nil, err
	}
	heads := map[string]int64{}
	for _, tenant := range tenants {
		head, err := store.ReadHead(ctx, pages, tenant)
		if err != nil {
			return nil, err
		}
		heads[tenant] = head
		to, err := r.target(ctx, pages, service, tenant, head)
		if err != nil {
			return nil, err
		}
		if to == head {
			continue
		}
		if _, err := replay.Undo(ctx, tenant, to); err != nil {
			return nil, err
		}
		heads[tenant] = to
		r.done.Undone++
	}
	return heads, nil
}

// target returns the revision to which a tenant is taken, that has come to head.
func (r *Restoring) target(ctx context.Context, pages store.Pages, service, tenant string, head int64) (int64, error) {
	if to, ok := r.Revisions[service][tenant]; ok {
		if to < 0 || to > head {
			return 0, fmt.Errorf("%s of %s has the revisions 1 to %d, and not %d", tenant, service, head, to)
		}
		return to, nil
	}
	if r.At.IsZero() {
		return head, nil
	}
	return store.ReadRevisionAt(ctx, pages, tenant, head, r.At)
}

// finish makes a store one that can be opened.
func (r *Restoring) finish(ctx context.Context, service string) error {
	replay := r.replays[service]
	if n := len(replay.Lost); n > 0 {
		if !r.WithoutErased {
			return fmt.Errorf("%d records were there at that point and have been erased for good since: "+
				"restore a later one, or leave them out (--without-erased)", n)
		}
		r.done.Erased += n
		if err := replay.GiveUp(ctx, r.Now()); err != nil {
			return err
		}
	}
	return replay.Finish(ctx)
}
