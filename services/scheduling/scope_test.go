package scheduling

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authzpb "latchkey.dev/gen/go/latchkey/authz/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

// TestViewsNameTheKeysOfTheAPI holds the table of views against the options in the
// .proto file.
func TestViewsNameTheKeysOfTheAPI(t *testing.T) {
	values := pb.AppointmentView(0).Descriptor().Values()
	for i := range values.Len() {
		key, _ := proto.GetExtension(values.Get(i).Options(), authzpb.E_Choose).(string)
		if got := views[pb.AppointmentView(values.Get(i).Number())].key; got != key {
			t.Errorf("%s: got key %q in the table, want %q", values.Get(i).Name(), got, key)
		}
	}
}

// naive says once more, without indexes, whether a caller sees an appointment.
func naive(caller string, grants []string, a *pb.Appointment, now time.Time) bool {
	has := func(grant string) bool { return slices.Contains(grants, grant) }
	if a.GetAgentUserId() == caller && has("My Schedule:Appointments") {
		return true
	}
	owner := map[bool]string{true: "View:OwnedBy:Me", false: "View:OwnedBy:Others"}[a.GetOwnerId() == caller]
	if a.GetOwnerId() == "" {
		owner = "View:OwnedBy:Nobody"
	}
	if !has(owner) {
		return false
	}
	return has("Dispatch") || has("Appointments:Edit") || has("Appointments:Grid:All") ||
		has("Appointments:Create") && a.GetOwnerId() == caller ||
		has("Appointments:Grid:Backlog") && a.GetState() == queued ||
		has("Appointments:Grid:InProgress") && a.GetState() == inProgress ||
		has("Appointments:Grid:Upcoming") && a.GetState() == scheduled && !a.GetStartTime().AsTime().Before(now)
}

// inView says once more what a view holds.
func inView(v pb.AppointmentView, a *pb.Appointment, now time.Time) bool {
	switch v {
	case pb.AppointmentView_APPOINTMENT_VIEW_BACKLOG:
		return a.GetState() == queued
	case pb.AppointmentView_APPOINTMENT_VIEW_IN_PROGRESS:
		return a.GetState() == inProgress
	case pb.AppointmentView_APPOINTMENT_VIEW_UPCOMING:
		return a.GetState() == scheduled && !a.GetStartTime().AsTime().Before(now)
	}
	return true
}

// TestListsAndGetAgree gives callers random grants, and compares each view and each
// get with what a naive reading of the rules lets through.
func TestListsAndGetAgree(t *testing.T) {
	s := newSuite(t)
	all := s.populate()
	s.clock.set(noon.Add(90 * time.Minute))
	now := noon.Add(90 * time.Minute)
	choices := []string{
		"View:OwnedBy:Me", "View:OwnedBy:Others", "View:OwnedBy:Nobody", "My Schedule:Appointments", "Dispatch",
		"Appointments:Edit", "Appointments:Create", "Appointments:Grid:All", "Appointments:Grid:Backlog",
		"Appointments:Grid:InProgress", "Appointments:Grid:Upcoming",
	}
	r := rand.New(rand.NewPCG(7, 7))
	for round := range 40 {
		caller := as(s.As())
		switch a := all[r.IntN(len(all))]; {
		case round%3 == 0 && a.GetOwnerId() != "":
			caller.ID = a.GetOwnerId()
		case a.GetAgentUserId() != "":
			caller.ID = a.GetAgentUserId()
		}
		var grants []string
		for _, g := range choices {
			// Half of them, but Dispatch and Edit, which hide the rest, seldom.
			if r.IntN(2) == 0 && (g != "Dispatch" && g != "Appointments:Edit" || r.IntN(3) == 0) {
				grants = append(grants, g)
			}
		}
		caller = as(s.AsUser(caller.ID, authz.SurfaceWeb, append(grants, "Web")...))
		s.compareGet(caller, grants, all, now)
		for view, w := range views {
			if slices.Contains(grants, w.key) {
				s.compareList(caller, grants, view, all, now)
			}
		}
	}
}

func (s *suite) compareGet(caller client, grants []string, all []*pb.Appointment, now time.Time) {
	s.t.Helper()
	if !slices.ContainsFunc(grants, func(g string) bool { return g[:4] != "View" }) {
		return // denied before any record is looked at
	}
	for _, a := range all {
		want := "OK"
		if !naive(caller.ID, grants, a, now) {
			want = "NotFound RECORD_NOT_FOUND"
		}
		_, err := caller.GetAppointment(s.t.Context(), &pb.GetAppointmentRequest{Id: a.GetId()})
		wantOutcome(s.t, fmt.Sprintf("%s with %q gets %v", caller.ID, grants, a), err, want)
	}
}

