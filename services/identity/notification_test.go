package identity_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	_ "latchkey.dev/gen/go/latchkey/servicerequest/v1" // whose events are looked up

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/authenticator"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

const (
	cancelledRequest = pb.NotificationEvent_NOTIFICATION_EVENT_SERVICE_REQUEST_CANCELLED
	finishedWork     = pb.NotificationEvent_NOTIFICATION_EVENT_APPOINTMENT_FINISHED
	passwordReset    = pb.NotificationEvent_NOTIFICATION_EVENT_PASSWORD_WAS_RESET

	byMail = pb.NotificationChannel_NOTIFICATION_CHANNEL_EMAIL
	byText = pb.NotificationChannel_NOTIFICATION_CHANNEL_TEXT
	byPush = pb.NotificationChannel_NOTIFICATION_CHANNEL_PUSH
)

func (s *suite) notifications() pb.NotificationServiceClient {
	return pb.NewNotificationServiceClient(s.conn)
}

func choice(e pb.NotificationEvent, channels ...pb.NotificationChannel) *pb.NotificationChoice {
	return &pb.NotificationChoice{Event: e, Channels: channels}
}

func (c *caller) choose(choices ...*pb.NotificationChoice) (*pb.NotificationChoices, error) {
	resp, err := c.notifications().UpdateNotificationChoices(c.ctx(), &pb.UpdateNotificationChoicesRequest{
		NotificationChoices: &pb.NotificationChoices{Choices: choices}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"choices"}},
	})
	return resp.GetNotificationChoices(), err
}

func (c *caller) chooseForAll(choices ...*pb.NotificationChoice) (*pb.NotificationDefaults, error) {
	resp, err := c.notifications().UpdateNotificationDefaults(c.ctx(), &pb.UpdateNotificationDefaultsRequest{
		NotificationDefaults: &pb.NotificationDefaults{Choices: choices}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"choices"}},
	})
	return resp.GetNotificationDefaults(), err
}

// recipients asks as whoever sends notifications does.
func (c *caller) recipients(e pb.NotificationEvent, who ...*caller) []*pb.NotificationRecipient {
	c.t.Helper()
	req := &pb.LookupRecipientsRequest{EventType: identity.Notifiable[e]}
	for _, u := range who {
		req.UserIds = append(req.UserIds, u.user.GetId())
	}
	ctx := store.WithOrigin(c.t.Context(), store.Origin{Tenant: c.session.GetOrganizationId()})
	resp, err := pb.NewNotificationServiceClient(c.Conn("notifier", "identity")).LookupRecipients(ctx, req)
	mustNot(c.t, err)
	return resp.GetRecipients()
}

func wantOutcome(t *testing.T, what string, all []*pb.NotificationOutcome, e pb.NotificationEvent, source pb.NotificationSource, channels ...pb.NotificationChannel) {
	t.Helper()
	i := slices.IndexFunc(all, func(o *pb.NotificationOutcome) bool { return o.GetEvent() == e })
	if i < 0 || all[i].GetSource() != source || !slices.Equal(all[i].GetChannels(), channels) || all[i].GetSecurity() != (e < 100) {
		t.Errorf("%s: got %v of %v, want %v by %v", what, all, e, channels, source)
	}
}

// untold are the events of other services that are for the suite and not for people.
var untold = []string{"latchkey.scheduling.v1.ServiceAgentCreated"}

// Every event that people can be told of is one that a service has, and those of the other
// services are all among them.
func TestNotifiableEvents(t *testing.T) {
	events := map[string]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if name := f.Path(); name == "latchkey/identity/v1/event.proto" || name == "latchkey/scheduling/v1/event.proto" || name == "latchkey/servicerequest/v1/event.proto" {
			for i := range f.Messages().Len() {
				events[string(f.Messages().Get(i).FullName())] = f.Package() != "latchkey.identity.v1"
			}
		}
		return true
	})
	for n := range pb.NotificationEvent_name {
		name := identity.Notifiable[pb.NotificationEvent(n)]
		if _, ok := events[name]; !ok && n != 0 {
			t.Errorf("%v stands for %q, which no service emits", pb.NotificationEvent(n), name)
		}
		delete(events, name)
	}
	for name, must := range events {
		if must && !slices.Contains(untold, name) {
			t.Errorf("nobody can be told of %s", name)
		}
	}
}

