package permissions

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

// ListCatalog lists the whole catalog.
func (s *service) ListCatalog(context.Context, *pb.ListCatalogRequest) (*pb.ListCatalogResponse, error) {
	resp := &pb.ListCatalogResponse{RegionalManagerKeys: catalog.RegionalManagerKeys()}
	for _, k := range catalog.Keys() {
		resp.Keys = append(resp.Keys, &pb.PermissionKey{
			Number: int32(k.Number), Key: k.Name, Area: k.Area, Title: k.Title, Description: k.Description,
			Requires: k.Requires, Feature: k.AddOn, Origin: origins[k.Origin], Service: k.Service,
		})
	}
	for _, d := range catalog.Settings() {
		resp.Settings = append(resp.Settings, &pb.SettingDefinition{
			Number: int32(d.Number), Name: d.Name, Label: d.Label, Title: d.Title, Description: d.Description,
			AgentOnly: d.AgentOnly, Restricts: d.Restricts, Kind: d.Kind.String(), Choices: d.Choices,
		})
	}
	for _, r := range catalog.Roles() {
		resp.Roles = append(resp.Roles, &pb.BuiltInRole{Code: r.Code, Name: r.Name, Description: r.Description})
	}
	for _, f := range catalog.Features() {
		resp.Features = append(resp.Features, &pb.Feature{Number: int32(f.Number), Name: f.Name, Title: f.Title})
	}
	return resp, nil
}

var origins = map[catalog.Origin]pb.KeyOrigin{
	catalog.Seed:      pb.KeyOrigin_KEY_ORIGIN_SEED,
	catalog.Extension: pb.KeyOrigin_KEY_ORIGIN_EXTENSION,
}
