package servicerequest

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
)

func TestComments(t *testing.T) {
	s := newSuite(t)
	pm, sp := s.role("PM"), s.role("SP")
	r := s.request(s.property(pm), accepted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = pm.ID, sp.ID })
	var public, all []*pb.Comment
	say := func(c client, text string, private *bool) {
		t.Helper()
		s.clock.advance(time.Second)
		got := must[*pb.CreateCommentResponse](t)(c.CreateComment(t.Context(), &pb.CreateCommentRequest{ServiceRequestId: r.GetId(), Text: text, Private: private})).GetComment()
		now := stamp(s.clock.read())
		equal(t, text, got, &pb.Comment{
			Id: got.GetId(), Etag: got.GetEtag(), CreateTime: now, UpdateTime: now,
			ServiceRequestId: r.GetId(), AuthorId: c.ID, Text: text, Private: private != nil && *private,
		})
		all = append(all, got)
		if !got.GetPrivate() {
			public = append(public, got)
		}
	}
	say(pm, "Please hurry.", nil)
	say(pm, "He is always late.", proto.Bool(true))
	say(sp, "On my way.", nil)
	say(pm, "Nobody may know.", proto.Bool(true))
	say(pm, "Thanks.", proto.Bool(false))
	// pages reads all pages of two comments each; private ones count for no page.
	pages := func(c client, wantPages int) []*pb.Comment {
		t.Helper()
		var got []*pb.Comment
		req := &pb.ListCommentsRequest{ServiceRequestId: r.GetId(), PageSize: 2}
		for n := 1; ; n++ {
			resp := must[*pb.ListCommentsResponse](t)(c.ListComments(t.Context(), req))
			got = append(got, resp.GetComments()...)
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				if n != wantPages {
					t.Errorf("got %d pages, want %d", n, wantPages)
				}
				return got
			}
		}
	}
	equal(t, "for PM", &pb.ListCommentsResponse{Comments: pages(pm, 3)}, &pb.ListCommentsResponse{Comments: all})
	equal(t, "for SP", &pb.ListCommentsResponse{Comments: pages(sp, 2)}, &pb.ListCommentsResponse{Comments: public})
}

func TestCommentRefusals(t *testing.T) {
	s := newSuite(t)
	pm, sp := s.role("PM"), s.role("SP")
	r := s.request(s.property(pm), accepted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = pm.ID, sp.ID })
	before := s.counted()
	refusals := []struct {
		name string
		c    client
		req  *pb.CreateCommentRequest
		want string
	}{
		{"private by SP", sp, &pb.CreateCommentRequest{ServiceRequestId: r.GetId(), Text: "x", Private: proto.Bool(true)}, "PermissionDenied GRANT_MISSING"},
		{"public, but asked, by SP", sp, &pb.CreateCommentRequest{ServiceRequestId: r.GetId(), Text: "x", Private: proto.Bool(false)}, "PermissionDenied GRANT_MISSING"},
		{"no text", pm, &pb.CreateCommentRequest{ServiceRequestId: r.GetId()}, "InvalidArgument FIELD_INVALID"},
		{"out of sight", s.role("SP"), &pb.CreateCommentRequest{ServiceRequestId: r.GetId(), Text: "x"}, "NotFound RECORD_NOT_FOUND"},
		{"without the key", s.as(keysOf([]string{"SP"}, "-ServiceRequests:Comments")...), &pb.CreateCommentRequest{ServiceRequestId: r.GetId(), Text: "x"}, "PermissionDenied GRANT_MISSING"},
		{"validate only", pm, &pb.CreateCommentRequest{ServiceRequestId: r.GetId(), Text: "x", ValidateOnly: true}, "OK"},
	}
	for _, tt := range refusals {
		_, err := tt.c.CreateComment(t.Context(), tt.req)
		expect(t, tt.name, err, tt.want)
	}
	_, err := s.role("SP").ListComments(t.Context(), &pb.ListCommentsRequest{ServiceRequestId: r.GetId()})
	expect(t, "list out of sight", err, "NotFound RECORD_NOT_FOUND")
	_, err = pm.ListComments(t.Context(), &pb.ListCommentsRequest{ServiceRequestId: r.GetId(), PageToken: "x"})
	expect(t, "token", err, "InvalidArgument PAGE_TOKEN_INVALID")
	if after := s.counted(); after != before {
		t.Errorf("refusals changed something: %s, then %s", before, after)
	}
	req := &pb.CreateCommentRequest{RequestId: newID(), ServiceRequestId: r.GetId(), Text: "Once."}
	first := must[*pb.CreateCommentResponse](t)(pm.CreateComment(t.Context(), req))
	equal(t, "repeated", must[*pb.CreateCommentResponse](t)(pm.CreateComment(t.Context(), req)), first)
	owner := s.as(everything()...)
	deleted := s.request(s.property(owner), accepted, func(r *pb.ServiceRequest) {
		r.OwnerId, r.DeleteTime, r.PurgeTime = owner.ID, stamp(noon), stamp(noon.Add(retention))
	})
	_, err = owner.CreateComment(t.Context(), &pb.CreateCommentRequest{ServiceRequestId: deleted.GetId(), Text: "x"})
	expect(t, "deleted", err, "FailedPrecondition PRECONDITION_FAILED")
}