// What the person chose counts, then what the organization chose, then e-mail.
func TestNotificationChoices(t *testing.T) {
	owner := owned(t)
	ada, bob := owner.hire("ada", "US"), owner.hire("bob", "US")
	first, err := ada.notifications().GetNotificationChoices(ada.ctx(), &pb.GetNotificationChoicesRequest{})
	mustNot(t, err)
	all := first.GetNotificationChoices().GetOutcomes()
	if len(all) != len(pb.NotificationEvent_name)-1 {
		t.Errorf("got %d outcomes, want one for each event", len(all))
	}
	wantOutcome(t, "nobody chose", all, finishedWork, pb.NotificationSource_NOTIFICATION_SOURCE_SUITE, byMail)

	defaults, err := owner.chooseForAll(choice(finishedWork), choice(cancelledRequest, byText), choice(passwordReset, byText, byMail))
	mustNot(t, err)
	wantOutcome(t, "of the organization", defaults.GetOutcomes(), finishedWork, pb.NotificationSource_NOTIFICATION_SOURCE_ORGANIZATION)
	shown, err := bob.notifications().GetNotificationDefaults(bob.ctx(), &pb.GetNotificationDefaultsRequest{})
	mustNot(t, err)
	same(t, "to anybody there", shown.GetNotificationDefaults(), defaults)

	chosen, err := ada.choose(choice(finishedWork, byPush))
	mustNot(t, err)
	if chosen.GetId() != ada.user.GetId() || chosen.GetOrganizationId() != ada.user.GetOrganizationId() || chosen.GetEtag() == "" {
		t.Errorf("got %v", chosen)
	}
	wantOutcome(t, "the person chose", chosen.GetOutcomes(), finishedWork, pb.NotificationSource_NOTIFICATION_SOURCE_PERSON, byPush)
	wantOutcome(t, "the organization chose", chosen.GetOutcomes(), cancelledRequest, pb.NotificationSource_NOTIFICATION_SOURCE_ORGANIZATION, byText)
	got, err := ada.notifications().GetNotificationChoices(ada.ctx(), &pb.GetNotificationChoicesRequest{})
	mustNot(t, err)
	same(t, "kept", got.GetNotificationChoices(), chosen)

	recipient := func(u *caller, channels ...pb.NotificationChannel) *pb.NotificationRecipient {
		return &pb.NotificationRecipient{UserId: u.user.GetId(), Email: u.email, DisplayName: u.user.GetDisplayName(), Channels: channels}
	}
	for _, try := range []struct {
		event pb.NotificationEvent
		want  []*pb.NotificationRecipient
	}{
		{finishedWork, []*pb.NotificationRecipient{recipient(ada, byPush)}},
		{cancelledRequest, []*pb.NotificationRecipient{recipient(bob, byText), recipient(ada, byText)}},
		{passwordReset, []*pb.NotificationRecipient{recipient(bob, byText, byMail), recipient(ada, byText, byMail)}},
	} {
		same(t, try.event.String(), &pb.LookupRecipientsResponse{Recipients: owner.recipients(try.event, bob, ada)}, &pb.LookupRecipientsResponse{Recipients: try.want})
	}
	_, err = ada.choose()
	mustNot(t, err)
	if found := owner.recipients(finishedWork, ada); len(found) > 0 {
		t.Errorf("without a choice of her own: got %v", found)
	}
	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: bob.user.GetId()})
	mustNot(t, err)
	there := owner.found("Hill Homes")
	if found := append(owner.recipients(passwordReset, bob), there.recipients(passwordReset, ada)...); len(found) > 0 {
		t.Errorf("a former member and a stranger: got %v", found)
	}
}

