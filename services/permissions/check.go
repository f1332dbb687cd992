package permissions

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Check tells whether a user holds one grant.
func (s *service) Check(ctx context.Context, req *pb.CheckRequest) (*pb.CheckResponse, error) {
	bit, err := exactGrant("grant", req.GetGrant())
	if err != nil {
		return nil, err
	}
	if v := s.recall(ctx, req); v != nil {
		return v.check(bit), nil
	}
	user, err := s.subject(ctx, req.UserId)
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.CheckResponse, error) {
		if err := mustReach(tx, req.GetMinRevision()); err != nil {
			return nil, err
		}
		return s.kept.judge(tx, user).check(bit), nil
	})
}

// recall returns the verdict of a check if memory has it, with no transaction at all, or
// nil. Of a user who is named it must also be certain that there is one.
func (s *service) recall(ctx context.Context, req *pb.CheckRequest) *keptVerdict {
	revision, ok := s.db.Revision(ctx)
	if !ok || revision < req.GetMinRevision() {
		return nil
	}
	key := keptKey{store.OriginOf(ctx).Tenant, authz.Caller(ctx).ID}
	if req.UserId != nil {
		key.user = req.GetUserId()
	}
	v := s.kept.find(key, revision, s.clock())
	if v == nil || req.UserId != nil && !v.stored {
		return nil
	}
	return v
}

// check answers for one grant.
func (v *keptVerdict) check(bit catalog.Bit) *pb.CheckResponse {
	r := v.explainGrant(bit)
	return &pb.CheckResponse{
		Allowed: v.set.Has(bit), Revision: v.revision, Layer: r.layer, Source: r.source,
		Missing: r.missing, ExpireTime: timestampOf(v.next),
	}
}

// exactGrant looks up a grant.
//
// SECURITY: it is looked up by its exact spelling. A name that is nearly one is an error,
// and never taken for another.
func exactGrant(field, name string) (catalog.Bit, error) {
	bit, ok := catalog.Grant(name)
	if !ok {
		return bit, fault.Invalid(field, "must be a grant, spelled exactly, and %q is none: CatalogService.ListCatalog lists them", name)
	}
	return bit, nil
}

// mustReach returns nil if the transaction sees a revision. With one store a revision that
// it does not see was never made; a replica may be behind.
func mustReach(tx *store.Tx, revision int64) error {
	if now := tx.Revision(); now < revision {
		return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_REVISION_AHEAD,
			fmt.Sprintf("the answer was to take in revision %d, and this server has only %d: ask for a revision that an answer had", revision, now),
			map[string]string{"min_revision": strconv.FormatInt(revision, 10), "revision": strconv.FormatInt(now, 10)})
	}
	return nil
}

// evaluation is a pair of a batch.
type evaluation struct {
	user string
	bit  catalog.Bit
}

// BatchCheck tells of many pairs whether the user holds the grant.
func (s *service) BatchCheck(ctx context.Context, req *pb.BatchCheckRequest) (*pb.BatchCheckResponse, error) {
	pairs, named, err := pairsOf(authz.Caller(ctx).ID, req)
	if err != nil {
		return nil, err
	}
	if err := s.mustKnowAll(ctx, named); err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.BatchCheckResponse, error) {
		if err := mustReach(tx, req.GetMinRevision()); err != nil {
			return nil, err
		}
		return &pb.BatchCheckResponse{
			Evaluations: s.kept.batch(tx, pairs, req.GetEvaluationsSemantic()),
			Revision:    tx.Revision(), EvaluateTime: timestampOf(tx.Now()),
		}, nil
	})
}

// pairsOf returns the pairs of a batch, and the users whom it names.
func pairsOf(caller string, req *pb.BatchCheckRequest) (pairs []evaluation, named []string, err error) {
	for i, e := range req.GetEvaluations() {
		bit, err := exactGrant(fmt.Sprintf("evaluations[%d].grant", i), e.GetGrant())
		if err != nil {
			return nil, nil, err
		}
		user := caller
		for _, id := range []*string{e.UserId, req.UserId} {
			if id != nil {
				user = *id
				named = append(named, user)
				break
			}
		}
		pairs = append(pairs, evaluation{user, bit})
	}
	slices.Sort(named)
	return pairs, slices.Compact(named), nil
}

// batch answers pairs, as far as the semantic goes.
func (k *kept) batch(tx *store.Tx, pairs []evaluation, semantic pb.EvaluationsSemantic) []*pb.EvaluationResult {
	var v *keptVerdict
	of := ""
	results := make([]*pb.EvaluationResult, 0, len(pairs))
	for _, p := range pairs {
		if v == nil || of != p.user {
			v, of = k.judge(tx, p.user), p.user
		}
		r := v.explainGrant(p.bit)
		allowed := v.set.Has(p.bit)
		results = append(results, &pb.EvaluationResult{
			Allowed: allowed, Layer: r.layer, Source: r.source, Missing: r.missing, ExpireTime: timestampOf(v.next),
		})
		if semantic == pb.EvaluationsSemantic_EVALUATIONS_SEMANTIC_DENY_ON_FIRST_DENY && !allowed ||
			semantic == pb.EvaluationsSemantic_EVALUATIONS_SEMANTIC_PERMIT_ON_FIRST_PERMIT && allowed {
			break
		}
	}
	return results
}

// maxLookup is how many users identity is asked about at once.
const maxLookup = 100

// mustKnowAll is mustKnow for many users.
func (s *service) mustKnowAll(ctx context.Context, users []string) error {
	var unknown []string
	err := s.db.View(ctx, func(tx *store.Tx) error {
		unknown = slices.DeleteFunc(slices.Clone(users), func(id string) bool { return accesses.Has(tx, id) })
		return nil
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(unknown, maxLookup) {
		active, err := s.members(ctx, some...)
		if err != nil {
			return err
		}
		for _, id := range some {
			if !active[id] {
				return fault.NotFound("user", id)
			}
		}
	}
	return nil
}
