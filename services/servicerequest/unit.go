package servicerequest

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// maxFlags is how many flags a unit can have: more would not be read.
const maxFlags = 20

func (s *service) CreateUnit(ctx context.Context, req *pb.CreateUnitRequest) (*pb.CreateUnitResponse, error) {
	id := s.newID()
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreateUnitResponse, error) {
		if _, err := findProperty(ctx, tx, req.GetPropertyId()); err != nil {
			return nil, err
		}
		u := &pb.Unit{Id: id, PropertyId: req.GetPropertyId(), Name: proto.String(req.GetName())}
		return &pb.CreateUnitResponse{Unit: u}, units.Put(tx, u)
	})
}

func (s *service) GetUnit(ctx context.Context, req *pb.GetUnitRequest) (*pb.GetUnitResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetUnitResponse, error) {
		u, err := findUnit(ctx, tx, req.GetId())
		return &pb.GetUnitResponse{Unit: u}, err
	})
}

func (s *service) ListUnits(ctx context.Context, req *pb.ListUnitsRequest) (*pb.ListUnitsResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListUnitsResponse, error) {
		if _, err := findProperty(ctx, tx, req.GetPropertyId()); err != nil {
			return nil, err
		}
		page, next, err := store.Page(tx, req, nil, unitName.Range(req.GetPropertyId()))
		return &pb.ListUnitsResponse{Units: page, NextPageToken: next}, err
	})
}

func (s *service) UpdateUnit(ctx context.Context, req *pb.UpdateUnitRequest) (*pb.UpdateUnitResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UpdateUnitResponse, error) {
		u, err := changeUnit(ctx, tx, req.GetUnit(), func(u *pb.Unit) error {
			if err := mask.Apply(u, req.GetUnit(), req.GetUpdateMask(), "name"); err != nil {
				return err
			}
			if u.GetName() == "" {
				return fault.Invalid("unit.name", "must not be empty")
			}
			return nil
		})
		return &pb.UpdateUnitResponse{Unit: u}, err
	})
}

func (s *service) AddUnitFlag(ctx context.Context, req *pb.AddUnitFlagRequest) (*pb.AddUnitFlagResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.AddUnitFlagResponse, error) {
		u, err := changeUnit(ctx, tx, req, func(u *pb.Unit) error {
			if slices.Contains(u.GetFlags(), req.GetFlag()) {
				return nil
			}
			if len(u.GetFlags()) >= maxFlags {
				return fault.Refused("a unit has at most %d flags: take one off first", maxFlags)
			}
			u.Flags = append(u.Flags, req.GetFlag())
			return nil
		})
		return &pb.AddUnitFlagResponse{Unit: u}, err
	})
}

func (s *service) RemoveUnitFlag(ctx context.Context, req *pb.RemoveUnitFlagRequest) (*pb.RemoveUnitFlagResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.RemoveUnitFlagResponse, error) {
		u, err := changeUnit(ctx, tx, req, func(u *pb.Unit) error {
			u.Flags = slices.DeleteFunc(u.GetFlags(), func(f string) bool { return f == req.GetFlag() })
			return nil
		})
		return &pb.RemoveUnitFlagResponse{Unit: u}, err
	})
}

// target is a request, or the record in it, that names what to change.
type target interface {
	GetId() string
	GetEtag() string
}

// changeUnit changes a unit that the caller may see.
func changeUnit(ctx context.Context, tx *store.Tx, t target, change func(*pb.Unit) error) (*pb.Unit, error) {
	u, err := findUnit(ctx, tx, t.GetId())
	if err != nil {
		return nil, err
	}
	if err := units.Match(u, t.GetEtag()); err != nil {
		return nil, err
	}
	if err := change(u); err != nil {
		return nil, err
	}
	return u, units.Put(tx, u)
}

// findUnit returns the unit if the caller is on the team of its property.
func findUnit(ctx context.Context, tx *store.Tx, id string) (*pb.Unit, error) {
	u, ok := units.Get(tx, id)
	if !ok || !onTeam(tx, u.GetPropertyId(), authz.Caller(ctx).ID) {
		return nil, fault.NotFound(units.Name(), id)
	}
	return u, nil
}

// checkUnit refuses a unit that the property does not have. An empty id passes.
func checkUnit(tx *store.Tx, property, id string) error {
	if id == "" {
		return nil
	}
	if u, ok := units.Get(tx, id); !ok || u.GetPropertyId() != property {
		return fault.NotFound(units.Name(), id)
	}
	return nil
}
