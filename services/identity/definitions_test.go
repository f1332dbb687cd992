package identity_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
)

const onUser = pb.CustomFieldNoun_CUSTOM_FIELD_NOUN_USER

func (s *suite) fields() pb.CustomFieldServiceClient { return pb.NewCustomFieldServiceClient(s.conn) }
func (s *suite) labels() pb.LabelServiceClient       { return pb.NewLabelServiceClient(s.conn) }
func (s *suite) billing() pb.BillingAccountServiceClient {
	return pb.NewBillingAccountServiceClient(s.conn)
}

// locker is a field for numbers, that users have.
func locker() *pb.CustomField {
	return &pb.CustomField{
		Noun: onUser, Name: "Locker", Type: pb.CustomFieldType_CUSTOM_FIELD_TYPE_NUMBER,
		Minimum: proto.Int64(1), Maximum: proto.Int64(400),
	}
}

// changed returns a changed copy of a field.
func changed(f *pb.CustomField, change func(*pb.CustomField)) *pb.CustomField {
	f = proto.CloneOf(f)
	change(f)
	return f
}

func (c *caller) addField(f *pb.CustomField) *pb.CustomField {
	c.t.Helper()
	resp, err := c.fields().CreateCustomField(c.ctx(), &pb.CreateCustomFieldRequest{CustomField: f})
	mustNot(c.t, err)
	return resp.GetCustomField()
}

func (c *caller) fieldNames(req *pb.ListCustomFieldsRequest) (names []string) {
	c.t.Helper()
	req.Noun = onUser
	resp, err := c.fields().ListCustomFields(c.ctx(), req)
	mustNot(c.t, err)
	for _, f := range resp.GetCustomFields() {
		names = append(names, f.GetName())
	}
	return names
}

func TestCustomFields(t *testing.T) {
	owner := owned(t)
	f := owner.addField(locker())
	owner.addField(&pb.CustomField{Noun: onUser, Name: "Badge", Type: pb.CustomFieldType_CUSTOM_FIELD_TYPE_TEXT, Position: -1})
	clerk := owner.hire("clerk", "US")
	sameNames(t, "in order, to anybody", clerk.fieldNames(&pb.ListCustomFieldsRequest{}), "Badge", "Locker")
	_, err := owner.fields().CreateCustomField(owner.ctx(), &pb.CreateCustomFieldRequest{CustomField: changed(locker(), func(f *pb.CustomField) { f.Name = "lOCKER" })})
	check(t, "the name once more", err, codes.AlreadyExists, "RECORD_EXISTS")
	for field, spoil := range map[string]func(*pb.CustomField){
		"custom_field.noun":    func(f *pb.CustomField) { f.Noun = 0 },
		"custom_field.type":    func(f *pb.CustomField) { f.Type = 0 },
		"custom_field.name":    func(f *pb.CustomField) { f.Name = "" },
		"custom_field.choices": func(f *pb.CustomField) { f.Choices = []*pb.CustomFieldChoice{{Id: "a", Label: "A"}} },
		"custom_field.minimum": func(f *pb.CustomField) { f.Minimum = proto.Int64(401) },
		"custom_field.maximum": func(f *pb.CustomField) {
			f.Type, f.Maximum = pb.CustomFieldType_CUSTOM_FIELD_TYPE_TEXT, proto.Int64(2001)
		},
	} {
		_, err := owner.fields().CreateCustomField(owner.ctx(), &pb.CreateCustomFieldRequest{CustomField: changed(locker(), spoil)})
		checkField(t, "without a good "+field, err, field)
	}
	renamed, err := owner.fields().UpdateCustomField(owner.ctx(), &pb.UpdateCustomFieldRequest{
		CustomField: &pb.CustomField{Id: f.GetId(), Etag: f.GetEtag(), Name: "Locker number"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}},
	})
	mustNot(t, err)
	want := changed(f, func(f *pb.CustomField) {
		f.Name, f.Etag, f.UpdateTime = "Locker number", renamed.GetCustomField().GetEtag(), renamed.GetCustomField().GetUpdateTime()
	})
	same(t, "renamed", renamed.GetCustomField(), want)
	_, err = owner.fields().UpdateCustomField(owner.ctx(), &pb.UpdateCustomFieldRequest{CustomField: &pb.CustomField{Id: f.GetId(), Etag: f.GetEtag(), Name: "X"}})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = owner.fields().DeleteCustomField(owner.ctx(), &pb.DeleteCustomFieldRequest{Id: f.GetId()})
	mustNot(t, err)
	sameNames(t, "without the deleted one", owner.fieldNames(&pb.ListCustomFieldsRequest{}), "Badge")
	sameNames(t, "with the deleted one", owner.fieldNames(&pb.ListCustomFieldsRequest{ShowDeleted: true}), "Badge", "Locker number")
	taken := owner.addField(changed(locker(), func(f *pb.CustomField) { f.Name = "Locker Number" }))
	_, err = owner.fields().UndeleteCustomField(owner.ctx(), &pb.UndeleteCustomFieldRequest{Id: f.GetId()})
	check(t, "undelete, the name taken", err, codes.AlreadyExists, "RECORD_EXISTS")
	_, err = owner.fields().DeleteCustomField(owner.ctx(), &pb.DeleteCustomFieldRequest{Id: taken.GetId()})
	mustNot(t, err)
	_, err = owner.fields().UndeleteCustomField(owner.ctx(), &pb.UndeleteCustomFieldRequest{Id: f.GetId()})
	mustNot(t, err)
	there := owner.found("Hill Homes")
	if names := there.fieldNames(&pb.ListCustomFieldsRequest{ShowDeleted: true}); len(names) > 0 {
		t.Errorf("another organization sees %q", names)
	}
	_, err = there.fields().GetCustomField(there.ctx(), &pb.GetCustomFieldRequest{Id: f.GetId()})
	check(t, "get of another organization", err, codes.NotFound, "RECORD_NOT_FOUND")
}

