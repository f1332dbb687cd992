package identity

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// maxFields is how many fields a noun can have.
const maxFields = 100

// customField finds a field of the caller's organization, deleted ones as long as they can
// be brought back.
func customField(ctx context.Context, tx *store.Tx, id, etag string) (*pb.CustomField, error) {
	f, ok := customFields.Get(tx, id)
	if !ok || f.GetOrganizationId() != authz.Caller(ctx).Organization || purgeDue(tx, f) {
		return nil, fault.NotFound("custom_field", id)
	}
	return f, customFields.Match(f, etag)
}

// redefine is do for a change of what an organization has defined. When it returns, no
// service goes by what was defined before.
func redefine[R proto.Message](ctx context.Context, s *service, req validated, f func(*store.Tx) (R, error)) (resp R, err error) {
	change := func(ctx context.Context) (tags []string, err error) {
		resp, err = do(ctx, s, req, f)
		return []string{definitionsTag(authz.Caller(ctx).Organization)}, err
	}
	if req.GetValidateOnly() {
		_, err = change(ctx)
		return resp, err
	}
	return resp, s.publish(ctx, change)
}

// validated is a request that can be no more than checked.
type validated interface {
	proto.Message
	GetValidateOnly() bool
}

// CreateCustomField implements pb.CustomFieldServiceServer.
func (s *service) CreateCustomField(ctx context.Context, req *pb.CreateCustomFieldRequest) (*pb.CreateCustomFieldResponse, error) {
	w := req.GetCustomField()
	fresh := &pb.CustomField{
		Id: s.newID(), OrganizationId: authz.Caller(ctx).Organization, Noun: w.GetNoun(), Name: w.GetName(), Type: w.GetType(),
		Help: w.GetHelp(), Required: w.GetRequired(), Position: w.GetPosition(), Choices: w.GetChoices(), Minimum: w.Minimum, Maximum: w.Maximum,
	}
	if err := checkField(fresh); err != nil {
		return nil, err
	}
	return redefine(ctx, s, req, func(tx *store.Tx) (*pb.CreateCustomFieldResponse, error) {
		return &pb.CreateCustomFieldResponse{CustomField: fresh}, addField(tx, fresh)
	})
}

// addField puts one more field into its noun.
func addField(tx *store.Tx, f *pb.CustomField) error {
	if customFieldsInOrder.Count(tx, customFieldsInOrder.Range(f.GetOrganizationId(), f.GetNoun())) >= maxFields {
		return fault.Limit("custom fields of a noun", 0)
	}
	return customFields.Put(tx, f)
}

// GetCustomField implements pb.CustomFieldServiceServer.
func (s *service) GetCustomField(ctx context.Context, req *pb.GetCustomFieldRequest) (*pb.GetCustomFieldResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetCustomFieldResponse, error) {
		f, err := customField(ctx, tx, req.GetId(), "")
		return &pb.GetCustomFieldResponse{CustomField: f}, err
	})
}

// ListCustomFields implements pb.CustomFieldServiceServer.
func (s *service) ListCustomFields(ctx context.Context, req *pb.ListCustomFieldsRequest) (*pb.ListCustomFieldsResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListCustomFieldsResponse, error) {
		organization := authz.Caller(ctx).Organization
		ranges := []store.Range[*pb.CustomField]{customFieldsInOrder.Range(organization, req.GetNoun())}
		if req.GetShowDeleted() {
			ranges = append(ranges, deletedFields.Range(organization, req.GetNoun()))
		}
		page, next, err := store.Page(tx, req, func(f *pb.CustomField) bool { return !purgeDue(tx, f) }, ranges...)
		return &pb.ListCustomFieldsResponse{CustomFields: page, NextPageToken: next}, err
	})
}

// UpdateCustomField implements pb.CustomFieldServiceServer.
func (s *service) UpdateCustomField(ctx context.Context, req *pb.UpdateCustomFieldRequest) (*pb.UpdateCustomFieldResponse, error) {
	w := req.GetCustomField()
	return redefine(ctx, s, req, func(tx *store.Tx) (*pb.UpdateCustomFieldResponse, error) {
		f, err := customField(ctx, tx, w.GetId(), w.GetEtag())
		if err != nil {
			return nil, err
		}
		if f.GetDeleteTime() != nil {
			return nil, fault.NotFound("custom_field", w.GetId())
		}
		was := proto.CloneOf(f)
		if err := mask.Apply(f, w, req.GetUpdateMask(), "name", "help", "required", "position", "choices", "minimum", "maximum"); err != nil {
			return nil, err
		}
		if err := checkField(f); err != nil {
			return nil, err
		}
		if err := keepsChoices(was, f); err != nil {
			return nil, err
		}
		return &pb.UpdateCustomFieldResponse{CustomField: f}, customFields.Put(tx, f)
	})
}

// DeleteCustomField implements pb.CustomFieldServiceServer.
func (s *service) DeleteCustomField(ctx context.Context, req *pb.DeleteCustomFieldRequest) (*pb.DeleteCustomFieldResponse, error) {
	return redefine(ctx, s, req, func(tx *store.Tx) (*pb.DeleteCustomFieldResponse, error) {
		f, err := customField(ctx, tx, req.GetId(), req.GetEtag())
		if err != nil || f.GetDeleteTime() != nil {
			return &pb.DeleteCustomFieldResponse{CustomField: f}, err
		}
		f.DeleteTime, f.PurgeTime = endNow(tx)
		return &pb.DeleteCustomFieldResponse{CustomField: f}, customFields.Put(tx, f)
	})
}

// UndeleteCustomField implements pb.CustomFieldServiceServer.
func (s *service) UndeleteCustomField(ctx context.Context, req *pb.UndeleteCustomFieldRequest) (*pb.UndeleteCustomFieldResponse, error) {
	return redefine(ctx, s, req, func(tx *store.Tx) (*pb.UndeleteCustomFieldResponse, error) {
		f, err := customField(ctx, tx, req.GetId(), req.GetEtag())
		if err != nil || f.GetDeleteTime() == nil {
			return &pb.UndeleteCustomFieldResponse{CustomField: f}, err
		}
		f.DeleteTime, f.PurgeTime = nil, nil
		return &pb.UndeleteCustomFieldResponse{CustomField: f}, addField(tx, f)
	})
}

// fieldsOf are the fields of a noun of an organization.
func fieldsOf(tx *store.Tx, organization string, noun pb.CustomFieldNoun) (fields []*pb.CustomField) {
	for f := range customFieldsInOrder.Scan(tx, customFieldsInOrder.Range(organization, noun)) {
		fields = append(fields, f)
	}
	return fields
}

// LookupDefinitions implements pb.CustomFieldServiceServer.
func (s *service) LookupDefinitions(ctx context.Context, req *pb.LookupDefinitionsRequest) (*pb.LookupDefinitionsResponse, error) {
	organization := store.OriginOf(ctx).Tenant
	return read(ctx, s, func(tx *store.Tx) (*pb.LookupDefinitionsResponse, error) {
		resp := &pb.LookupDefinitionsResponse{CustomFields: fieldsOf(tx, organization, req.GetNoun())}
		for _, id := range req.GetLabelIds() {
			if l, ok := labels.Get(tx, id); ok && l.GetOrganizationId() == organization && l.GetDeleteTime() == nil {
				resp.Labels = append(resp.Labels, l)
				if req.GetBeneath() {
					resp.Labels = append(resp.Labels, beneath(tx, id)...)
				}
			}
		}
		return resp, nil
	})
}
