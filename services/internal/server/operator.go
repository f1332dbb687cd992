package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"google.golang.org/grpc"

	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// operator serves the commands of operators: it reads the stores of the parts of this
// process as their engines have them.
//
// SECURITY: its methods are internal. Who has the service key may read everything anyhow.
type operator struct {
	operatorpb.UnimplementedOperatorServiceServer
	stores   map[string]*store.DB    // by part
	blobs    map[string]*blob.Bucket // by part that keeps some
	importer *importer
	draining <-chan struct{}
}

func (s *operator) store(service string) (*store.DB, error) {
	db, ok := s.stores[service]
	if !ok {
		return nil, fault.NotFound("store", service)
	}
	return db, nil
}

func (s *operator) ReadPairs(ctx context.Context, req *operatorpb.ReadPairsRequest) (*operatorpb.ReadPairsResponse, error) {
	db, err := s.store(req.GetService())
	if err != nil {
		return nil, err
	}
	page, err := db.Pages().Page(ctx, req.GetStart(), req.GetEnd())
	if err != nil {
		return nil, err
	}
	resp := &operatorpb.ReadPairsResponse{}
	for _, row := range page {
		resp.Pairs = append(resp.Pairs, store.PairOf(row))
	}
	return resp, nil
}

func (s *operator) WatchTenants(req *operatorpb.WatchTenantsRequest, stream grpc.ServerStreamingServer[operatorpb.WatchTenantsResponse]) error {
	db, err := s.store(req.GetService())
	if err != nil {
		return err
	}
	ctx, cancel := until(stream.Context(), s.draining)
	defer cancel()
	changed := db.Changed()
	defer changed.Stop()
	var tenants []string
	for err == nil {
		if err = stream.Send(&operatorpb.WatchTenantsResponse{Tenants: tenants}); err == nil {
			tenants, err = changed.Next(ctx)
		}
	}
	if stream.Context().Err() == nil && (ctx.Err() != nil || errors.Is(err, store.ErrClosed)) {
		return fault.Unreachable(req.GetService()) // draining: the caller comes again
	}
	return err
}

func (s *operator) VerifyStore(req *operatorpb.VerifyStoreRequest, stream grpc.ServerStreamingServer[operatorpb.VerifyStoreResponse]) error {
	db, err := s.store(req.GetService())
	if err != nil {
		return err
	}
	ctx, cancel := until(stream.Context(), s.draining)
	defer cancel()
	var last, pages store.Verified
	var told time.Time
	var broken error
	send := func(problem string, done bool) {
		told = time.Now()
		err := stream.Send(&operatorpb.VerifyStoreResponse{
			Problem: problem, Tenants: last.Tenants, Entries: last.Entries, Rows: last.Rows, Pages: pages.Pages, Done: done,
		})
		broken = errors.Join(broken, err)
	}
	found := func(problem string) { send(problem, false) }
	if pages, err = checkPages(ctx, db, found); err == nil && pages.Problems == 0 {
		last, err = db.Verify(ctx, found, func(v store.Verified) error {
			if last = v; time.Since(told) > time.Second {
				send("", false)
			}
			return broken
		})
	}
	if err == nil {
		send("", true)
		err = broken
	}
	if stream.Context().Err() == nil && ctx.Err() != nil {
		return fault.Unreachable(req.GetService())
	}
	return err
}

// pagesTime is for how long the pages of a file are looked at while others write.
const pagesTime = 5 * time.Second

// checkPages looks at the pages of a store, unless they are too many.
func checkPages(ctx context.Context, db *store.DB, found func(problem string)) (store.Verified, error) {
	limited, cancel := context.WithTimeout(ctx, pagesTime)
	defer cancel()
	v, err := db.CheckPages(limited, found)
	if limited.Err() != nil && ctx.Err() == nil {
		return store.Verified{Problems: v.Problems}, nil
	}
	return v, err
}

// eraseTime is for how long one call of EraseTenant goes on.
const eraseTime = 5 * time.Second

func (s *operator) EraseTenant(ctx context.Context, req *operatorpb.EraseTenantRequest) (*operatorpb.EraseTenantResponse, error) {
	db, err := s.store(req.GetService())
	if err != nil {
		return nil, err
	}
	if err := eraseFiles(ctx, s.blobs[req.GetService()], req.GetTenant()); err != nil {
		return nil, err
	}
	more := true
	for end := time.Now().Add(eraseTime); more && time.Now().Before(end); {
		if more, err = db.EraseTenant(ctx, req.GetTenant()); err != nil {
			return nil, err
		}
	}
	return &operatorpb.EraseTenantResponse{More: more}, nil
}

// eraseFiles deletes a tenant's blobs.
func eraseFiles(ctx context.Context, blobs *blob.Bucket, tenant string) error {
	if blobs == nil {
		return nil
	}
	for files := blobs.List(&blob.ListOptions{Prefix: tenant + "/"}); ; {
		file, err := files.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = blobs.Delete(ctx, file.Key)
		}
		if err != nil && gcerrors.Code(err) != gcerrors.NotFound {
			return fmt.Errorf("erase the files of %s: %w", tenant, err)
		}
	}
}

func (s *operator) CompactStore(req *operatorpb.CompactStoreRequest, stream grpc.ServerStreamingServer[operatorpb.CompactStoreResponse]) error {
	db, err := s.store(req.GetService())
	if err != nil {
		return err
	}
	ctx, cancel := until(stream.Context(), s.draining)
	defer cancel()
	var told time.Time
	done, err := db.CompactFile(ctx, func(c store.Compacted) {
		if time.Since(told) > time.Second {
			told = time.Now()
			if stream.Send(&operatorpb.CompactStoreResponse{Rows: c.Pairs, BeforeBytes: c.Before}) != nil {
				cancel() // nobody waits for it
			}
		}
	})
	if err == nil {
		return stream.Send(&operatorpb.CompactStoreResponse{Rows: done.Pairs, BeforeBytes: done.Before, AfterBytes: done.After, Done: true})
	}
	if stream.Context().Err() == nil && ctx.Err() != nil {
		return fault.Unreachable(req.GetService())
	}
	return err
}
