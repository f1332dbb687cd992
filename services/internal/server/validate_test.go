package server

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/fault"
)

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
