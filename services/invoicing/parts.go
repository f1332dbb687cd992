package invoicing

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/query"
	"latchkey.dev/services/internal/store"
)

// CreatePart creates a part.
func (s *service) CreatePart(ctx context.Context, req *pb.CreatePartRequest) (*pb.CreatePartResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreatePartResponse, error) {
		p := &pb.Part{
			Id: s.newID(), Active: proto.Bool(true),
			Name: proto.String(req.GetName()), Sku: unlessEmpty(req.GetSku()), Category: unlessEmpty(req.GetCategory()),
			Price: proto.CloneOf(req.GetPrice()), Cost: proto.CloneOf(req.GetCost()), TaxBasisPoints: req.TaxBasisPoints,
		}
		if err := checkPart(p, ""); err != nil {
			return nil, err
		}
		return &pb.CreatePartResponse{Part: p}, parts.Put(tx, p)
	})
}

// GetPart returns a part.
func (s *service) GetPart(ctx context.Context, req *pb.GetPartRequest) (*pb.GetPartResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetPartResponse, error) {
		p, ok := parts.Get(tx, req.GetId())
		if !ok {
			return nil, fault.NotFound(parts.Name(), req.GetId())
		}
		return &pb.GetPartResponse{Part: p}, nil
	})
}

// ListParts returns a page of the parts of a view.
func (s *service) ListParts(ctx context.Context, req *pb.ListPartsRequest) (*pb.ListPartsResponse, error) {
	filter, err := query.Parse(req.GetFilter(), &pb.Part{})
	if err != nil {
		return nil, err
	}
	keep := func(p *pb.Part) bool { return filter.Match(p) }
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListPartsResponse, error) {
		page, next, err := store.Page(tx, req, keep, partName.Range(req.GetView()))
		return &pb.ListPartsResponse{Parts: page, NextPageToken: next}, err
	})
}

// UpdatePart changes the masked fields of a part.
func (s *service) UpdatePart(ctx context.Context, req *pb.UpdatePartRequest) (*pb.UpdatePartResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UpdatePartResponse, error) {
		p, ok := parts.Get(tx, req.GetPart().GetId())
		if !ok {
			return nil, fault.NotFound(parts.Name(), req.GetPart().GetId())
		}
		if err := parts.Match(p, req.GetPart().GetEtag()); err != nil {
			return nil, err
		}
		err := mask.Apply(p, req.GetPart(), req.GetUpdateMask(),
			"name", "sku", "category", "active", "price", "cost", "tax_basis_points")
		if err != nil {
			return nil, err
		}
		if err := checkPart(p, "part."); err != nil {
			return nil, err
		}
		return &pb.UpdatePartResponse{Part: p}, parts.Put(tx, p)
	})
}

// LookupParts returns which of some parts exist and are active.
func (s *service) LookupParts(ctx context.Context, req *pb.LookupPartsRequest) (*pb.LookupPartsResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.LookupPartsResponse, error) {
		resp := &pb.LookupPartsResponse{}
		for _, id := range req.GetIds() {
			if p, ok := parts.Get(tx, id); ok && p.GetActive() {
				resp.Ids = append(resp.Ids, id)
			}
		}
		return resp, nil
	})
}

// checkPart refuses what the rules on single fields do not see. Path is where the part
// stands in the request, "part." or "".
func checkPart(p *pb.Part, path string) error {
	if p.GetName() == "" {
		return fault.Invalid(path+"name", "must not be empty")
	}
	if err := checkPrice(path+"price", p.GetPrice()); err != nil {
		return err
	}
	return checkPrice(path+"cost", p.GetCost())
}

// unlessEmpty returns nil for "", so that a field left out is absent.
func unlessEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
