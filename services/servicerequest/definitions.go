package servicerequest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/customfield"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// definition is what identity said under one key: under the id of an organization its
// fields of service requests, under that and the id of a label the label, nil if the
// organization has none, and the categories beneath it.
type definition struct {
	fields  []*identitypb.CustomField
	label   *identitypb.Label
	beneath []string
}

// loadDefinition asks identity for what the cache lacks.
func (s *service) loadDefinition(ctx context.Context, key string) (d definition, tags []string, err error) {
	organization, label, isLabel := strings.Cut(key, "/")
	req := &identitypb.LookupDefinitionsRequest{Noun: identitypb.CustomFieldNoun_CUSTOM_FIELD_NOUN_SERVICE_REQUEST}
	if isLabel {
		req = &identitypb.LookupDefinitionsRequest{LabelIds: []string{label}, Beneath: true}
	}
	resp, err := s.fields.LookupDefinitions(store.WithOrigin(ctx, store.Origin{Tenant: organization}), req)
	if err != nil {
		return d, nil, unanswered("ask identity which fields and labels there are", err)
	}
	d.fields = resp.GetCustomFields()
	for _, l := range resp.GetLabels() {
		if l.GetId() == label {
			d.label = l
		} else {
			d.beneath = append(d.beneath, l.GetId())
		}
	}
	return d, []string{"definitions:" + organization}, nil
}

// sorted is what says how a service request is sorted, beside its fields.
type sorted interface {
	GetCustomValues() []*typepb.CustomValue
	GetCategoryId() string
	GetLabelIds() []string
}

// definitions are the fields that service requests have, and those labels that were asked
// for and that there are.
type definitions struct {
	fields []*identitypb.CustomField
	labels map[string]*identitypb.Label
}

// define returns by what a service request is checked that is to be sorted so. It may call
// another service, so it is called before a transaction and not in one.
func (s *service) define(ctx context.Context, w sorted) (*definitions, error) {
	organization := authz.Caller(ctx).Organization
	e, err := s.defined.Get(ctx, organization)
	if err != nil {
		return nil, err
	}
	d := &definitions{fields: e.Value.fields, labels: map[string]*identitypb.Label{}}
	for _, id := range labelsOf(w) {
		e, err := s.defined.Get(ctx, organization+"/"+id)
		if err != nil {
			return nil, err
		}
		d.labels[id] = e.Value.label
	}
	return d, nil
}

// defineChange is define for an update, of which most change nothing that is defined.
func (s *service) defineChange(ctx context.Context, req *pb.UpdateServiceRequestRequest) (*definitions, error) {
	r, paths := req.GetServiceRequest(), req.GetUpdateMask().GetPaths()
	if !isSorted(r) && !slices.Contains(paths, "custom_values") && !slices.Contains(paths, "*") {
		return nil, nil
	}
	return s.define(ctx, r)
}

// defineApproval is define for an approval, which changes what it brings along.
func (s *service) defineApproval(ctx context.Context, req *pb.ApproveServiceRequestRequest) (*definitions, error) {
	if !isSorted(req) {
		return nil, nil
	}
	return s.define(ctx, req)
}

// isSorted tells whether there is anything by which a request is sorted.
func isSorted(w sorted) bool { return len(w.GetCustomValues()) > 0 || len(labelsOf(w)) > 0 }

// labelsOf returns the ids of all labels, the category among them.
func labelsOf(w sorted) []string {
	if w.GetCategoryId() == "" {
		return w.GetLabelIds()
	}
	return append([]string{w.GetCategoryId()}, w.GetLabelIds()...)
}

// check says what will not do of how a request is sorted. What it was before, nil if it is
// new, stays good, whatever has become of the field or label. Nil definitions are those of an
// update that does not touch this. Path is where the fields stand, "" or "service_request.".
func (d *definitions) check(path string, was, is *pb.ServiceRequest) error {
	if d == nil {
		return nil
	}
	same := func(a, b *typepb.CustomValue) bool { return proto.Equal(a, b) }
	if was == nil || !slices.EqualFunc(was.GetCustomValues(), is.GetCustomValues(), same) {
		if err := customfield.Check(path+"custom_values", d.fields, was.GetCustomValues(), is.GetCustomValues()); err != nil {
			return err
		}
	}
	id := is.GetCategoryId()
	if id != was.GetCategoryId() && id != "" && (d.labels[id] == nil || !isCategory(d.labels[id])) {
		return fault.Invalid(path+"category_id", "must be a category: LabelService.ListLabels lists them")
	}
	for i, id := range is.GetLabelIds() {
		if !slices.Contains(was.GetLabelIds(), id) && (d.labels[id] == nil || isCategory(d.labels[id])) {
			return fault.Invalid(fmt.Sprintf("%slabel_ids[%d]", path, i), "must be a tag or a label: LabelService.ListLabels lists them")
		}
	}
	return nil
}

func isCategory(l *identitypb.Label) bool {
	return l.GetKind() == identitypb.LabelKind_LABEL_KIND_CATEGORY
}