func (s *suite) compareList(caller client, grants []string, view pb.AppointmentView, all []*pb.Appointment, now time.Time) {
	s.t.Helper()
	var want []string
	for _, a := range all {
		if naive(caller.ID, grants, a, now) && inView(view, a, now) {
			want = append(want, a.GetId())
		}
	}
	var got []string
	req := &pb.ListAppointmentsRequest{View: view, PageSize: 3}
	for {
		resp, err := caller.ListAppointments(s.t.Context(), req)
		if err != nil {
			s.t.Fatal(err)
		}
		got = append(got, ids(resp.GetAppointments())...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("%s with %q lists %v:\n got %v\nwant %v", caller.ID, grants, view, got, want)
	}
}

// populate makes appointments of every state, owner and service agent, and returns
// them in the order of lists: by start time, or else by create time.
func (s *suite) populate() []*pb.Appointment {
	s.t.Helper()
	office := s.office()
	clerk, clerkAgent := s.technician(officeGrants...)
	_, agent := s.technician()
	var all []*pb.Appointment
	hour := 0
	for _, owner := range []client{office, clerk} {
		for _, to := range []*pb.ServiceAgent{agent, clerkAgent} {
			for _, state := range allStates {
				hour++
				s.clock.set(noon.Add(time.Duration(hour) * time.Second))
				all = append(all, owner.inState(s.t, to, noon.Add(time.Duration(hour)*time.Hour), state))
			}
		}
	}
	for i, a := range all[:len(all)/2] { // the other half once more, of nobody
		a = proto.Clone(s.stored(a.GetId())).(*pb.Appointment)
		a.Id, a.OwnerId = servertest.UUID(i+1), ""
		if a.GetStartTime() != nil {
			a.StartTime = timestamppb.New(a.GetStartTime().AsTime().Add(100 * time.Hour))
			a.EndTime = timestamppb.New(a.GetEndTime().AsTime().Add(100 * time.Hour))
		}
		s.update(func(tx *store.Tx) error { return appointments.Put(tx, a) })
		all = append(all, a)
	}
	at := func(a *pb.Appointment) time.Time {
		if a.GetStartTime() != nil {
			return a.GetStartTime().AsTime()
		}
		return a.GetCreateTime().AsTime()
	}
	slices.SortFunc(all, func(a, b *pb.Appointment) int {
		return cmp.Or(at(a).Compare(at(b)), cmp.Compare(a.GetId(), b.GetId()))
	})
	return all
}

func TestListAsksForThePermissionOfItsView(t *testing.T) {
	s := newSuite(t)
	for view, w := range views {
		for _, other := range views {
			want := "PermissionDenied GRANT_MISSING"
			if other.key == w.key {
				want = "OK"
			}
			_, err := as(s.As(other.key, "View:OwnedBy:Me")).ListAppointments(t.Context(), &pb.ListAppointmentsRequest{View: view})
			wantOutcome(t, fmt.Sprintf("%v with %s", view, other.key), err, want)
		}
	}
	office := s.office()
	for _, req := range []*pb.ListAppointmentsRequest{
		{}, {View: 99}, {View: 1, PageSize: -1}, {View: 1, Filter: "nothing = 1"}, {View: 1, Filter: "title ="},
	} {
		_, err := office.ListAppointments(t.Context(), req)
		wantOutcome(t, fmt.Sprint(req), err, "InvalidArgument FIELD_INVALID")
	}
}

func TestListFiltersAndPages(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	var want []string
	for i := range 5 {
		a := office.scheduled(t, agent, noon.Add(time.Duration(i)*time.Hour))
		if i > 0 {
			want = append(want, a.GetId())
		}
	}
	req := &pb.ListAppointmentsRequest{
		View: pb.AppointmentView_APPOINTMENT_VIEW_UPCOMING, PageSize: 2,
		Filter: fmt.Sprintf(`start_time > "%s" AND service_agent_id = "%s"`, noon.Format(time.RFC3339), agent.GetId()),
	}
	first, err := office.ListAppointments(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(first.GetAppointments()); !slices.Equal(got, want[:2]) {
		t.Errorf("first page: got %v, want %v", got, want[:2])
	}
	wantEqual(t, "an appointment of a list", first.GetAppointments()[0], office.get(t, want[0]))
	req.PageToken = first.GetNextPageToken()
	second, err := office.ListAppointments(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(second.GetAppointments()); !slices.Equal(got, want[2:]) || second.GetNextPageToken() != "" {
		t.Errorf("second page: got %v and token %q, want %v and none", got, second.GetNextPageToken(), want[2:])
	}
	other := proto.Clone(req).(*pb.ListAppointmentsRequest)
	other.Filter = ""
	_, err = office.ListAppointments(t.Context(), other)
	wantOutcome(t, "the token with another filter", err, "InvalidArgument PAGE_TOKEN_INVALID")
	_, err = s.office().ListAppointments(t.Context(), req)
	wantOutcome(t, "the token of somebody else", err, "InvalidArgument PAGE_TOKEN_INVALID")
}

// get returns an appointment as the caller sees it.
func (c client) get(t *testing.T, id string) *pb.Appointment {
	t.Helper()
	resp, err := c.GetAppointment(t.Context(), &pb.GetAppointmentRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetAppointment()
}
