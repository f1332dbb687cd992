package identity_test

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
)

// Users are listed by their custom values, in the order of the names as always, those of
// another organization never, whoever's field the filter names.
func TestListUsersByCustomValues(t *testing.T) {
	owner := owned(t)
	f, ids := owner.numbered()
	name := "custom_values." + f.GetId()
	list := func(c *caller, filter string, former bool) []string {
		t.Helper()
		return c.usersBy("", filter, former)
	}
	sameNames(t, "one value", list(owner, name+" = 12", false), "user0", "user3")
	sameNames(t, "as numbers", list(owner, name+" > 9 AND "+name+" < 101", false), "user0", "user2", "user3")
	sameNames(t, "any value", list(owner, name+" : *", false), "user0", "user1", "user2", "user3")
	sameNames(t, "another or none", list(owner, name+` != 12 AND display_name : "user"`, false), "user1", "user2", "user4")

	_, err := owner.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: ids["user3"]})
	mustNot(t, err)
	sameNames(t, "without who has left", list(owner, name+" = 12", false), "user0")
	sameNames(t, "with who has left", list(owner, name+" = 12", true), "user0", "user3")
	_, err = owner.users().UpdateUser(owner.ctx(), &pb.UpdateUserRequest{User: &pb.User{Id: ids["user1"], CustomValues: []*typepb.CustomValue{numberIn(f, 12)}}})
	mustNot(t, err)
	sameNames(t, "after a change", list(owner, name+" = 12", false), "user0", "user1")

	// In another organization the field is as one that there is not.
	there := owner.found("Hill Homes")
	refused := func(c *caller, filter string) string {
		t.Helper()
		_, err := c.users().ListUsers(c.ctx(), &pb.ListUsersRequest{Filter: filter})
		checkField(t, filter, err, "filter")
		return err.Error()
	}
	unknown := "custom_values." + servertest.UUID(1)
	if got, want := refused(there, name+" = 12"), refused(there, unknown+" = 12"); len(got) != len(want) {
		t.Errorf("another organization's field is told from one that there is not: %s", got)
	}
	page, err := owner.users().ListUsers(owner.ctx(), &pb.ListUsersRequest{Filter: name + " = 12", PageSize: 1})
	mustNot(t, err)
	_, err = owner.users().ListUsers(owner.ctx(), &pb.ListUsersRequest{Filter: name + " = 13", PageSize: 1, PageToken: page.GetNextPageToken()})
	check(t, "the token of another value", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	refused(owner, name+` = "12"`)
	_, err = owner.fields().DeleteCustomField(owner.ctx(), &pb.DeleteCustomFieldRequest{Id: f.GetId()})
	mustNot(t, err)
	refused(owner, name+" = 12")
	// One of the same name and another type is another field.
	again := owner.addField(&pb.CustomField{Noun: onUser, Name: "Locker", Type: pb.CustomFieldType_CUSTOM_FIELD_TYPE_TEXT, Maximum: proto.Int64(9)})
	sameNames(t, "by the new one", list(owner, "custom_values."+again.GetId()+` = "12"`, false))
}

// Users are listed in the order of a custom value, whoever has none last, and those who have
// left among them if they are wanted.
func TestListUsersInOrderOfCustomValues(t *testing.T) {
	owner := owned(t)
	f, ids := owner.numbered()
	name := "custom_values." + f.GetId()
	const made = `display_name : "user"`
	sameNames(t, "in order", owner.usersBy(name, made, false), "user1", "user0", "user3", "user2", "user4")
	sameNames(t, "turned round", owner.usersBy(name+" desc", made, false), "user2", "user3", "user0", "user1", "user4")
	sameNames(t, "a range", owner.usersBy(name+" desc", name+" <= 12", false), "user3", "user0", "user1")
	sameNames(t, "by name, turned round", owner.usersBy("display_name desc", made, false), "user4", "user3", "user2", "user1", "user0")
	_, err := owner.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: ids["user3"]})
	mustNot(t, err)
	sameNames(t, "with who has left", owner.usersBy(name, made, true), "user1", "user0", "user3", "user2", "user4")
	sameNames(t, "without who has left", owner.usersBy(name, made, false), "user1", "user0", "user2", "user4")
	there := owner.found("Hill Homes")
	_, err = there.users().ListUsers(there.ctx(), &pb.ListUsersRequest{OrderBy: name})
	checkField(t, "another organization's field", err, "order_by")
}

// numbered makes five users, four of them with a number in a field that it adds.
func (c *caller) numbered() (f *pb.CustomField, ids map[string]string) {
	c.t.Helper()
	f, ids = c.addField(locker()), map[string]string{}
	for i, n := range []int64{12, 9, 100, 12, 0} {
		req := &pb.CreateUserRequest{Email: fmt.Sprintf("user%d@example.com", i), DisplayName: fmt.Sprintf("user%d", i)}
		if n > 0 {
			req.CustomValues = []*typepb.CustomValue{numberIn(f, n)}
		}
		resp, err := c.users().CreateUser(c.ctx(), req)
		mustNot(c.t, err)
		ids[req.DisplayName] = resp.GetUser().GetId()
	}
	return f, ids
}

func numberIn(f *pb.CustomField, n int64) *typepb.CustomValue {
	return &typepb.CustomValue{CustomFieldId: f.GetId(), Value: &typepb.CustomValue_Number{Number: n}}
}

// listed are the names of all pages of a list.
func (c *caller) usersBy(order, filter string, former bool) (names []string) {
	c.t.Helper()
	req := &pb.ListUsersRequest{OrderBy: order, Filter: filter, ShowDeleted: former, PageSize: 1}
	for {
		resp, err := c.users().ListUsers(c.ctx(), req)
		mustNot(c.t, err)
		for _, u := range resp.GetUsers() {
			names = append(names, u.GetDisplayName())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return names
		}
	}
}