func TestChoicesAreRetired(t *testing.T) {
	owner := owned(t)
	f := owner.addField(&pb.CustomField{
		Noun: onUser, Name: "Size", Type: pb.CustomFieldType_CUSTOM_FIELD_TYPE_CHOICE,
		Choices: []*pb.CustomFieldChoice{{Id: "m", Label: "M"}, {Id: "l", Label: "L"}},
	})
	update := func(choices ...*pb.CustomFieldChoice) error {
		return second(owner.fields().UpdateCustomField(owner.ctx(), &pb.UpdateCustomFieldRequest{CustomField: &pb.CustomField{Id: f.GetId(), Choices: choices}}))
	}
	checkField(t, "without a choice", update(&pb.CustomFieldChoice{Id: "m", Label: "M"}), "custom_field.choices")
	checkField(t, "with one twice", update(&pb.CustomFieldChoice{Id: "m", Label: "M"}, &pb.CustomFieldChoice{Id: "m", Label: "L"}), "custom_field.choices[1].id")
	mustNot(t, update(&pb.CustomFieldChoice{Id: "m", Label: "Medium"}, &pb.CustomFieldChoice{Id: "l", Label: "L", Retired: true}))
}

func TestCustomValuesOfUsers(t *testing.T) {
	owner := owned(t)
	f := owner.addField(changed(locker(), func(f *pb.CustomField) { f.Required = true }))
	number := func(n int64) []*typepb.CustomValue {
		return []*typepb.CustomValue{{CustomFieldId: f.GetId(), Value: &typepb.CustomValue_Number{Number: n}}}
	}
	create := &pb.CreateUserRequest{Email: "ada@example.com", DisplayName: "Ada"}
	_, err := owner.users().CreateUser(owner.ctx(), create)
	checkField(t, "without a required value", err, "custom_values")
	create.CustomValues = number(401)
	_, err = owner.users().CreateUser(owner.ctx(), create)
	checkField(t, "a value out of bounds", err, "custom_values[0]")
	create.CustomValues = number(12)
	made, err := owner.users().CreateUser(owner.ctx(), create)
	mustNot(t, err)
	id := made.GetUser().GetId()
	same(t, "value", made.GetUser().GetCustomValues()[0], number(12)[0])
	update := func(values []*typepb.CustomValue) error {
		return second(owner.users().UpdateUser(owner.ctx(), &pb.UpdateUserRequest{
			User: &pb.User{Id: id, CustomValues: values}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"custom_values"}},
		}))
	}
	checkField(t, "clear a required value", update(nil), "user.custom_values")
	checkField(t, "a value of no field", update(append(number(3), &typepb.CustomValue{
		CustomFieldId: servertest.UUID(1), Value: &typepb.CustomValue_Yes{Yes: true},
	})), "user.custom_values[1].custom_field_id")
	mustNot(t, update(number(3)))
	// The field is gone, the value stays, and the name can be changed.
	_, err = owner.fields().DeleteCustomField(owner.ctx(), &pb.DeleteCustomFieldRequest{Id: f.GetId()})
	mustNot(t, err)
	named, err := owner.users().UpdateUser(owner.ctx(), &pb.UpdateUserRequest{User: &pb.User{Id: id, DisplayName: "Ada Byron"}})
	mustNot(t, err)
	same(t, "value of a deleted field", named.GetUser().GetCustomValues()[0], number(3)[0])
	mustNot(t, update(number(3)))
	checkField(t, "a new value of a deleted field", update(number(4)), "user.custom_values[0].custom_field_id")
	mustNot(t, update(nil))
}

