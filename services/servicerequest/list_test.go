package servicerequest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/store"
)

// shelf is a suite with requests of random custom values and categories.
type shelf struct {
	*defined
	size, inspected, skills *identitypb.CustomField
	pipes, valves           string // beneath water, and beneath that
	requests                []*pb.ServiceRequest
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{defined: newDefined(t), pipes: newID(), valves: newID()}
	abc := []*identitypb.CustomFieldChoice{{Id: "a", Label: "A"}, {Id: "b", Label: "B"}, {Id: "c", Label: "C", Retired: true}}
	s.size = &identitypb.CustomField{Id: newID(), Name: "Size", Type: identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_CHOICE, Choices: abc}
	s.inspected = &identitypb.CustomField{Id: newID(), Name: "Inspected", Type: identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_DATE}
	s.skills = &identitypb.CustomField{Id: newID(), Name: "Skills", Type: identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_CHOICES, Choices: abc}
	s.define(func(r *roll) {
		r.fields = append(r.fields, s.size, s.inspected, s.skills)
		r.labels = append(r.labels,
			&identitypb.Label{Id: s.pipes, Kind: identitypb.LabelKind_LABEL_KIND_CATEGORY, ParentId: s.water},
			&identitypb.Label{Id: s.valves, Kind: identitypb.LabelKind_LABEL_KIND_CATEGORY, ParentId: s.pipes})
	})
	random := rand.New(rand.NewPCG(7, 0))
	for range 150 {
		s.requests = append(s.requests, s.draw(random))
	}
	s.putAll(s.requests...)
	slices.SortFunc(s.requests, func(a, b *pb.ServiceRequest) int {
		if c := b.GetCreateTime().AsTime().Compare(a.GetCreateTime().AsTime()); c != 0 {
			return c
		}
		return strings.Compare(b.GetId(), a.GetId())
	})
	return s
}

func (s *shelf) draw(random *rand.Rand) *pb.ServiceRequest {
	some := func(f *identitypb.CustomField, v *typepb.CustomValue) []*typepb.CustomValue {
		if v.CustomFieldId = f.GetId(); random.IntN(3) == 0 {
			return nil
		}
		return []*typepb.CustomValue{v}
	}
	ids := []string{"a", "b", "c"}
	return s.make(s.property, requested, func(r *pb.ServiceRequest) {
		r.CreateTime = stamp(noon.Add(time.Duration(random.IntN(60)) * time.Second))
		if r.OwnerId = s.client.ID; random.IntN(3) == 0 {
			r.OwnerId = newID()
		}
		if n := random.IntN(5); n < 4 {
			r.CategoryId = &[]string{s.water, s.pipes, s.valves, s.roof}[n]
		}
		r.CustomValues = slices.Concat(
			some(s.floor, &typepb.CustomValue{Value: &typepb.CustomValue_Number{Number: int64(random.IntN(13))}}),
			some(s.size, &typepb.CustomValue{Value: &typepb.CustomValue_Choice{Choice: ids[random.IntN(3)]}}),
			some(s.inspected, &typepb.CustomValue{Value: &typepb.CustomValue_Date{Date: &typepb.Date{Year: 2026, Month: int32(1 + random.IntN(12)), Day: 9}}}),
			some(s.skills, &typepb.CustomValue{Value: &typepb.CustomValue_Choices{Choices: &typepb.CustomChoices{Ids: ids[random.IntN(3):]}}}),
		)
	})
}

// joins puts somebody on the team of the property.
func (d *defined) joins(c client) {
	d.put(func(tx *store.Tx) error {
		_, err := join(tx, newID(), d.property.GetId(), c.ID)
		return err
	})
}

// value returns what a request has in a field; nil for nothing.
func value(r *pb.ServiceRequest, f *identitypb.CustomField) *typepb.CustomValue {
	for _, v := range r.GetCustomValues() {
		if v.GetCustomFieldId() == f.GetId() {
			return v
		}
	}
	return nil
}

