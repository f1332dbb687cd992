package servicerequest

import (
	"context"
	"time"
	_ "time/tzdata" // the image has no time zones of its own

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

func (s *service) CreateProperty(ctx context.Context, req *pb.CreatePropertyRequest) (*pb.CreatePropertyResponse, error) {
	if err := checkTimeZone("time_zone", req.GetTimeZone()); err != nil {
		return nil, err
	}
	active, err := s.lookup(ctx, req.GetDefaultAssigneeId())
	if err != nil {
		return nil, err
	}
	id, member := s.newID(), s.newID()
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreatePropertyResponse, error) {
		if err := active.mustHold(req.GetDefaultAssigneeId()); err != nil {
			return nil, err
		}
		p := &pb.Property{Id: id, Name: proto.String(req.GetName()), Address: req.GetAddress(), TimeZone: proto.String(req.GetTimeZone())}
		if user := req.GetDefaultAssigneeId(); user != "" {
			p.DefaultAssigneeId = &user
		}
		if err := properties.Put(tx, p); err != nil {
			return nil, err
		}
		if _, err := join(tx, member, id, authz.Caller(ctx).ID); err != nil {
			return nil, err
		}
		return &pb.CreatePropertyResponse{Property: p}, nil
	})
}

func (s *service) GetProperty(ctx context.Context, req *pb.GetPropertyRequest) (*pb.GetPropertyResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetPropertyResponse, error) {
		p, err := findProperty(ctx, tx, req.GetId())
		return &pb.GetPropertyResponse{Property: p}, err
	})
}

func (s *service) ListProperties(ctx context.Context, req *pb.ListPropertiesRequest) (*pb.ListPropertiesResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListPropertiesResponse, error) {
		teams, next, err := store.Page(tx, req, nil, memberTeams.Range(authz.Caller(ctx).ID))
		if err != nil {
			return nil, err
		}
		resp := &pb.ListPropertiesResponse{NextPageToken: next}
		for _, m := range teams {
			if p, ok := properties.Get(tx, m.GetPropertyId()); ok {
				resp.Properties = append(resp.Properties, p)
			}
		}
		return resp, nil
	})
}

func (s *service) UpdateProperty(ctx context.Context, req *pb.UpdatePropertyRequest) (*pb.UpdatePropertyResponse, error) {
	active, err := s.lookup(ctx, req.GetProperty().GetDefaultAssigneeId())
	if err != nil {
		return nil, err
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UpdatePropertyResponse, error) {
		p, err := findProperty(ctx, tx, req.GetProperty().GetId())
		if err != nil {
			return nil, err
		}
		if err := properties.Match(p, req.GetProperty().GetEtag()); err != nil {
			return nil, err
		}
		before := p.GetDefaultAssigneeId()
		if err := mask.Apply(p, req.GetProperty(), req.GetUpdateMask(), "name", "address", "time_zone", "default_assignee_id"); err != nil {
			return nil, err
		}
		if p.GetName() == "" {
			return nil, fault.Invalid("property.name", "must not be empty")
		}
		if err := checkTimeZone("property.time_zone", p.GetTimeZone()); err != nil {
			return nil, err
		}
		if p.GetDefaultAssigneeId() != before {
			if err := active.mustHold(p.GetDefaultAssigneeId()); err != nil {
				return nil, err
			}
		}
		return &pb.UpdatePropertyResponse{Property: p}, properties.Put(tx, p)
	})
}

func (s *service) LookupProperty(ctx context.Context, req *pb.LookupPropertyRequest) (*pb.LookupPropertyResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.LookupPropertyResponse, error) {
		p, ok := properties.Get(tx, req.GetId())
		if !ok {
			return nil, fault.NotFound(properties.Name(), req.GetId())
		}
		if err := checkUnit(tx, p.GetId(), req.GetUnitId()); err != nil {
			return nil, err
		}
		return &pb.LookupPropertyResponse{
			PropertyId: p.GetId(), UnitId: req.GetUnitId(), Name: p.GetName(), Address: p.GetAddress(), TimeZone: p.GetTimeZone(),
		}, nil
	})
}

// findProperty returns the property if the caller is on its team.
func findProperty(ctx context.Context, tx *store.Tx, id string) (*pb.Property, error) {
	p, ok := properties.Get(tx, id)
	if !ok || !onTeam(tx, id, authz.Caller(ctx).ID) {
		return nil, fault.NotFound(properties.Name(), id)
	}
	return p, nil
}

// checkTimeZone refuses what is no name of the IANA database. "Local" is none: it
// would mean the zone of whatever machine this runs on.
func checkTimeZone(field, name string) error {
	if _, err := time.LoadLocation(name); err != nil || name == "" || name == "Local" {
		return fault.Invalid(field, `must be a name of the IANA time zone database, such as "Europe/Berlin"`)
	}
	return nil
}

// zone returns the time zone of a property.
func zone(tx *store.Tx, property string) *time.Location {
	p, _ := properties.Get(tx, property)
	loc, err := time.LoadLocation(p.GetTimeZone())
	if err != nil {
		return time.UTC // checked when it was stored, so gone from the database since
	}
	return loc
}
