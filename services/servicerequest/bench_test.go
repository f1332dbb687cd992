package servicerequest

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"
)

// BenchmarkListByCustomValue lists a page of 50 over the wire: of the newest, and of those with
// one of a hundred values, with the least of them, and by their order, among few and among ten
// times as many.
func BenchmarkListByCustomValue(b *testing.B) {
	for _, total := range []int{10_000, 100_000} {
		s := newSuite(b)
		c := s.as(everything()...)
		p := s.property(c)
		f := &identitypb.CustomField{Id: newID(), Name: "Floor", Type: identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_NUMBER}
		s.users.change(func(r *roll) { r.fields = []*identitypb.CustomField{f} })
		for range total / 1000 {
			var some []*pb.ServiceRequest
			for n := range int64(1000) {
				some = append(some, s.make(p, requested, func(r *pb.ServiceRequest) {
					r.OwnerId = c.ID
					r.CustomValues = []*typepb.CustomValue{{CustomFieldId: f.GetId(), Value: &typepb.CustomValue_Number{Number: n % 100}}}
				}))
			}
			s.putAll(some...)
		}
		field := "custom_values." + f.GetId()
		for name, req := range map[string]*pb.ListServiceRequestsRequest{
			"newest": {}, "value": {Filter: field + " = 7"}, "range": {Filter: field + " < 1"}, "order": {OrderBy: field + " desc"},
			"range in order": {Filter: field + " >= 3", OrderBy: field},
		} {
			b.Run(fmt.Sprintf("%s of %d", name, total), func(b *testing.B) {
				req.View = view("NEW")
				for b.Loop() {
					resp, err := c.ListServiceRequests(b.Context(), proto.CloneOf(req))
					if err != nil || len(resp.GetServiceRequests()) != 50 {
						b.Fatalf("got %d requests, %v, want 50", len(resp.GetServiceRequests()), err)
					}
				}
			})
		}
	}
}