// holding are the ids of those requests of which a test holds, as a list has them.
func (s *shelf) holding(test func(*pb.ServiceRequest) bool) (ids []string) {
	for _, r := range s.requests {
		if test(r) {
			ids = append(ids, r.GetId())
		}
	}
	return ids
}

// A list by custom values and categories has what a look at every request finds, in the same
// order, whatever index it goes by; and for each caller only what exists for him.
func TestListByCustomValues(t *testing.T) {
	s := newShelf(t)
	// Of the same property, one may see his own alone, who has none, and one sees what others own.
	stranger := s.as(keysOf([]string{"OW"}, "-View:OwnedBy:Others", "-View:OwnedBy:Nobody")...)
	others := s.as(keysOf([]string{"OW", "PM+"}, "-View:OwnedBy:Me")...)
	s.joins(stranger)
	s.joins(others)
	floor, size, inspected, skills := "custom_values."+s.floor.GetId(), "custom_values."+s.size.GetId(), "custom_values."+s.inspected.GetId(), "custom_values."+s.skills.GetId()
	for _, tt := range []struct {
		filter string
		labels []string
		holds  func(*pb.ServiceRequest) bool
	}{
		{floor + " = 3", nil, func(r *pb.ServiceRequest) bool { v := value(r, s.floor); return v != nil && v.GetNumber() == 3 }},
		{floor + " = 0", nil, func(r *pb.ServiceRequest) bool { v := value(r, s.floor); return v != nil && v.GetNumber() == 0 }},
		{floor + " != 3", nil, func(r *pb.ServiceRequest) bool { v := value(r, s.floor); return v == nil || v.GetNumber() != 3 }},
		{floor + " >= 9 AND " + floor + " < 11", nil, func(r *pb.ServiceRequest) bool {
			v := value(r, s.floor)
			return v != nil && v.GetNumber() >= 9 && v.GetNumber() < 11
		}},
		{floor + " : *", nil, func(r *pb.ServiceRequest) bool { return value(r, s.floor) != nil }},
		{size + " = a", nil, func(r *pb.ServiceRequest) bool { return value(r, s.size).GetChoice() == "a" }},
		{size + " != c AND " + floor + " > 6", nil, func(r *pb.ServiceRequest) bool {
			return value(r, s.size).GetChoice() != "c" && value(r, s.floor).GetNumber() > 6
		}},
		{inspected + ` >= "2026-10-01"`, nil, func(r *pb.ServiceRequest) bool { return value(r, s.inspected).GetDate().GetMonth() >= 10 }},
		{inspected + ` = "2026-02-09" AND state = REQUESTED`, nil, func(r *pb.ServiceRequest) bool { return value(r, s.inspected).GetDate().GetMonth() == 2 }},
		{skills + " : b", nil, func(r *pb.ServiceRequest) bool { return slices.Contains(value(r, s.skills).GetChoices().GetIds(), "b") }},
		{skills + " : a AND " + size + " = b", nil, func(r *pb.ServiceRequest) bool {
			return slices.Contains(value(r, s.skills).GetChoices().GetIds(), "a") && value(r, s.size).GetChoice() == "b"
		}},
		{"", []string{s.water}, func(r *pb.ServiceRequest) bool { return r.CategoryId != nil && r.GetCategoryId() != s.roof }},
		{"", []string{s.pipes}, func(r *pb.ServiceRequest) bool { return r.GetCategoryId() == s.pipes || r.GetCategoryId() == s.valves }},
		{"", []string{s.valves}, func(r *pb.ServiceRequest) bool { return r.GetCategoryId() == s.valves }},
		{"", []string{s.water, s.pipes}, func(r *pb.ServiceRequest) bool { return r.GetCategoryId() == s.pipes || r.GetCategoryId() == s.valves }},
		{"", []string{s.water, s.roof}, func(*pb.ServiceRequest) bool { return false }},
		{fmt.Sprintf("category_id = %q", s.water), nil, func(r *pb.ServiceRequest) bool { return r.GetCategoryId() == s.water }},
		{size + " = a", []string{s.water}, func(r *pb.ServiceRequest) bool {
			return value(r, s.size).GetChoice() == "a" && r.CategoryId != nil && r.GetCategoryId() != s.roof
		}},
	} {
		req := &pb.ListServiceRequestsRequest{View: view("NEW"), Filter: tt.filter, LabelIds: tt.labels, PageSize: 7}
		got := list(t, s.client, req)
		if want := s.holding(tt.holds); !slices.Equal(got, want) {
			t.Errorf("%s %v:\n got %v\nwant %v", tt.filter, tt.labels, got, want)
		}
		req.PropertyId = s.property.GetId()
		if again := list(t, s.client, req); !slices.Equal(got, again) {
			t.Errorf("%s %v, of the property:\n got %v\nwant %v", tt.filter, tt.labels, again, got)
		}
		if probed := list(t, stranger, req); len(probed) > 0 {
			t.Errorf("%s %v finds what does not exist for the caller: %v", tt.filter, tt.labels, probed)
		}
		if seen := list(t, others, req); !slices.Equal(seen, got) {
			t.Errorf("%s %v, of other owners:\n got %v\nwant %v", tt.filter, tt.labels, seen, got)
		}
	}
}