func TestLabels(t *testing.T) {
	owner := owned(t)
	create := func(l *pb.Label) (*pb.Label, error) {
		if l.Kind == 0 {
			l.Kind = pb.LabelKind_LABEL_KIND_CATEGORY
		}
		resp, err := owner.labels().CreateLabel(owner.ctx(), &pb.CreateLabelRequest{Label: l})
		return resp.GetLabel(), err
	}
	top, err := create(&pb.Label{Name: "Building", Color: "#00ff00"})
	mustNot(t, err)
	parent := top
	for _, name := range []string{"Water", "Pipes", "Hot", "Valves"} {
		parent, err = create(&pb.Label{Name: name, ParentId: parent.GetId()})
		mustNot(t, err)
	}
	_, err = create(&pb.Label{Name: "Too deep", ParentId: parent.GetId()})
	checkField(t, "six deep", err, "label.parent_id")
	_, err = create(&pb.Label{Name: "building"})
	check(t, "the name once more", err, codes.AlreadyExists, "RECORD_EXISTS")
	_, err = create(&pb.Label{Name: "Building", Kind: pb.LabelKind_LABEL_KIND_TAG})
	mustNot(t, err) // another kind
	_, err = create(&pb.Label{Name: "Urgent", Kind: pb.LabelKind_LABEL_KIND_TAG, ParentId: top.GetId()})
	checkField(t, "a tag beneath a category", err, "label.parent_id")
	_, err = create(&pb.Label{Name: "Lost", ParentId: servertest.UUID(1)})
	check(t, "beneath nothing", err, codes.NotFound, "RECORD_NOT_FOUND")
	move := func(id, under string) error {
		return second(owner.labels().UpdateLabel(owner.ctx(), &pb.UpdateLabelRequest{Label: &pb.Label{Id: id, ParentId: under}}))
	}
	checkField(t, "beneath itself", move(top.GetId(), parent.GetId()), "label.parent_id")
	roof, err := create(&pb.Label{Name: "Roof"})
	mustNot(t, err)
	checkField(t, "five levels beneath another", move(top.GetId(), roof.GetId()), "label.parent_id")
	_, err = owner.labels().DeleteLabel(owner.ctx(), &pb.DeleteLabelRequest{Id: top.GetId()})
	check(t, "delete what has others beneath it", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = owner.labels().DeleteLabel(owner.ctx(), &pb.DeleteLabelRequest{Id: parent.GetId(), Etag: parent.GetEtag()})
	mustNot(t, err)
	back, err := owner.labels().UndeleteLabel(owner.ctx(), &pb.UndeleteLabelRequest{Id: parent.GetId()})
	mustNot(t, err)
	parent.Etag, parent.UpdateTime = back.GetLabel().GetEtag(), back.GetLabel().GetUpdateTime()
	same(t, "brought back", back.GetLabel(), parent)
	list, err := owner.labels().ListLabels(owner.ctx(), &pb.ListLabelsRequest{Kind: pb.LabelKind_LABEL_KIND_CATEGORY, PageSize: 2})
	mustNot(t, err)
	if n := len(list.GetLabels()); n != 2 || list.GetNextPageToken() == "" {
		t.Errorf("a page of 2 has %d labels and the token %q", n, list.GetNextPageToken())
	}
}

func TestBillingAccount(t *testing.T) {
	owner := owned(t)
	got, err := owner.billing().GetBillingAccount(owner.ctx(), &pb.GetBillingAccountRequest{})
	mustNot(t, err)
	same(t, "at first", got.GetBillingAccount(), &pb.BillingAccount{Id: owner.user.GetOrganizationId()})
	update := func(a *pb.BillingAccount) (*pb.BillingAccount, error) {
		resp, err := owner.billing().UpdateBillingAccount(owner.ctx(), &pb.UpdateBillingAccountRequest{BillingAccount: a})
		return resp.GetBillingAccount(), err
	}
	card := pb.PaymentMethod_PAYMENT_METHOD_CARD
	a, err := update(&pb.BillingAccount{Email: "Books@Example.com", PaymentMethod: card, PaymentReference: "pm_1Q2w3e"})
	mustNot(t, err)
	same(t, "updated", a, &pb.BillingAccount{
		Id: a.GetId(), Etag: a.GetEtag(), CreateTime: a.GetCreateTime(), UpdateTime: a.GetCreateTime(),
		Email: "books@example.com", PaymentMethod: card, PaymentReference: "pm_1Q2w3e",
	})
	_, err = update(&pb.BillingAccount{Etag: "another", LegalName: "X"})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = update(&pb.BillingAccount{Id: servertest.UUID(1), LegalName: "X"})
	check(t, "of another organization", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = update(&pb.BillingAccount{Email: "nobody"})
	checkField(t, "no address", err, "billing_account.email")
	for _, number := range []string{"4111-1111-1111-1111", "4111111111111111", "DE89370400440532013000"} {
		_, err = update(&pb.BillingAccount{PaymentReference: number})
		checkField(t, "the number of a card or an account", err, "billing_account.payment_reference")
	}
	_, err = update(&pb.BillingAccount{PaymentMethod: pb.PaymentMethod_PAYMENT_METHOD_BANK_TRANSFER})
	checkField(t, "a reference that nothing needs", err, "billing_account.payment_reference")
}

// What a brand locks only the brand changes; what it allows its organizations change.
func TestAllowance(t *testing.T) {
	owner := owned(t)
	admin := owner.hire("admin", "OA")
	got, err := owner.brands().GetBrand(owner.ctx(), &pb.GetBrandRequest{})
	mustNot(t, err)
	allow := func(a *pb.BrandAllowance) error {
		return second(owner.brands().UpdateBrand(owner.ctx(), &pb.UpdateBrandRequest{Brand: &pb.Brand{Id: got.GetBrand().GetId(), Allowance: a}}))
	}
	checkField(t, "lock no field", allow(&pb.BrandAllowance{LockedFields: []string{"id"}}), "brand.allowance.locked_fields[0]")
	checkField(t, "allow no feature", allow(&pb.BrandAllowance{Features: []string{"flying"}}), "brand.allowance.features[0]")
	mustNot(t, allow(&pb.BrandAllowance{LockedFields: []string{"name", "address"}, Features: []string{"routing"}}))

	id := owner.user.GetOrganizationId()
	update := func(c *caller, o *pb.Organization) error {
		o.Id = id
		return second(c.organizations().UpdateOrganization(c.ctx(), &pb.UpdateOrganizationRequest{Organization: o}))
	}
	check(t, "a locked field", update(admin, &pb.Organization{Name: "Mine"}), codes.PermissionDenied, "GRANT_MISSING")
	check(t, "a locked message", update(admin, &pb.Organization{Address: &typepb.Address{Locality: "Bern"}}), codes.PermissionDenied, "GRANT_MISSING")
	mustNot(t, update(admin, &pb.Organization{Language: "de-AT", Phone: "+4940123456", Email: "Hello@Example.com"}))
	mustNot(t, update(owner, &pb.Organization{Name: "Ours"}))
	mustNot(t, update(admin, &pb.Organization{Name: "Ours"})) // which changes nothing
	for _, language := range []string{"german", "de-at", "de_AT", "x"} {
		checkField(t, language, update(admin, &pb.Organization{Language: language}), "organization.language")
	}
	plans := permissionspb.NewPlanServiceClient(owner.conn)
	buy := func(c *caller, features ...string) error {
		return second(plans.UpdateBillingPlan(c.ctx(), &permissionspb.UpdateBillingPlanRequest{
			Plan: &permissionspb.Plan{Features: features}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"features"}},
		}))
	}
	mustNot(t, buy(admin, "routing"))
	check(t, "a feature that is not allowed", buy(admin, "routing", "texting"), codes.PermissionDenied, "GRANT_MISSING")
	mustNot(t, buy(owner, "texting"))
	check(t, "drop a feature that is not allowed", buy(admin), codes.PermissionDenied, "GRANT_MISSING")
	mustNot(t, buy(admin, "texting", "routing"))
}

// A brand can demand a second factor in all its organizations.
func TestBrandDemandsASecondFactor(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	got, err := owner.brands().GetBrand(owner.ctx(), &pb.GetBrandRequest{})
	mustNot(t, err)
	_, err = owner.brands().UpdateBrand(owner.ctx(), &pb.UpdateBrandRequest{
		Brand: &pb.Brand{Id: got.GetBrand().GetId(), SecondFactorRequired: true, Website: "https://example.com", Color: "#102030"},
	})
	mustNot(t, err)
	if challenge, err := ada.trySignIn(); err != nil || challenge == nil {
		t.Errorf("a password alone: got the challenge %v, %v", challenge, err)
	}
}
