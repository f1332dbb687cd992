package journal

import (
	"context"
	"log/slog"
	"time"

	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// compactEvery is how often journals are compacted.
const compactEvery = time.Hour

const day = 24 * time.Hour

// CompactForever compacts the journals of all organizations, each as it says, until ctx
// ends.
func (s *Source) CompactForever(log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			if err := s.compactAll(ctx, log); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "the journal is not compacted", "error", err)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(compactEvery):
			}
		}
	}
}

func (s *Source) compactAll(ctx context.Context, log *slog.Logger) error {
	tenants, err := s.Store.Tenants(ctx)
	if err != nil {
		return err
	}
	for _, tenant := range tenants {
		done, err := s.compact(ctx, tenant)
		if err != nil {
			return err
		}
		if done.Removed+done.Erased > 0 {
			log.InfoContext(ctx, "journal compacted", "organization", tenant, "removed", done.Removed, "erased", done.Erased, "base_revision", done.Base)
		}
	}
	return nil
}

// compact compacts one journal, as its organization says.
func (s *Source) compact(ctx context.Context, tenant string) (store.Compaction, error) {
	var keep store.Retention
	err := s.Store.View(store.WithOrigin(ctx, store.Origin{Tenant: tenant}), func(tx *store.Tx) error {
		keep = tx.Retention()
		return nil
	})
	if err != nil || keep == (store.Retention{}) {
		return store.Compaction{}, err
	}
	return s.Store.Compact(ctx, tenant, keep)
}

// GetRetention returns how long a journal is kept.
func (s *Server) GetRetention(ctx context.Context, req *journalpb.GetRetentionRequest) (*journalpb.GetRetentionResponse, error) {
	src, err := s.source(req.GetSource())
	if err != nil {
		return nil, err
	}
	return store.Read(src.inside(ctx), src.Store, func(tx *store.Tx) (*journalpb.GetRetentionResponse, error) {
		keep := tx.Retention()
		return &journalpb.GetRetentionResponse{
			KeepValuesDays: int32(keep.Values / day), KeepEntriesDays: int32(keep.Entries / day), BaseRevision: tx.BaseRevision(),
		}, nil
	})
}

// ownSource returns a source whose journals are each of one organization.
func (s *Server) ownSource(name string) (*Source, error) {
	src, err := s.source(name)
	if err == nil && src.Tenant != "" {
		err = fault.Refused("the journal of %s is one for all organizations, and none of them decides how long it is kept", name)
	}
	return src, err
}

// SetRetention says how long a journal is kept.
func (s *Server) SetRetention(ctx context.Context, req *journalpb.SetRetentionRequest) (*journalpb.SetRetentionResponse, error) {
	src, err := s.ownSource(req.GetSource())
	if err != nil {
		return nil, err
	}
	return store.Do(ctx, src.Store, req, func(tx *store.Tx) (*journalpb.SetRetentionResponse, error) {
		keep := store.Retention{Values: time.Duration(req.GetKeepValuesDays()) * day, Entries: time.Duration(req.GetKeepEntriesDays()) * day}
		if tx.Retention() != keep {
			tx.SetRetention(keep)
			tx.Emit(&journalpb.RetentionChanged{KeepValuesDays: req.GetKeepValuesDays(), KeepEntriesDays: req.GetKeepEntriesDays()})
		}
		return &journalpb.SetRetentionResponse{KeepValuesDays: req.GetKeepValuesDays(), KeepEntriesDays: req.GetKeepEntriesDays()}, nil
	})
}

// CompactJournal compacts a journal now.
func (s *Server) CompactJournal(ctx context.Context, req *journalpb.CompactJournalRequest) (*journalpb.CompactJournalResponse, error) {
	src, err := s.ownSource(req.GetSource())
	if err != nil {
		return nil, err
	}
	tenant, _ := src.tenant(ctx)
	done, err := src.compact(ctx, tenant)
	return &journalpb.CompactJournalResponse{Removed: done.Removed, Erased: done.Erased, BaseRevision: done.Base}, err
}
