package server

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/fault"
)

// What is wrong is told so that whoever reads it knows what to send.
func TestValidateSaysWhatToSend(t *testing.T) {
	validate, err := newValidate()
	if err != nil {
		t.Fatal(err)
	}
	const id = "00000000-0000-7000-8000-000000000001"
	for _, tt := range []struct {
		req  proto.Message
		want string
	}{
		{&permissionspb.ExplainAccessRequest{}, "question: must be one of grant, method: send exactly one of them"},
		{&permissionspb.CompareAccessRequest{First: &permissionspb.Party{}, Second: &permissionspb.Party{Party: &permissionspb.Party_RoleId{RoleId: "PM"}}},
			"first.party: must be one of role_id, group_id, user_id: send exactly one of them"},
		{&permissionspb.SetOverrideRequest{UserId: id, Key: "Web"}, "effect: must be one of EFFECT_GRANT, EFFECT_DENY"},
		{&permissionspb.SetOverrideRequest{UserId: id, Key: "Web", Effect: 7}, "effect: must be one of EFFECT_GRANT, EFFECT_DENY"},
		{&permissionspb.CreateRoleRequest{Name: " "}, "name: must not be blank"},
		{&permissionspb.ListUnusedKeysRequest{Subject: &permissionspb.ListUnusedKeysRequest_RoleId{RoleId: "PM"}, Days: 91},
			"days: must be greater than or equal to 1 and less than or equal to 90"},
	} {
		if err := validate(tt.req); err == nil || err.Error() != tt.want {
			t.Errorf("%v: got %v, want %s", tt.req, err, tt.want)
		}
	}
}

func TestValidateNamesFields(t *testing.T) {
	validate, err := newValidate()
	if err != nil {
		t.Fatal(err)
	}
	const id = "00000000-0000-7000-8000-000000000001"
	for _, tt := range []struct {
		req  proto.Message
		want []string
	}{
		{&invoicingpb.GetPartRequest{Id: id}, nil},
		{&invoicingpb.GetPartRequest{Id: "part 1"}, []string{"id"}},
		{&invoicingpb.UpdatePartRequest{Part: &invoicingpb.Part{Price: &typepb.Money{CurrencyCode: "euro"}}}, []string{"part.price.currency_code"}},
		{&schedulingpb.AssignAppointmentRequest{Id: id, ServiceAgentId: id, StartTime: &timestamppb.Timestamp{Seconds: 1, Nanos: -1}}, []string{"start_time"}},
		{&schedulingpb.AssignAppointmentRequest{Id: id, ServiceAgentId: id, StartTime: &timestamppb.Timestamp{Seconds: 1 << 60}}, []string{"start_time"}},
		{&schedulingpb.CreateAppointmentRequest{
			Style: schedulingpb.AppointmentStyle_APPOINTMENT_STYLE_QUEUED, PropertyId: id, Title: "x",
			Duration: &durationpb.Duration{Seconds: 60, Nanos: -5},
		}, []string{"duration"}},
	} {
		err := validate(tt.req)
		var got []string
		if f, ok := errors.AsType[*fault.Error](err); ok {
			for _, v := range f.Violations {
				got = append(got, v.Field)
			}
		} else if err != nil {
			t.Errorf("%v: %v, want a fault", tt.req, err)
		}
		if len(got) < len(tt.want) || len(tt.want) == 0 && len(got) > 0 || len(got) > 0 && got[0] != tt.want[0] {
			t.Errorf("%v: fields %q, want %q", tt.req, got, tt.want)
		}
	}
}
