package e2e

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// crawler calls every method with every id that it knows of, where an id is asked
// for, without changing anything.
type crawler struct {
	t   *testing.T
	ids []string
}

// crawled is one call of a crawl.
type crawled struct {
	method method
	req    proto.Message
	id     string // what the request's ids were
	resp   proto.Message
	err    error
}

// crawlers is how many calls a crawl makes at once. Denials wait for the disk, together.
const crawlers = 8

// crawl calls each method for people with each id and hands on how it went, one call at a
// time and in no order. Methods that change something are called to validate only; those
// that cannot are left out.
func (c *crawler) crawl(ctx context.Context, conn grpc.ClientConnInterface, visit func(crawled)) {
	type call struct {
		m   method
		req filled
	}
	var visiting sync.Mutex
	var running sync.WaitGroup
	calls := make(chan call)
	for range crawlers {
		running.Go(func() {
			for next := range calls {
				resp, err := next.m.call(ctx, conn, next.req.req)
				visiting.Lock()
				visit(crawled{next.m, next.req.req, next.req.id, resp, err})
				visiting.Unlock()
			}
		})
	}
	for _, m := range methods() {
		if m.rule.GetInternal() || m.rule.GetAnyone() || m.Name() == "EndSession" {
			continue
		}
		for _, req := range c.requests(m) {
			calls <- call{m, req}
		}
	}
	close(calls)
	running.Wait()
}

type filled struct {
	req proto.Message
	id  string
}

// requests returns requests of a method: for each known id one in which all ids are
// that, or one if it asks for none; each with every view.
func (c *crawler) requests(m method) []filled {
	ids := c.ids
	if probe := newMessage(m.Input()); !fill(probe.ProtoReflect(), "x", 0) {
		ids = ids[:1]
	}
	var found []filled
	for _, id := range ids {
		for view := range max(1, views(m.Input())) {
			req := newMessage(m.Input())
			fill(req.ProtoReflect(), id, protoreflect.EnumNumber(view+1))
			found = append(found, filled{req, id})
		}
	}
	return found
}

// views returns how many values the view of a request can have.
func views(d protoreflect.MessageDescriptor) int {
	if fd := d.Fields().ByName("view"); fd != nil && fd.Enum() != nil {
		return fd.Enum().Values().Len() - 1
	}
	return 0
}

// fill sets what a request needs to be let through to the record, and tells whether
// there was an id to set.
func fill(m protoreflect.Message, id string, view protoreflect.EnumNumber) bool {
	found := false
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		name := string(fd.Name())
		switch {
		case name == "validate_only":
			m.Set(fd, protoreflect.ValueOfBool(true))
		case name == "view" && fd.Enum() != nil:
			m.Set(fd, protoreflect.ValueOfEnum(view))
		case name == "request_id" || fd.IsMap() || guardOf(fd):
		case fd.IsList():
		case fd.Kind() == protoreflect.StringKind && (name == "id" || strings.HasSuffix(name, "_id")):
			m.Set(fd, protoreflect.ValueOfString(id))
			found = true
		case fd.Kind() == protoreflect.StringKind && (name == "reason" || name == "note" || name == "text" || name == "name" || name == "title"):
			m.Set(fd, protoreflect.ValueOfString("a try"))
		case fd.Message() != nil && fd.Message().Fields().ByName("id") != nil || name == "metadata":
			found = fill(m.Mutable(fd).Message(), id, view) || found
		case name == "target_date":
			setDate(m.Mutable(fd).Message())
		}
	}
	return found
}

func guardOf(fd protoreflect.FieldDescriptor) bool {
	return len(guards([]protoreflect.FieldDescriptor{fd})) > 0
}

func setDate(m protoreflect.Message) {
	for name, n := range map[protoreflect.Name]int32{"year": 2030, "month": 1, "day": 1} {
		m.Set(m.Descriptor().Fields().ByName(name), protoreflect.ValueOfInt32(n))
	}
}

var uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// discover crawls, with the ids that turned up last, until no new ones do.
func (c *crawler) discover(ctx context.Context, conn grpc.ClientConnInterface) {
	known := map[string]bool{}
	for _, id := range c.ids {
		known[id] = true
	}
	for rounds := 0; len(c.ids) > 0 && rounds < 4; rounds++ {
		var found []string
		c.crawl(ctx, conn, func(r crawled) {
			if r.method.Input().Fields().ByName("validate_only") != nil {
				return // what would be made has an id that nothing will have
			}
			for _, id := range uuids.FindAllString(text(r.resp), -1) {
				if !known[id] {
					known[id] = true
					found = append(found, id)
				}
			}
		})
		c.ids = found
	}
	c.ids = slices.Sorted(maps.Keys(known))
}