// SECURITY: nobody keeps a person from hearing of what is about her account.
func TestSecurityMessagesCannotBeSwitchedOff(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "OA").withKey("Organization")
	for n := range pb.NotificationEvent_name {
		if e := pb.NotificationEvent(n); n > 0 && n < 100 {
			_, err := ada.choose(choice(finishedWork), choice(e))
			checkField(t, "by nothing", err, "notification_choices.choices[1].channels")
			_, err = ada.choose(choice(e, byPush, byText))
			checkField(t, "by others alone", err, "notification_choices.choices[0].channels")
			_, err = owner.chooseForAll(choice(e, byText))
			checkField(t, "by the organization", err, "notification_defaults.choices[0].channels")
		}
	}
	_, err := ada.choose(choice(finishedWork), choice(finishedWork, byMail))
	checkField(t, "twice", err, "notification_choices.choices[1].event")
	_, err = ada.choose(choice(finishedWork, byMail, byMail))
	checkField(t, "by the same channel twice", err, "notification_choices.choices[0].channels")
	_, err = ada.choose(choice(0, byMail))
	checkField(t, "of nothing", err, "notification_choices.choices[0].event")
	_, err = ada.choose(choice(99, byMail))
	checkField(t, "of an event that there is not", err, "notification_choices.choices[0].event")
	program := ada.program()
	_, err = program.choose(choice(finishedWork))
	check(t, "an API key", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	_, err = owner.hire("bob", "US").chooseForAll(choice(finishedWork))
	check(t, "for all, without the key", err, codes.PermissionDenied, "GRANT_MISSING")
	_, err = ada.notifications().UpdateNotificationChoices(ada.ctx(), &pb.UpdateNotificationChoicesRequest{
		NotificationChoices: &pb.NotificationChoices{Id: owner.user.GetId(), Choices: []*pb.NotificationChoice{choice(finishedWork)}},
	})
	check(t, "for somebody else", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = ada.notifications().UpdateNotificationChoices(ada.ctx(), &pb.UpdateNotificationChoicesRequest{
		NotificationChoices: &pb.NotificationChoices{Etag: "0", Choices: []*pb.NotificationChoice{choice(finishedWork)}},
	})
	check(t, "another version", err, codes.Aborted, "ETAG_STALE")
	_, err = pb.NewNotificationServiceClient(owner.Conn("notifier", "identity")).LookupRecipients(t.Context(), &pb.LookupRecipientsRequest{
		EventType: "latchkey.journal.v1.RetentionChanged", UserIds: []string{servertest.UUID(1)},
	})
	checkField(t, "who is told of what nobody is", err, "event_type")
}

// New factors and impersonation are told, so that whoever sends notifications can announce
// them.
func TestFactorsAndImpersonationAreTold(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US").withApp().withPasskey(authenticator.New(origin))
	var factors []any
	for _, e := range owner.told("FactorAdded") {
		if e["user_id"] != ada.user.GetId() {
			t.Errorf("told %v", e)
		}
		factors = append(factors, e["factor"])
	}
	if !slices.Equal(factors, []any{"FACTOR_PASSKEY", "FACTOR_TOTP"}) {
		t.Errorf("told of %v", factors)
	}
	owner.permit(owner, "User: Impersonation")
	acted := owner.signIn("").actFor(ada)
	found := owner.told("ImpersonationBegan")
	if len(found) != 1 || found[0]["user_id"] != ada.user.GetId() || found[0]["actor_id"] != owner.user.GetId() ||
		found[0]["impersonation_id"] != acted.GetImpersonation().GetId() {
		t.Errorf("told %v", found)
	}
}
