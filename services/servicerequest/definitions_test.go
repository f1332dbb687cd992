package servicerequest

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"
)

// defined is a suite whose organization has a field, two categories, a tag and a label.
type defined struct {
	*suite
	client
	property           *pb.Property
	floor              *identitypb.CustomField
	water, roof        string
	urgent, waits, old string
}

func newDefined(t *testing.T) *defined {
	s := newSuite(t)
	d := &defined{suite: s, client: s.as(everything()...), water: newID(), roof: newID(), urgent: newID(), waits: newID(), old: newID()}
	d.property = s.property(d.client)
	d.floor = &identitypb.CustomField{
		Id: newID(), Name: "Floor", Type: identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_NUMBER, Maximum: proto.Int64(12),
	}
	d.define(func(r *roll) {
		r.fields = []*identitypb.CustomField{d.floor}
		for id, kind := range map[string]identitypb.LabelKind{
			d.water: identitypb.LabelKind_LABEL_KIND_CATEGORY, d.roof: identitypb.LabelKind_LABEL_KIND_CATEGORY,
			d.urgent: identitypb.LabelKind_LABEL_KIND_TAG, d.waits: identitypb.LabelKind_LABEL_KIND_LABEL,
		} {
			r.labels = append(r.labels, &identitypb.Label{Id: id, Kind: kind})
		}
	})
	return d
}

// define changes what identity says, and lets the service know as identity does.
func (d *defined) define(change func(*roll)) {
	d.t.Helper()
	d.users.change(change)
	d.Forget("definitions:" + d.suite.Organization)
}

func (d *defined) on(n int64) []*typepb.CustomValue {
	return []*typepb.CustomValue{{CustomFieldId: d.floor.GetId(), Value: &typepb.CustomValue_Number{Number: n}}}
}

func (d *defined) want(what string, err error, outcome, at string) {
	d.t.Helper()
	expect(d.t, what, err, outcome)
	if got := field(err); got != at {
		d.t.Errorf("%s: got the field %q, want %q", what, got, at)
	}
}

func (d *defined) create(values []*typepb.CustomValue, category string, labels ...string) (*pb.ServiceRequest, error) {
	resp, err := d.CreateServiceRequest(d.t.Context(), &pb.CreateServiceRequestRequest{
		PropertyId: d.property.GetId(), Title: "Tap drips", CustomValues: values, CategoryId: category, LabelIds: labels,
	})
	return resp.GetServiceRequest(), err
}

func (d *defined) update(id string, change *pb.ServiceRequest, paths ...string) error {
	change.Id = id
	_, err := d.UpdateServiceRequest(d.t.Context(), &pb.UpdateServiceRequestRequest{
		ServiceRequest: change, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
	})
	return err
}

const invalid = "InvalidArgument FIELD_INVALID"

func TestCustomValuesAndLabels(t *testing.T) {
	d := newDefined(t)
	made, err := d.create(d.on(2), d.water, d.urgent, d.waits)
	d.want("all well", err, "OK", "")
	equal(t, "kept", bare(d.stored(made.GetId())), bare(&pb.ServiceRequest{
		OwnerId: d.client.ID, State: drafted, PropertyId: d.property.GetId(), Title: proto.String("Tap drips"),
		CustomValues: d.on(2), CategoryId: &d.water, LabelIds: []string{d.urgent, d.waits},
	}))
	for what, try := range map[string]struct {
		values   []*typepb.CustomValue
		category string
		labels   []string
		at       string
	}{
		"out of bounds":       {d.on(13), "", nil, "custom_values[0]"},
		"a field twice":       {append(d.on(1), d.on(2)...), "", nil, "custom_values[1].custom_field_id"},
		"no such category":    {nil, d.old, nil, "category_id"},
		"a tag as category":   {nil, d.urgent, nil, "category_id"},
		"no such label":       {nil, "", []string{d.waits, d.old}, "label_ids[1]"},
		"a category as label": {nil, "", []string{d.roof}, "label_ids[0]"},
		"a label twice":       {nil, "", []string{d.waits, d.waits}, "label_ids"},
	} {
		_, err := d.create(try.values, try.category, try.labels...)
		d.want(what, err, invalid, try.at)
		_, err = d.DocumentServiceRequest(t.Context(), &pb.DocumentServiceRequestRequest{
			PropertyId: d.property.GetId(), Title: "Gutter is loose", CustomValues: try.values, CategoryId: try.category, LabelIds: try.labels,
		})
		d.want(what+", documented", err, invalid, try.at)
		change := &pb.ServiceRequest{CustomValues: try.values, LabelIds: try.labels}
		if try.category != "" {
			change.CategoryId = &try.category
		}
		err = d.update(made.GetId(), change, "custom_values", "category_id", "label_ids")
		d.want(what+", updated", err, invalid, "service_request."+try.at)
	}
	d.want("others", d.update(made.GetId(), &pb.ServiceRequest{
		CustomValues: d.on(3), CategoryId: &d.roof, LabelIds: []string{d.waits},
	}, "custom_values", "category_id", "label_ids"), "OK", "")
	r := d.stored(made.GetId())
	if r.GetCustomValues()[0].GetNumber() != 3 || r.GetCategoryId() != d.roof || !slices.Equal(r.GetLabelIds(), []string{d.waits}) {
		t.Errorf("updated: got %v", r)
	}
	d.want("none", d.update(made.GetId(), &pb.ServiceRequest{}, "custom_values", "category_id", "label_ids"), "OK", "")
	if r := d.stored(made.GetId()); len(r.GetCustomValues())+len(r.GetLabelIds()) > 0 || r.CategoryId != nil {
		t.Errorf("cleared: got %v", r)
	}
}

