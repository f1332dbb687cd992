package identity

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/store"
)

var organizationKey = catalog.MustGrant("Organization")

// GetControlPanel implements pb.ControlPanelServiceServer.
func (s *service) GetControlPanel(ctx context.Context, _ *pb.GetControlPanelRequest) (*pb.GetControlPanelResponse, error) {
	caller := authz.Caller(ctx)
	return read(ctx, s, func(tx *store.Tx) (*pb.GetControlPanelResponse, error) {
		o, err := own(tx, caller.Organization)
		if err != nil {
			return nil, err
		}
		b, err := brandOf(tx, caller.Organization)
		if err != nil {
			return nil, err
		}
		return &pb.GetControlPanelResponse{ControlPanel: &pb.ControlPanel{
			Organization: o, Allowance: b.GetAllowance(), Sections: sectionsFor(caller.Grants),
		}}, nil
	})
}

// sectionsFor are the keys that count only beside Organization, as somebody has them who holds
// these grants.
func sectionsFor(held catalog.Set) (all []*pb.ControlPanelSection) {
	for _, key := range catalog.Keys() {
		takes := catalog.Needs(key.Bit())
		if !takes.Has(organizationKey) || key.Bit() == organizationKey {
			continue
		}
		takes.Add(key.Bit())
		section := &pb.ControlPanelSection{Grant: key.Name, Title: key.Title, Description: key.Description, Open: held.Contains(takes)}
		for missing := range takes.Without(held).All() {
			section.Missing = missing.String()
			break
		}
		all = append(all, section)
	}
	return all
}