// A list in the order of a field's values has what a plain sort has, those without a value last
// and newest first; and for each caller only what exists for him.
func TestListInOrderOfCustomValues(t *testing.T) {
	s := newShelf(t)
	stranger := s.as(keysOf([]string{"OW"}, "-View:OwnedBy:Others", "-View:OwnedBy:Nobody")...)
	others := s.as(keysOf([]string{"OW", "PM+"}, "-View:OwnedBy:Me")...)
	s.joins(stranger)
	s.joins(others)
	floor, size, inspected := "custom_values."+s.floor.GetId(), "custom_values."+s.size.GetId(), "custom_values."+s.inspected.GetId()
	ranks := map[string]func(*typepb.CustomValue) int64{
		floor:     (*typepb.CustomValue).GetNumber,
		size:      func(v *typepb.CustomValue) int64 { return int64(strings.Index("bca", v.GetChoice())) },
		inspected: func(v *typepb.CustomValue) int64 { return int64(v.GetDate().GetMonth()) },
	}
	s.define(func(*roll) { s.size.Choices = append(s.size.Choices[1:], s.size.Choices[0]) }) // to another order than that of the ids
	byID := map[string]*pb.ServiceRequest{}
	for _, r := range s.requests {
		byID[r.GetId()] = r
	}
	for by, rank := range ranks {
		f := map[string]*identitypb.CustomField{floor: s.floor, size: s.size, inspected: s.inspected}[by]
		for _, filter := range []string{"", floor + " >= 3 AND " + floor + " < 9"} {
			with := s.holding(func(r *pb.ServiceRequest) bool {
				return value(r, f) != nil && (filter == "" || between(value(r, s.floor), 3, 9))
			})
			without := s.holding(func(r *pb.ServiceRequest) bool {
				return value(r, f) == nil && (filter == "" || between(value(r, s.floor), 3, 9))
			})
			for _, desc := range []bool{true, false} {
				if !desc {
					slices.Reverse(with)
				}
				slices.SortStableFunc(with, func(a, b string) int {
					c := cmp.Compare(rank(value(byID[a], f)), rank(value(byID[b], f)))
					return map[bool]int{true: -c, false: c}[desc]
				})
				req := &pb.ListServiceRequestsRequest{View: view("NEW"), Filter: filter, OrderBy: by + map[bool]string{true: " desc"}[desc], PageSize: 11}
				want := slices.Concat(with, without)
				if got := list(t, s.client, req); !slices.Equal(got, want) {
					t.Errorf("%v:\n got %v\nwant %v", req, got, want)
				}
				if got := list(t, others, req); !slices.Equal(got, want) {
					t.Errorf("%v, of other owners:\n got %v\nwant %v", req, got, want)
				}
				if probed := list(t, stranger, req); len(probed) > 0 {
					t.Errorf("%v finds what does not exist for the caller: %v", req, probed)
				}
			}
		}
	}
	oldest := s.holding(func(*pb.ServiceRequest) bool { return true })
	slices.Reverse(oldest)
	if got := list(t, s.client, &pb.ListServiceRequestsRequest{View: view("NEW"), OrderBy: "create_time", PageSize: 40}); !slices.Equal(got, oldest) {
		t.Errorf("oldest first:\n got %v\nwant %v", got, oldest)
	}
	labelled := s.holding(func(r *pb.ServiceRequest) bool { return r.GetCategoryId() == s.valves })
	slices.Reverse(labelled)
	if got := list(t, s.client, &pb.ListServiceRequestsRequest{View: view("NEW"), LabelIds: []string{s.valves}, OrderBy: "create_time"}); !slices.Equal(got, labelled) {
		t.Errorf("of a category, oldest first:\n got %v\nwant %v", got, labelled)
	}
}

