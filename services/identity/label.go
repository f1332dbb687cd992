package identity

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

const (
	// maxLabels is how many labels of a kind an organization can have.
	maxLabels = 1000
	// maxDepth is how deep categories can be beneath each other.
	maxDepth = 5

	category = pb.LabelKind_LABEL_KIND_CATEGORY
)

// label finds a label of the caller's organization, deleted ones as long as they can be
// brought back.
func label(ctx context.Context, tx *store.Tx, id, etag string) (*pb.Label, error) {
	l, ok := labels.Get(tx, id)
	if !ok || l.GetOrganizationId() != authz.Caller(ctx).Organization || purgeDue(tx, l) {
		return nil, fault.NotFound("label", id)
	}
	return l, labels.Match(l, etag)
}

// CreateLabel implements pb.LabelServiceServer.
func (s *service) CreateLabel(ctx context.Context, req *pb.CreateLabelRequest) (*pb.CreateLabelResponse, error) {
	w := req.GetLabel()
	fresh := &pb.Label{
		Id: s.newID(), OrganizationId: authz.Caller(ctx).Organization, Kind: w.GetKind(), Name: w.GetName(), Color: w.GetColor(),
		Position: w.GetPosition(), ParentId: w.GetParentId(),
	}
	if fresh.GetKind() == 0 {
		return nil, fault.Invalid("label.kind", "must be a kind")
	}
	return redefine(ctx, s, req, func(tx *store.Tx) (*pb.CreateLabelResponse, error) {
		if err := checkLabel(ctx, tx, fresh); err != nil {
			return nil, err
		}
		return &pb.CreateLabelResponse{Label: fresh}, addLabel(tx, fresh)
	})
}

// addLabel puts one more label among those of its kind.
func addLabel(tx *store.Tx, l *pb.Label) error {
	if labelsInOrder.Count(tx, labelsInOrder.Range(l.GetOrganizationId(), l.GetKind())) >= maxLabels {
		return fault.Limit("labels of a kind", 0)
	}
	return labels.Put(tx, l)
}

// checkLabel says what of a label will not do.
func checkLabel(ctx context.Context, tx *store.Tx, l *pb.Label) error {
	if err := checkName("label.name", l.GetName()); err != nil {
		return err
	}
	if l.GetParentId() == "" {
		return nil
	}
	if l.GetKind() != category {
		return fault.Invalid("label.parent_id", "must be left out: only categories are beneath others")
	}
	depth := height(tx, l.GetId(), 0)
	for at := l.GetParentId(); at != ""; depth++ {
		parent, err := label(ctx, tx, at, "")
		switch {
		case err != nil:
			return err
		case parent.GetKind() != category || parent.GetDeleteTime() != nil:
			return fault.NotFound("label", at)
		case parent.GetId() == l.GetId():
			return fault.Invalid("label.parent_id", "must not be the category itself, nor one beneath it")
		case depth >= maxDepth:
			return fault.Invalid("label.parent_id", "must not be so deep: %d categories can be beneath each other", maxDepth)
		}
		at = parent.GetParentId()
	}
	return nil
}

// height is how many levels a category and those beneath it have. It looks no deeper than
// categories can be.
func height(tx *store.Tx, id string, depth int) int {
	most := 1
	if depth == maxDepth {
		return most
	}
	for below := range labelsByParent.Scan(tx, labelsByParent.Range(id)) {
		most = max(most, 1+height(tx, below.GetId(), depth+1))
	}
	return most
}

// beneath returns the categories beneath one, at any depth.
func beneath(tx *store.Tx, id string) (all []*pb.Label) {
	for l := range labelsByParent.Scan(tx, labelsByParent.Range(id)) {
		all = append(append(all, l), beneath(tx, l.GetId())...)
	}
	return all
}

// GetLabel implements pb.LabelServiceServer.
func (s *service) GetLabel(ctx context.Context, req *pb.GetLabelRequest) (*pb.GetLabelResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetLabelResponse, error) {
		l, err := label(ctx, tx, req.GetId(), "")
		return &pb.GetLabelResponse{Label: l}, err
	})
}

// ListLabels implements pb.LabelServiceServer.
func (s *service) ListLabels(ctx context.Context, req *pb.ListLabelsRequest) (*pb.ListLabelsResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListLabelsResponse, error) {
		organization := authz.Caller(ctx).Organization
		ranges := []store.Range[*pb.Label]{labelsInOrder.Range(organization, req.GetKind())}
		if req.GetShowDeleted() {
			ranges = append(ranges, deletedLabels.Range(organization, req.GetKind()))
		}
		page, next, err := store.Page(tx, req, func(l *pb.Label) bool { return !purgeDue(tx, l) }, ranges...)
		return &pb.ListLabelsResponse{Labels: page, NextPageToken: next}, err
	})
}

// UpdateLabel implements pb.LabelServiceServer.
func (s *service) UpdateLabel(ctx context.Context, req *pb.UpdateLabelRequest) (*pb.UpdateLabelResponse, error) {
	w := req.GetLabel()
	return redefine(ctx, s, req, func(tx *store.Tx) (*pb.UpdateLabelResponse, error) {
		l, err := label(ctx, tx, w.GetId(), w.GetEtag())
		if err != nil {
			return nil, err
		}
		if l.GetDeleteTime() != nil {
			return nil, fault.NotFound("label", w.GetId())
		}
		if err := mask.Apply(l, w, req.GetUpdateMask(), "name", "color", "position", "parent_id"); err != nil {
			return nil, err
		}
		if err := checkLabel(ctx, tx, l); err != nil {
			return nil, err
		}
		return &pb.UpdateLabelResponse{Label: l}, labels.Put(tx, l)
	})
}

// DeleteLabel implements pb.LabelServiceServer.
func (s *service) DeleteLabel(ctx context.Context, req *pb.DeleteLabelRequest) (*pb.DeleteLabelResponse, error) {
	return redefine(ctx, s, req, func(tx *store.Tx) (*pb.DeleteLabelResponse, error) {
		l, err := label(ctx, tx, req.GetId(), req.GetEtag())
		if err != nil || l.GetDeleteTime() != nil {
			return &pb.DeleteLabelResponse{Label: l}, err
		}
		if _, ok := labelsByParent.First(tx, l.GetId()); ok {
			return nil, fault.Refused("the category has others beneath it: move or delete them first")
		}
		l.DeleteTime, l.PurgeTime = endNow(tx)
		return &pb.DeleteLabelResponse{Label: l}, labels.Put(tx, l)
	})
}

// UndeleteLabel implements pb.LabelServiceServer.
func (s *service) UndeleteLabel(ctx context.Context, req *pb.UndeleteLabelRequest) (*pb.UndeleteLabelResponse, error) {
	return redefine(ctx, s, req, func(tx *store.Tx) (*pb.UndeleteLabelResponse, error) {
		l, err := label(ctx, tx, req.GetId(), req.GetEtag())
		if err != nil || l.GetDeleteTime() == nil {
			return &pb.UndeleteLabelResponse{Label: l}, err
		}
		l.DeleteTime, l.PurgeTime = nil, nil
		if err := checkLabel(ctx, tx, l); err != nil {
			return nil, err
		}
		return &pb.UndeleteLabelResponse{Label: l}, addLabel(tx, l)
	})
}
