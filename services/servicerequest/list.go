package servicerequest

import (
	"context"
	"slices"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/customfield"
	"latchkey.dev/services/internal/store"
)

func (s *service) ListServiceRequests(ctx context.Context, req *pb.ListServiceRequestsRequest) (*pb.ListServiceRequestsResponse, error) {
	w, err := s.want(ctx, req)
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListServiceRequestsResponse, error) {
		seen, err := listed(ctx, tx, req.GetPropertyId())
		if err != nil {
			return nil, err
		}
		keep := func(r *pb.ServiceRequest) bool { return w.keeps(r) && seen.keeps(r) }
		page, next, err := store.PageInSections(tx, req, seen.sections(tx, w, keep)...)
		if err != nil {
			return nil, err
		}
		for _, r := range page {
			leaving(ctx, tx, r)
		}
		return &pb.ListServiceRequestsResponse{ServiceRequests: page, NextPageToken: next}, nil
	})
}

// listed returns what the caller sees, of one property or of all.
func listed(ctx context.Context, tx *store.Tx, property string) (sight, error) {
	caller := authz.Caller(ctx)
	if property == "" {
		return sightOf(caller, teams(tx, caller.ID)...), nil
	}
	_, err := findProperty(ctx, tx, property)
	return sightOf(caller, property), err
}

// wanted is what a list is to hold, of what the caller sees.
type wanted struct {
	view     pb.ServiceRequestView
	property string            // the only one; empty for all
	labels   []map[string]bool // of each of these one, by its id: a label, or a category with those beneath it
	filter   *customfield.Filter
	order    customfield.Order
}

// want reads what a list is to hold. It may call another service, so it is called before a
// transaction and not in one.
func (s *service) want(ctx context.Context, req *pb.ListServiceRequestsRequest) (*wanted, error) {
	w := &wanted{view: req.GetView(), property: req.GetPropertyId()}
	var err error
	if w.filter, err = s.filter(ctx, req.GetFilter()); err != nil {
		return nil, err
	}
	fields, err := s.fieldsNamed(ctx, req.GetOrderBy())
	if err != nil {
		return nil, err
	}
	if w.order, err = customfield.ParseOrder(req.GetOrderBy(), "create_time desc", fields); err != nil {
		return nil, err
	}
	for _, id := range req.GetLabelIds() {
		e, err := s.defined.Get(ctx, authz.Caller(ctx).Organization+"/"+id)
		if err != nil {
			return nil, err
		}
		ids := map[string]bool{id: true}
		for _, beneath := range e.Value.beneath {
			ids[beneath] = true
		}
		w.labels = append(w.labels, ids)
	}
	return w, nil
}

func (s *service) filter(ctx context.Context, text string) (*customfield.Filter, error) {
	fields, err := s.fieldsNamed(ctx, text)
	if err != nil {
		return nil, err
	}
	return customfield.Parse(text, &pb.ServiceRequest{}, fields)
}

// fieldsNamed are the custom fields, asked for only if a filter or an order may name one.
func (s *service) fieldsNamed(ctx context.Context, text string) ([]*identitypb.CustomField, error) {
	if !customfield.Named(text) {
		return nil, nil
	}
	e, err := s.defined.Get(ctx, authz.Caller(ctx).Organization)
	if err != nil {
		return nil, err
	}
	return e.Value.fields, nil
}

// keeps tells whether a request of the view is in the list.
func (w *wanted) keeps(r *pb.ServiceRequest) bool {
	if w.property != "" && r.GetPropertyId() != w.property {
		return false
	}
	has := labelsOf(r)
	lacks := func(ids map[string]bool) bool {
		return !slices.ContainsFunc(has, func(id string) bool { return ids[id] })
	}
	return !slices.ContainsFunc(w.labels, lacks) && w.filter.Match(r)
}

// maxRanges bounds how many ranges are read side by side for the categories beneath one. Of
// more, what a list is to hold is looked for among all that the caller sees.
const maxRanges = 200

// sections are what the list reads: in its order every request that the caller sees and that
// is wanted, and beside them only those that keep leaves out, as few as an index can tell.
func (s sight) sections(tx *store.Tx, w *wanted, keep func(*pb.ServiceRequest) bool) []store.Section[*pb.ServiceRequest] {
	if !w.order.ByField() && len(w.labels) > 0 && len(w.labels[0])*len(s.circles) <= max(maxRanges, len(s.circles)) {
		labelled := s.rangesOf(func(c circle) (ranges []store.Range[*pb.ServiceRequest]) {
			for label := range w.labels[0] {
				ranges = append(ranges, requestLabel.Range(c, label, w.view))
			}
			return ranges
		})
		return []store.Section[*pb.ServiceRequest]{{Keep: keep, Ranges: customfield.Directed(w.order, labelled)}}
	}
	each := func(of func(circle) store.Range[*pb.ServiceRequest]) []store.Range[*pb.ServiceRequest] {
		return s.rangesOf(func(c circle) []store.Range[*pb.ServiceRequest] { return []store.Range[*pb.ServiceRequest]{of(c)} })
	}
	return customfield.Sections(tx, w.filter, w.order, keep, customfield.Indexes[*pb.ServiceRequest]{
		All: func() []store.Range[*pb.ServiceRequest] {
			return each(func(c circle) store.Range[*pb.ServiceRequest] { return requestSight.Range(c, w.view) })
		},
		Having: func(field string) []store.Range[*pb.ServiceRequest] {
			return each(func(c circle) store.Range[*pb.ServiceRequest] { return requestCustom.Range(c, field, w.view) })
		},
		Valued: func(field string, part ...any) []store.Range[*pb.ServiceRequest] {
			return each(func(c circle) store.Range[*pb.ServiceRequest] {
				return requestValue.Range(append([]any{c, field, w.view}, part...)...)
			})
		},
	})
}

// rangesOf returns those of each circle.
func (s sight) rangesOf(of func(circle) []store.Range[*pb.ServiceRequest]) (ranges []store.Range[*pb.ServiceRequest]) {
	for _, c := range s.circles {
		ranges = append(ranges, of(c)...)
	}
	return ranges
}