func text(m proto.Message) string {
	b, err := protojson.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// wire is all that a caller gets to see of a call, response and error.
func (r crawled) wire() string {
	out := text(r.resp)
	if r.err != nil {
		out += status.Convert(r.err).String()
		for _, d := range status.Convert(r.err).Details() {
			out += fmt.Sprint(d)
		}
	}
	return out
}

// TestNoAmountWithoutPricing tells the working day, takes pricing from the owner, who
// holds everything else, and looks for the day's amounts in all that any method answers.
func TestNoAmountWithoutPricing(t *testing.T) {
	s := one(t)
	tl := newTeller(t, s)
	tl.tell("day.txt")
	ctx := tl.company.As(t.Context(), "OW")
	c := &crawler{t: t, ids: slices.Collect(maps.Values(tl.vars))}
	c.discover(ctx, s)
	amounts := regexp.MustCompile(`"(10404|8743|1661|4817|3926|1963|915|746|7735|12741|2890|1177|7644|1900)"|\b1900\b`)
	seen := map[string]bool{}
	c.crawl(ctx, s, func(r crawled) {
		for _, a := range amounts.FindAllString(text(r.resp), -1) {
			seen[a] = true
		}
	})
	if len(seen) < 12 {
		t.Fatalf("with pricing on only the amounts %v were seen: the crawl is too small to prove anything", seen)
	}
	_, err := permissionspb.NewAccessServiceClient(s).UpdateUserSettings(ctx, &permissionspb.UpdateUserSettingsRequest{
		UserId: tl.vars["OW"], Settings: &permissionspb.UserSettings{SeePricing: new(false)},
	})
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	c.crawl(ctx, s, func(r crawled) {
		calls++
		if a := amounts.FindString(r.wire()); a != "" {
			t.Errorf("%s %s answers the amount %s", r.method.path(), text(r.req), a)
		}
	})
	t.Logf("%d calls, %d ids, amounts seen before: %d", calls, len(c.ids), len(seen))
}

// TestOtherOrganizationsDoNotExist calls every method as somebody who holds every
// grant, in another organization, with each id of the first: each call must end as it
// does with an id that nothing has.
func TestOtherOrganizationsDoNotExist(t *testing.T) {
	s := one(t)
	tl := newTeller(t, s)
	tl.tell("day.txt")
	c := &crawler{t: t, ids: slices.Collect(maps.Values(tl.vars))}
	c.discover(tl.company.As(t.Context(), "OW"), s)
	stranger := inOtherOrganization(t, s, tl)
	// What is the stranger's too: himself, that he is a member of both, and the brand of both.
	own := map[string]bool{tl.vars["OW"]: true, tl.vars["organization"]: true, brandOf(t, s, stranger): true}
	const unknown = "00000000-0000-7000-8000-00000000dead"
	expected := map[string]string{}
	(&crawler{t: t, ids: []string{unknown}}).crawl(stranger, s, func(r crawled) { expected[r.key()] = r.end(unknown) })
	calls := 0
	c.crawl(stranger, s, func(r crawled) {
		if own[r.id] || !strings.Contains(text(r.req), r.id) {
			return
		}
		calls++
		want, ok := expected[r.key()]
		if got := r.end(r.id); !ok || got != want {
			t.Errorf("%s %s:\ngot  %s\nwant %s, as for an unknown id", r.method.path(), text(r.req), got, want)
		}
	})
	t.Logf("%d calls, %d ids", calls, len(c.ids))
}

func brandOf(t *testing.T, s *suite, ctx context.Context) string {
	t.Helper()
	resp, err := identitypb.NewBrandServiceClient(s).GetBrand(ctx, &identitypb.GetBrandRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetBrand().GetId()
}

// inOtherOrganization makes a second organization of the brand, whose owner is the first
// one's, and returns a context of his there, where he holds every key that one can.
func inOtherOrganization(t *testing.T, s *suite, tl *teller) context.Context {
	t.Helper()
	owner := tl.company.As(t.Context(), "OW")
	made, err := identitypb.NewOrganizationServiceClient(s).CreateOrganization(owner, &identitypb.CreateOrganizationRequest{
		Name: "Lakeside Homes", TimeZone: "Europe/Berlin", CurrencyCode: "EUR",
	})
	if err != nil {
		t.Fatal(err)
	}
	p := tl.company.Person("OW")
	session, err := identitypb.NewSessionServiceClient(s).CreateSession(t.Context(), &identitypb.CreateSessionRequest{
		Email: p.Email, Password: p.Password, Surface: identitypb.Surface_SURFACE_WEB, OrganizationId: made.GetOrganization().GetId(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+session.GetToken())
}

// key names what was called but for the ids.
func (r crawled) key() string {
	return r.method.path() + strings.ReplaceAll(text(r.req), r.id, "ID")
}

// end is how a call ended, with the id asked for replaced, and without what a record that would be
// made has for itself.
func (r crawled) end(id string) string {
	st := status.Convert(r.err)
	out := st.Code().String()
	if st.Code() == codes.OK {
		out += strings.ReplaceAll(text(r.unmade()), id, "ID")
	}
	out += strings.ReplaceAll(st.Message(), id, "ID")
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			out += strings.ReplaceAll(fmt.Sprint(info.GetReason(), info.GetMetadata()), id, "ID")
		}
	}
	return out
}

// unmade returns the response without the id and the times of a record that would be made.
func (r crawled) unmade() proto.Message {
	resp := proto.Clone(r.resp)
	if !strings.HasPrefix(string(r.method.Name()), "Create") || r.method.Input().Fields().ByName("validate_only") == nil {
		return resp
	}
	resp.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() == nil || fd.IsList() || fd.IsMap() || fd.Message().Fields().ByName("etag") == nil {
			return true
		}
		for _, name := range []protoreflect.Name{"id", "create_time", "update_time"} {
			if own := fd.Message().Fields().ByName(name); own != nil {
				v.Message().Clear(own)
			}
		}
		return true
	})
	return resp
}
