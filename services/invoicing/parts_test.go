package invoicing_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
)

func (u *user) createPart(t testing.TB, req *pb.CreatePartRequest) *pb.Part {
	t.Helper()
	return must(u.parts.CreatePart(t.Context(), req))(t).GetPart()
}

func (u *user) updatePart(t testing.TB, p *pb.Part, paths ...string) (*pb.Part, error) {
	t.Helper()
	resp, err := u.parts.UpdatePart(t.Context(), &pb.UpdatePartRequest{Part: p, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
	return resp.GetPart(), err
}

func TestPartIsCreatedOnce(t *testing.T) {
	s := start(t)
	u := s.office()
	req := &pb.CreatePartRequest{
		RequestId: servertest.UUID(1), Name: "Valve", Sku: "V-12", Category: "valve",
		Price: eur(1250), Cost: eur(700), TaxBasisPoints: proto.Int32(1900),
	}
	p := u.createPart(t, req)
	want := &pb.Part{
		Id: p.GetId(), Etag: p.GetEtag(), CreateTime: p.GetCreateTime(), UpdateTime: p.GetUpdateTime(),
		Name: proto.String("Valve"), Sku: proto.String("V-12"), Category: proto.String("valve"), Active: proto.Bool(true),
		Price: eur(1250), Cost: eur(700), TaxBasisPoints: proto.Int32(1900),
	}
	equal(t, "create", p, want)
	equal(t, "get", must(u.parts.GetPart(t.Context(), &pb.GetPartRequest{Id: p.GetId()}))(t).GetPart(), want)
	equal(t, "repeat", u.createPart(t, req), want)

	req.Name = "Another"
	_, err := u.parts.CreatePart(t.Context(), req)
	fails(t, "reuse of the request id", err, codes.InvalidArgument, "REQUEST_ID_REUSED", "")
	_, err = u.parts.CreatePart(t.Context(), &pb.CreatePartRequest{Name: "Another", Sku: "V-12"})
	fails(t, "second part with the SKU", err, codes.AlreadyExists, "RECORD_EXISTS", "")
	_, err = u.parts.CreatePart(t.Context(), &pb.CreatePartRequest{Name: "Another", Price: eur(-1)})
	fails(t, "negative price", err, codes.InvalidArgument, "FIELD_INVALID", "price")
	for range 2 {
		u.createPart(t, &pb.CreatePartRequest{Name: "Without a SKU"})
	}
	dry := u.createPart(t, &pb.CreatePartRequest{ValidateOnly: true, Name: "Dry"})
	_, err = u.parts.GetPart(t.Context(), &pb.GetPartRequest{Id: dry.GetId()})
	fails(t, "part only validated", err, codes.NotFound, "RECORD_NOT_FOUND", "")
	_, err = clients(s.InOrganization(servertest.UUID(9)).As(officeKeys...)).parts.GetPart(t.Context(), &pb.GetPartRequest{Id: p.GetId()})
	fails(t, "part of another organization", err, codes.NotFound, "RECORD_NOT_FOUND", "")
}

func TestEachFieldOfAPartAsksForItsKey(t *testing.T) {
	s := start(t)
	u := s.office()
	p := u.createPart(t, &pb.CreatePartRequest{Name: "Valve", Price: eur(1250)})
	general := s.as("Organization", "ControlPanel:Parts:Edit:General")
	prices := s.as("Organization", "ControlPanel:Parts:Edit:Pricing", pricing)

	change := &pb.Part{Id: p.GetId(), Name: proto.String("Tap"), Price: eur(990)}
	for _, c := range []struct {
		by     *user
		paths  []string
		reason string
	}{
		{general, []string{"name", "price"}, "GRANT_MISSING"},
		{prices, []string{"name", "price"}, "GRANT_MISSING"},
		{general, []string{"price"}, "GRANT_MISSING"},
		{prices, []string{"category"}, "GRANT_MISSING"},
		{s.as("Organization", "ControlPanel:Parts:Edit:Pricing"), []string{"price"}, "GRANT_MISSING"},
	} {
		_, err := c.by.updatePart(t, change, c.paths...)
		fails(t, fmt.Sprint("change of ", c.paths), err, codes.PermissionDenied, c.reason, "")
	}
	equal(t, "part after refusals", must(u.parts.GetPart(t.Context(), &pb.GetPartRequest{Id: p.GetId()}))(t).GetPart(), p)

	got := must(general.updatePart(t, change, "name"))(t)
	if got.GetName() != "Tap" || got.Price != nil {
		t.Errorf("change by somebody without pricing: got %v, want the new name and no price", got)
	}
	got = must(prices.updatePart(t, change, "price"))(t)
	if got.GetPrice().GetMinorUnits() != 990 || got.GetEtag() == p.GetEtag() {
		t.Errorf("change of price: got %v, want 990 and another etag than %s", got, p.GetEtag())
	}
	_, err := u.updatePart(t, &pb.Part{Id: p.GetId(), Etag: p.GetEtag(), Name: proto.String("Late")}, "name")
	fails(t, "stale etag", err, codes.Aborted, "ETAG_STALE", "")
	_, err = u.updatePart(t, &pb.Part{Id: p.GetId(), Price: eur(-1)}, "price")
	fails(t, "negative price", err, codes.InvalidArgument, "FIELD_INVALID", "part.price")
	_, err = u.updatePart(t, &pb.Part{Id: p.GetId()}, "name")
	fails(t, "no name", err, codes.InvalidArgument, "FIELD_INVALID", "part.name")
	_, err = u.updatePart(t, &pb.Part{Id: p.GetId()}, "price.currency_code")
	fails(t, "change of a part of the price", err, codes.InvalidArgument, "FIELD_INVALID", "update_mask")
	_, err = u.updatePart(t, &pb.Part{Id: p.GetId(), Price: &typepb.Money{MinorUnits: 5}}, "price")
	fails(t, "price without a currency", err, codes.InvalidArgument, "FIELD_INVALID", "part.price.currency_code")
	_, err = u.updatePart(t, &pb.Part{Id: p.GetId()}, "id")
	fails(t, "change of the id", err, codes.InvalidArgument, "FIELD_INVALID", "update_mask")
	_, err = u.updatePart(t, &pb.Part{Id: servertest.UUID(5), Name: proto.String("Tap")}, "name")
	fails(t, "unknown part", err, codes.NotFound, "RECORD_NOT_FOUND", "")
}

func TestPartViews(t *testing.T) {
	s := start(t)
	u := s.office()
	var active []string
	for _, name := range []string{"valve", "Tap", "hose", "Pump", "bolt"} {
		active = append(active, u.createPart(t, &pb.CreatePartRequest{Name: name, Category: "plumbing", Price: eur(100)}).GetId())
	}
	// By name, whatever its case: bolt, hose, Pump, Tap, valve.
	inOrder := []string{active[4], active[2], active[3], active[1], active[0]}
	must(u.updatePart(t, &pb.Part{Id: active[1], Active: proto.Bool(false)}, "active"))(t)

	picker := s.as("Organization:Parts")
	list := func(u *user, req *pb.ListPartsRequest) (ids []string) {
		t.Helper()
		for {
			page := must(u.parts.ListParts(t.Context(), req))(t)
			for _, p := range page.GetParts() {
				ids = append(ids, p.GetId())
			}
			if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
				return ids
			}
		}
	}
	if got := list(u, &pb.ListPartsRequest{View: pb.PartView_PART_VIEW_CONTROL_PANEL, PageSize: 2}); !slices.Equal(got, inOrder) {
		t.Errorf("control panel: got %v, want %v", got, inOrder)
	}
	want := slices.Delete(slices.Clone(inOrder), 3, 4)
	if got := list(picker, &pb.ListPartsRequest{View: pb.PartView_PART_VIEW_PICKER, PageSize: 2}); !slices.Equal(got, want) {
		t.Errorf("picker: got %v, want %v", got, want)
	}
	if got := list(u, &pb.ListPartsRequest{View: pb.PartView_PART_VIEW_CONTROL_PANEL, Filter: `price.minor_units >= 100 AND name : "o"`}); !slices.Equal(got, inOrder[:2]) {
		t.Errorf("filter: got %v, want %v", got, inOrder[:2])
	}
	_, err := picker.parts.ListParts(t.Context(), &pb.ListPartsRequest{View: pb.PartView_PART_VIEW_CONTROL_PANEL})
	fails(t, "view without its key", err, codes.PermissionDenied, "GRANT_MISSING", "view")
	_, err = picker.parts.ListParts(t.Context(), &pb.ListPartsRequest{View: pb.PartView_PART_VIEW_PICKER, Filter: "price.minor_units > 5"})
	fails(t, "filter by a hidden field", err, codes.PermissionDenied, "GRANT_MISSING", "filter")
	_, err = u.parts.ListParts(t.Context(), &pb.ListPartsRequest{View: pb.PartView_PART_VIEW_PICKER, Filter: "colour = red"})
	fails(t, "filter by no field", err, codes.InvalidArgument, "FIELD_INVALID", "filter")
	first := must(u.parts.ListParts(t.Context(), &pb.ListPartsRequest{View: pb.PartView_PART_VIEW_CONTROL_PANEL, PageSize: 1}))(t)
	_, err = u.parts.ListParts(t.Context(), &pb.ListPartsRequest{View: pb.PartView_PART_VIEW_PICKER, PageSize: 1, PageToken: first.GetNextPageToken()})
	fails(t, "token of another request", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID", "")

	lookup := pb.NewPartServiceClient(s.Service("scheduling"))
	got := must(lookup.LookupParts(t.Context(), &pb.LookupPartsRequest{Ids: append(active, servertest.UUID(3))}))(t)
	equal(t, "lookup", got, &pb.LookupPartsResponse{Ids: slices.Delete(slices.Clone(active), 1, 2)})
	_, err = u.parts.LookupParts(t.Context(), &pb.LookupPartsRequest{Ids: active})
	fails(t, "lookup by a person", err, codes.PermissionDenied, "INTERNAL_ONLY", "")
}
