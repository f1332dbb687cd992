package identity

import (
	"context"
	"fmt"
	"maps"
	"slices"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

const byEmail = pb.NotificationChannel_NOTIFICATION_CHANNEL_EMAIL

// notifiable are the events that people can be told of, each with the full name of its
// message.
var notifiable = map[pb.NotificationEvent]string{
	pb.NotificationEvent_NOTIFICATION_EVENT_SIGN_IN_FAILED:            "latchkey.identity.v1.SignInFailed",
	pb.NotificationEvent_NOTIFICATION_EVENT_REFRESH_TOKEN_REUSED:      "latchkey.identity.v1.RefreshTokenReused",
	pb.NotificationEvent_NOTIFICATION_EVENT_PASSWORD_RESET_REQUESTED:  "latchkey.identity.v1.PasswordResetRequested",
	pb.NotificationEvent_NOTIFICATION_EVENT_PASSWORD_RESET_ISSUED:     "latchkey.identity.v1.PasswordResetIssued",
	pb.NotificationEvent_NOTIFICATION_EVENT_PASSWORD_WAS_RESET:        "latchkey.identity.v1.PasswordWasReset",
	pb.NotificationEvent_NOTIFICATION_EVENT_USER_UNLOCKED:             "latchkey.identity.v1.UserUnlocked",
	pb.NotificationEvent_NOTIFICATION_EVENT_FACTOR_ADDED:              "latchkey.identity.v1.FactorAdded",
	pb.NotificationEvent_NOTIFICATION_EVENT_USER_FACTOR_REMOVED:       "latchkey.identity.v1.UserFactorRemoved",
	pb.NotificationEvent_NOTIFICATION_EVENT_IMPERSONATION_BEGAN:       "latchkey.identity.v1.ImpersonationBegan",
	pb.NotificationEvent_NOTIFICATION_EVENT_NEW_DEVICE_USED:           "latchkey.identity.v1.NewDeviceUsed",
	pb.NotificationEvent_NOTIFICATION_EVENT_PASSWORD_CHANGED:          "latchkey.identity.v1.PasswordChanged",
	pb.NotificationEvent_NOTIFICATION_EVENT_FACTOR_REMOVED:            "latchkey.identity.v1.FactorRemoved",
	pb.NotificationEvent_NOTIFICATION_EVENT_OUTSIDE_LINKED:            "latchkey.identity.v1.OutsideLinked",
	pb.NotificationEvent_NOTIFICATION_EVENT_OUTSIDE_UNLINKED:          "latchkey.identity.v1.OutsideUnlinked",
	pb.NotificationEvent_NOTIFICATION_EVENT_PASSKEY_CLONED:            "latchkey.identity.v1.PasskeyCloned",
	pb.NotificationEvent_NOTIFICATION_EVENT_USER_ADDED:                "latchkey.identity.v1.UserAdded",
	pb.NotificationEvent_NOTIFICATION_EVENT_OUTSIDE_INVITED:           "latchkey.identity.v1.OutsideInvited",
	pb.NotificationEvent_NOTIFICATION_EVENT_SERVICE_REQUEST_CANCELLED: "latchkey.servicerequest.v1.ServiceRequestCancelled",
	pb.NotificationEvent_NOTIFICATION_EVENT_APPOINTMENT_FINISHED:      "latchkey.scheduling.v1.AppointmentFinished",
}

// aboutSecurity tells whether nobody can choose not to be told.
func aboutSecurity(e pb.NotificationEvent) bool { return e < 100 }

// choicesOf returns what a person chose in an organization.
func choicesOf(tx *store.Tx, organization, user string) *pb.NotificationChoices {
	if c, ok := notificationChoices.Get(tx, userKey(organization, user)); ok {
		return c
	}
	return &pb.NotificationChoices{Id: user, OrganizationId: organization}
}

// defaultsOf returns what an organization chose for its people.
func defaultsOf(tx *store.Tx, organization string) *pb.NotificationDefaults {
	if d, ok := notificationDefaults.Get(tx, organization); ok {
		return d
	}
	return &pb.NotificationDefaults{Id: organization}
}

// checkNotified says which choice will not do. Path is where they stand.
//
// SECURITY: whoever has got into an account must not be able to keep its owner from
// hearing of it, nor an organization its people from hearing who acts for them.
func checkNotified(path string, choices []*pb.NotificationChoice) error {
	seen := map[pb.NotificationEvent]bool{}
	for i, c := range choices {
		at := fmt.Sprintf("%s[%d]", path, i)
		if seen[c.GetEvent()] {
			return fault.Invalid(at+".event", "must not be there a second time")
		}
		seen[c.GetEvent()] = true
		if aboutSecurity(c.GetEvent()) && !slices.Contains(c.GetChannels(), byEmail) {
			return fault.Invalid(at+".channels", "must have NOTIFICATION_CHANNEL_EMAIL: messages about security always go out by e-mail")
		}
	}
	return nil
}

// outcome is how somebody is told of an event who chose so in an organization that chose so.
func outcome(e pb.NotificationEvent, organizations, persons []*pb.NotificationChoice) *pb.NotificationOutcome {
	o := &pb.NotificationOutcome{
		Event: e, Channels: []pb.NotificationChannel{byEmail}, Source: pb.NotificationSource_NOTIFICATION_SOURCE_SUITE, Security: aboutSecurity(e),
	}
	of := func(c *pb.NotificationChoice) bool { return c.GetEvent() == e }
	if i := slices.IndexFunc(organizations, of); i >= 0 {
		o.Channels, o.Source = organizations[i].GetChannels(), pb.NotificationSource_NOTIFICATION_SOURCE_ORGANIZATION
	}
	if i := slices.IndexFunc(persons, of); i >= 0 {
		o.Channels, o.Source = persons[i].GetChannels(), pb.NotificationSource_NOTIFICATION_SOURCE_PERSON
	}
	return o
}

// outcomes are those of all events.
func outcomes(organizations, persons []*pb.NotificationChoice) (all []*pb.NotificationOutcome) {
	for _, e := range slices.Sorted(maps.Keys(notifiable)) {
		all = append(all, outcome(e, organizations, persons))
	}
	return all
}

// withOutcomes adds to choices what comes of them.
func withOutcomes(tx *store.Tx, c *pb.NotificationChoices) *pb.NotificationChoices {
	c.Outcomes = outcomes(defaultsOf(tx, c.GetOrganizationId()).GetChoices(), c.GetChoices())
	return c
}

// GetNotificationChoices implements pb.NotificationServiceServer.
func (s *service) GetNotificationChoices(ctx context.Context, _ *pb.GetNotificationChoicesRequest) (*pb.GetNotificationChoicesResponse, error) {
	caller := authz.Caller(ctx)
	return read(ctx, s, func(tx *store.Tx) (*pb.GetNotificationChoicesResponse, error) {
		c := choicesOf(tx, caller.Organization, caller.ID)
		return &pb.GetNotificationChoicesResponse{NotificationChoices: withOutcomes(tx, c)}, nil
	})
}

// UpdateNotificationChoices implements pb.NotificationServiceServer.
func (s *service) UpdateNotificationChoices(ctx context.Context, req *pb.UpdateNotificationChoicesRequest) (*pb.UpdateNotificationChoicesResponse, error) {
	caller, wanted := authz.Caller(ctx), req.GetNotificationChoices()
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	if id := wanted.GetId(); id != "" && id != caller.ID {
		return nil, fault.NotFound("notification_choices", id)
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateNotificationChoicesResponse, error) {
		c := choicesOf(tx, caller.Organization, caller.ID)
		if err := notificationChoices.Match(c, wanted.GetEtag()); err != nil {
			return nil, err
		}
		if err := mask.Apply(c, wanted, req.GetUpdateMask(), "choices"); err != nil {
			return nil, err
		}
		if err := checkNotified("notification_choices.choices", c.GetChoices()); err != nil {
			return nil, err
		}
		if err := notificationChoices.Put(tx, c); err != nil {
			return nil, err
		}
		return &pb.UpdateNotificationChoicesResponse{NotificationChoices: withOutcomes(tx, c)}, nil
	})
}

