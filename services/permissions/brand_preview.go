package permissions

import (
	"context"
	"slices"
	"strings"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// maxPreviewed is how many organizations one page of a preview looks at.
const maxPreviewed = 50

// brandDraft returns a change of a brand's role as a draft that is for each of the brand's
// organizations. It may be made, as it is now, in all of them.
func (s *service) brandDraft(ctx context.Context, by granter, req *pb.UpdateBrandRoleRequest) (*draft, error) {
	e, err := s.updateOfBrand(ctx, by, "update_brand_role.", req)
	if err != nil {
		return nil, err
	}
	is, err := e.tryEverywhere(ctx)
	if err != nil {
		return nil, err
	}
	return &draft{role: e.role, organizations: e.organizations, apply: func(l *loader) error {
		if err := e.check(l, is); err != nil {
			return err
		}
		was, _ := roles.Get(l.tx, e.role)
		return roles.Put(l.tx, offeredAs(is, was))
	}}, nil
}

// previewEverywhere returns a page of what differs in the organizations of a brand. The
// place where it goes on is an organization and the token of a page there.
func (s *service) previewEverywhere(ctx context.Context, d *draft, req *pb.PreviewChangeRequest) (*pb.PreviewChangeResponse, error) {
	var size int
	var place string
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		if size, err = store.PageSize(req); err != nil {
			return err
		}
		place, err = tx.OpenCursor(req)
		return err
	})
	if err != nil {
		return nil, err
	}
	resp := &pb.PreviewChangeResponse{}
	from, token, _ := strings.Cut(place, " ")
	first, _ := slices.BinarySearch(d.organizations, from)
	for i, organization := range d.organizations[first:] {
		if organization != from {
			token = ""
		}
		if i == maxPreviewed || len(resp.GetDifferences()) == size {
			return resp, s.sealPlace(ctx, req, &resp.NextPageToken, organization+" "+token)
		}
		inner := &pb.PreviewChangeRequest{Change: req.GetChange(), PageSize: int32(size - len(resp.GetDifferences())), PageToken: token}
		page, err := store.Do(elsewhere(ctx, organization), s.db, dry, func(tx *store.Tx) (*pb.PreviewChangeResponse, error) { return d.preview(tx, inner) })
		if err != nil {
			return nil, err
		}
		for _, diff := range page.GetDifferences() {
			diff.OrganizationId = organization
			resp.Differences = append(resp.Differences, diff)
		}
		if next := page.GetNextPageToken(); next != "" {
			return resp, s.sealPlace(ctx, req, &resp.NextPageToken, organization+" "+next)
		}
	}
	return resp, nil
}

func (s *service) sealPlace(ctx context.Context, req store.PageRequest, token *string, place string) error {
	return s.db.View(ctx, func(tx *store.Tx) (err error) {
		*token, err = tx.SealCursor(req, place)
		return err
	})
}

// elsewhere is the context of a question about another organization of the caller's brand.
func elsewhere(ctx context.Context, organization string) context.Context {
	o := store.OriginOf(ctx)
	o.Tenant = organization
	return store.WithOrigin(ctx, o)
}