// What a request has stays good, whatever becomes of its field and labels; no request gets
// it from the moment when the change of the definition has returned.
func TestDefinitionsGo(t *testing.T) {
	d := newDefined(t)
	made, err := d.create(d.on(2), d.water, d.urgent)
	d.want("all well", err, "OK", "")
	d.define(func(r *roll) { r.fields, r.labels = nil, nil })
	_, err = d.create(d.on(2), "")
	d.want("a deleted field", err, invalid, "custom_values[0].custom_field_id")
	_, err = d.create(nil, d.water)
	d.want("a deleted category", err, invalid, "category_id")
	_, err = d.create(nil, "", d.urgent)
	d.want("a deleted tag", err, invalid, "label_ids[0]")
	d.want("as it was", d.update(made.GetId(), &pb.ServiceRequest{CustomValues: d.on(2), CategoryId: &d.water, LabelIds: []string{d.urgent}},
		"custom_values", "category_id", "label_ids"), "OK", "")
	d.want("another value", d.update(made.GetId(), &pb.ServiceRequest{CustomValues: d.on(3)}, "custom_values"),
		invalid, "service_request.custom_values[0].custom_field_id")
	d.want("the title", d.update(made.GetId(), &pb.ServiceRequest{Title: proto.String("Two taps drip")}, "title"), "OK", "")

	d.define(func(r *roll) {
		required := proto.CloneOf(d.floor)
		required.Required = true
		r.fields = []*identitypb.CustomField{required}
	})
	_, err = d.create(nil, "")
	d.want("without a required value", err, invalid, "custom_values")
	d.want("clear a required value", d.update(made.GetId(), &pb.ServiceRequest{}, "custom_values"), invalid, "service_request.custom_values")
}

// A request without values costs no call to identity, and the next one with them neither.
func TestDefinitionsAreRemembered(t *testing.T) {
	d := newDefined(t)
	asked := func() (n int) {
		d.users.change(func(r *roll) { n = r.defined })
		return n
	}
	for range 3 {
		_, err := d.create(d.on(1), d.water, d.urgent)
		d.want("with values", err, "OK", "")
	}
	if n := asked(); n != 3 {
		t.Errorf("identity was asked %d times, want once for the fields and once for each label", n)
	}
	d.users.change(func(r *roll) { r.down = true })
	_, err := d.create(nil, "")
	d.want("without values, identity being away", err, "OK", "")
	_, err = d.create(d.on(1), d.water)
	d.want("with known ones", err, "OK", "")
	_, err = d.create(nil, d.roof)
	d.want("with one that was not asked for yet", err, "Unavailable SERVICE_UNREACHABLE", "")
	d.Forget("definitions:" + newID())
	_, err = d.create(d.on(1), d.water)
	d.want("after a change of another organization's", err, "OK", "")
	d.Forget("definitions:" + d.suite.Organization)
	_, err = d.create(nil, "")
	d.want("after a change", err, "Unavailable SERVICE_UNREACHABLE", "")
}