// GetNotificationDefaults implements pb.NotificationServiceServer.
func (s *service) GetNotificationDefaults(ctx context.Context, _ *pb.GetNotificationDefaultsRequest) (*pb.GetNotificationDefaultsResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetNotificationDefaultsResponse, error) {
		d := defaultsOf(tx, authz.Caller(ctx).Organization)
		d.Outcomes = outcomes(d.GetChoices(), nil)
		return &pb.GetNotificationDefaultsResponse{NotificationDefaults: d}, nil
	})
}

// UpdateNotificationDefaults implements pb.NotificationServiceServer.
func (s *service) UpdateNotificationDefaults(ctx context.Context, req *pb.UpdateNotificationDefaultsRequest) (*pb.UpdateNotificationDefaultsResponse, error) {
	organization, wanted := authz.Caller(ctx).Organization, req.GetNotificationDefaults()
	if id := wanted.GetId(); id != "" && id != organization {
		return nil, fault.NotFound("notification_defaults", id)
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateNotificationDefaultsResponse, error) {
		d := defaultsOf(tx, organization)
		if err := notificationDefaults.Match(d, wanted.GetEtag()); err != nil {
			return nil, err
		}
		if err := mask.Apply(d, wanted, req.GetUpdateMask(), "choices"); err != nil {
			return nil, err
		}
		if err := checkNotified("notification_defaults.choices", d.GetChoices()); err != nil {
			return nil, err
		}
		if err := notificationDefaults.Put(tx, d); err != nil {
			return nil, err
		}
		d.Outcomes = outcomes(d.GetChoices(), nil)
		return &pb.UpdateNotificationDefaultsResponse{NotificationDefaults: d}, nil
	})
}

// LookupRecipients implements pb.NotificationServiceServer.
func (s *service) LookupRecipients(ctx context.Context, req *pb.LookupRecipientsRequest) (*pb.LookupRecipientsResponse, error) {
	event := pb.NotificationEvent_NOTIFICATION_EVENT_UNSPECIFIED
	for e, name := range notifiable {
		if name == req.GetEventType() {
			event = e
		}
	}
	if event == pb.NotificationEvent_NOTIFICATION_EVENT_UNSPECIFIED {
		return nil, fault.Invalid("event_type", "must be the full name of an event that people can be told of: see NotificationEvent")
	}
	organization := store.OriginOf(ctx).Tenant
	return read(ctx, s, func(tx *store.Tx) (*pb.LookupRecipientsResponse, error) {
		resp := &pb.LookupRecipientsResponse{}
		defaults := defaultsOf(tx, organization).GetChoices()
		for _, id := range req.GetUserIds() {
			u, err := activeMember(tx, organization, id)
			p, ok := profiles.Get(tx, id)
			if err != nil || !ok {
				continue
			}
			if o := outcome(event, defaults, choicesOf(tx, organization, id).GetChoices()); len(o.GetChannels()) > 0 {
				resp.Recipients = append(resp.Recipients, &pb.NotificationRecipient{
					UserId: id, Email: p.GetEmail(), DisplayName: u.GetDisplayName(), Channels: o.GetChannels(),
				})
			}
		}
		return resp, nil
	})
}
