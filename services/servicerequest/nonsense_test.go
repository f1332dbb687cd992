package servicerequest

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"
)

// TestNonsense sends what no client would.
func TestNonsense(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	id := s.request(p, requested, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = c.ID, c.ID }).GetId()
	before := s.stored(id)
	tests := map[string]proto.Message{}
	for name, stamp := range map[string]*timestamppb.Timestamp{
		"far": {Seconds: math.MaxInt64}, "long ago": {Seconds: math.MinInt64},
		"nanos": {Seconds: 1 << 40, Nanos: -1}, "more nanos": {Seconds: 1 << 33, Nanos: math.MaxInt32},
	} {
		tests["HoldServiceRequest until "+name] = &pb.HoldServiceRequestRequest{Id: id, Reason: "Waits.", ExpireTime: stamp}
	}
	for name, date := range map[string]*typepb.Date{
		"zero": {}, "far": {Year: math.MaxInt32, Month: 1, Day: 1}, "negative": {Year: 2027, Month: -1, Day: -1},
	} {
		tests["AcceptServiceRequest for "+name] = &pb.AcceptServiceRequestRequest{Id: id, TargetDate: date}
	}
	tests["UpdateServiceRequest of nothing"] = &pb.UpdateServiceRequestRequest{}
	tests["DeclineServiceRequest without a reason"] = &pb.DeclineServiceRequestRequest{Id: id}
	tests["GetServiceRequest of nothing"] = &pb.GetServiceRequestRequest{}
	tests["ReassignServiceRequest to a name"] = &pb.ReassignServiceRequestRequest{Id: id, AssigneeId: "Bob"}
	for name, req := range tests {
		var method string
		for i, r := range name {
			if r == ' ' {
				method = name[:i]
				break
			}
		}
		_, err := invoke(t, c, prefixService+method, req)
		expect(t, name, err, "InvalidArgument FIELD_INVALID")
	}
	equal(t, "record", s.stored(id), before)
}