// between tells whether a value is a number from one up to another, without that.
func between(v *typepb.CustomValue, from, to int64) bool {
	return v != nil && v.GetNumber() >= from && v.GetNumber() < to
}

// Of so many categories that their ranges would be too many the list is looked for among all.
func TestListByManyCategories(t *testing.T) {
	s := newShelf(t)
	s.define(func(r *roll) {
		for range maxRanges {
			r.labels = append(r.labels, &identitypb.Label{Id: newID(), Kind: identitypb.LabelKind_LABEL_KIND_CATEGORY, ParentId: s.valves})
		}
	})
	want := s.holding(func(r *pb.ServiceRequest) bool { return r.CategoryId != nil && r.GetCategoryId() != s.roof })
	got := list(t, s.client, &pb.ListServiceRequestsRequest{View: view("NEW"), LabelIds: []string{s.water}, PageSize: 20})
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestListByCustomValuesRefuses(t *testing.T) {
	s := newShelf(t)
	floor := "custom_values." + s.floor.GetId()
	few := &pb.ListServiceRequestsRequest{View: view("NEW"), Filter: floor + " > 2", PageSize: 2}
	page := must[*pb.ListServiceRequestsResponse](t)(s.ListServiceRequests(t.Context(), few))
	refuse := func(what string, req *pb.ListServiceRequestsRequest, outcome, at, says string) {
		t.Helper()
		_, err := s.ListServiceRequests(t.Context(), req)
		s.want(what, err, outcome, at)
		if got := status.Convert(err).Message(); !strings.Contains(got, says) {
			t.Errorf("%s: got %q, want it to say %q", what, got, says)
		}
	}
	req := func(filter, token string) *pb.ListServiceRequestsRequest {
		return &pb.ListServiceRequestsRequest{View: view("NEW"), Filter: filter, PageToken: token, PageSize: 2}
	}
	refuse("another value's token", req(floor+" > 3", page.GetNextPageToken()), "InvalidArgument PAGE_TOKEN_INVALID", "", "")
	refuse("another type's value", req(floor+` > "2026-01-01"`, ""), invalid, "filter", "a value that fits")
	refuse("a field of nobody", req("custom_values."+newID()+" = 3", ""), invalid, "filter", "a field of such records that is not deleted")
	ordered := func(by string) *pb.ListServiceRequestsRequest {
		return &pb.ListServiceRequestsRequest{View: view("NEW"), OrderBy: by, PageSize: 2}
	}
	sorted := must[*pb.ListServiceRequestsResponse](t)(s.ListServiceRequests(t.Context(), ordered(floor)))
	turned := ordered(floor + " desc")
	turned.PageToken = sorted.GetNextPageToken()
	refuse("another order's token", turned, "InvalidArgument PAGE_TOKEN_INVALID", "", "")
	refuse("an order by several choices", ordered("custom_values."+s.skills.GetId()), invalid, "order_by", "neither of CHOICES nor deleted")
	refuse("an order by a field of nobody", ordered("custom_values."+newID()), invalid, "order_by", "neither of CHOICES nor deleted")
	refuse("no id", req("custom_values.floor = 3", ""), invalid, "filter", "a field of such records that is not deleted")
	refuse("a label as a field", req("custom_values."+s.water+" = 3", ""), invalid, "filter", "a field of such records that is not deleted")

	s.users.change(func(r *roll) {
		r.fields = slices.DeleteFunc(r.fields, func(f *identitypb.CustomField) bool { return f == s.floor })
	})
	s.Forget("definitions:" + s.suite.Organization)
	refuse("a deleted field", few, invalid, "filter", "a field of such records that is not deleted")
	refuse("an order by a deleted field", ordered(floor), invalid, "order_by", "neither of CHOICES nor deleted")
	s.users.change(func(r *roll) { r.down = true })
	s.Forget("definitions:" + s.suite.Organization)
	refuse("identity being away", few, "Unavailable SERVICE_UNREACHABLE", "", "")
	if got := list(t, s.client, &pb.ListServiceRequestsRequest{View: view("NEW"), Filter: `title : "tap"`}); len(got) != len(s.requests) {
		t.Errorf("without custom fields, identity being away: got %d of %d", len(got), len(s.requests))
	}
}

// An approval says what the work is, and how it is sorted, as an update does.
func TestApproveSorts(t *testing.T) {
	d := newDefined(t)
	advice := func() *pb.ServiceRequest {
		return d.request(d.property, recommended, func(r *pb.ServiceRequest) {
			r.AuthorId, r.CustomValues, r.CategoryId, r.LabelIds = newID(), d.on(2), &d.roof, []string{d.waits}
		})
	}
	approve := func(req *pb.ApproveServiceRequestRequest) error {
		_, err := d.ApproveServiceRequest(t.Context(), req)
		return err
	}
	r := advice()
	for _, tt := range []struct {
		req *pb.ApproveServiceRequestRequest
		at  string
	}{
		{&pb.ApproveServiceRequestRequest{CustomValues: d.on(13)}, "custom_values[0]"},
		{&pb.ApproveServiceRequestRequest{CategoryId: &d.urgent}, "category_id"},
		{&pb.ApproveServiceRequestRequest{LabelIds: []string{d.urgent, d.old}}, "label_ids[1]"},
	} {
		tt.req.Id = r.GetId()
		d.want(tt.at, approve(tt.req), invalid, tt.at)
		equal(t, "refused for "+tt.at, d.stored(r.GetId()), r)
	}
	d.want("as it is", approve(&pb.ApproveServiceRequestRequest{Id: r.GetId()}), "OK", "")
	if got := d.stored(r.GetId()); got.GetCustomValues()[0].GetNumber() != 2 || got.GetCategoryId() != d.roof || !slices.Equal(got.GetLabelIds(), []string{d.waits}) {
		t.Errorf("as it is: got %v", got)
	}
	r = advice()
	d.want("changed", approve(&pb.ApproveServiceRequestRequest{
		Id: r.GetId(), CustomValues: d.on(7), CategoryId: &d.water, LabelIds: []string{d.urgent},
	}), "OK", "")
	if got := d.stored(r.GetId()); got.GetState() != requested || got.GetCustomValues()[0].GetNumber() != 7 || got.GetCategoryId() != d.water ||
		!slices.Equal(got.GetLabelIds(), []string{d.urgent}) {
		t.Errorf("changed: got %v", got)
	}
	noEdit := d.as(keysOf([]string{"OW"}, "-ServiceRequests:Edit")...)
	d.joins(noEdit)
	_, err := noEdit.ApproveServiceRequest(t.Context(), &pb.ApproveServiceRequestRequest{Id: advice().GetId(), CustomValues: d.on(7)})
	expect(t, "without the key to edit", err, "PermissionDenied GRANT_MISSING")
	// A required field that came later asks for a value if the values change, and only then.
	d.define(func(r *roll) {
		r.fields = append(r.fields, &identitypb.CustomField{Id: newID(), Name: "Door", Type: identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_NUMBER, Required: true})
	})
	r = advice()
	d.want("without the required value", approve(&pb.ApproveServiceRequestRequest{Id: r.GetId(), CustomValues: d.on(1)}), invalid, "custom_values")
	d.want("no values", approve(&pb.ApproveServiceRequestRequest{Id: r.GetId(), LabelIds: []string{d.urgent}}), "OK", "")
}
