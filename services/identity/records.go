package identity

import (
	"context"
	"encoding/hex"
	"strings"

	"google.golang.org/protobuf/proto"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/customfield"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// directory is the one tenant of identity's records.
const directory = "directory"

var (
	brands        = store.NewCollection("brand", (*pb.Brand).GetId).Stays("an organization is imported into a brand that is there")
	brandsByPurge = brands.Index("purge", func(b *pb.Brand) store.Key { return moment(b.GetPurgeTime()) })
	reopenings    = store.NewCollection("reopening", (*identitystorepb.Reopening).GetId).Stays("it is of a brand")

	organizations = store.NewCollection("organization", (*pb.Organization).GetId).Party((*pb.Organization).GetId).OfParty().
			Organizations(shut).Arrives(intoBrand)
	// organizationsByName leaves out closed ones, closedByName has only them.
	organizationsByName = organizations.Index("name", func(o *pb.Organization) store.Key {
		return ifThere(o, o.GetBrandId(), strings.ToLower(o.GetName()))
	})
	closedByName = organizations.Index("closed", func(o *pb.Organization) store.Key {
		return ifDeleted(o, o.GetBrandId(), strings.ToLower(o.GetName()))
	})
	organizationsByPurge = organizations.Index("purge", func(o *pb.Organization) store.Key { return moment(o.GetPurgeTime()) })

	profiles       = store.NewCollection("profile", (*pb.Profile).GetId).OfPerson((*pb.Profile).GetId).People().Arrives(renamed)
	profileByEmail = profiles.Unique("email", func(p *pb.Profile) store.Key {
		return store.Key{p.GetEmail()}
	})
	credentials = store.NewCollection("credential", (*identitystorepb.Credential).GetUserId).
			OfPerson((*identitystorepb.Credential).GetUserId).Only(store.Credentials).Arrives(countKind)
	importedKinds = store.NewCollection("imported_kind", (*identitystorepb.ImportedKind).GetId).Stays("it counts the credentials that are here")

	users = store.NewCollection("user", func(u *pb.User) string {
		return userKey(u.GetOrganizationId(), u.GetId())
	}).Party((*pb.User).GetOrganizationId).OfParty().Joins(personOf).Arrives(asKnown)
	// usersByName and usersByPerson leave out ended memberships, formerByName and
	// usersByPurge have only them.
	usersByName = users.Index("name", func(u *pb.User) store.Key {
		return ifThere(u, u.GetOrganizationId(), strings.ToLower(u.GetDisplayName()))
	})
	usersByPerson = users.Index("person", func(u *pb.User) store.Key {
		return ifThere(u, u.GetId(), u.GetCreateTime().AsTime())
	})
	formerByName = users.Index("former", func(u *pb.User) store.Key {
		return ifDeleted(u, u.GetOrganizationId(), strings.ToLower(u.GetDisplayName()))
	})
	// usersByField has everybody who has custom values, by each of their fields, and
	// usersByValue also by what is in it.
	usersByField = users.MultiIndex("custom", func(u *pb.User) (keys []store.Key) {
		for _, field := range customfield.Fields(u.GetCustomValues()) {
			keys = append(keys, store.Key{u.GetOrganizationId(), u.GetDeleteTime() != nil, field, strings.ToLower(u.GetDisplayName())})
		}
		return keys
	}, store.Version(1))
	usersByValue = users.MultiIndex("custom_value", func(u *pb.User) (keys []store.Key) {
		for _, v := range u.GetCustomValues() {
			for _, part := range customfield.Parts(v) {
				keys = append(keys, store.Key{u.GetOrganizationId(), u.GetDeleteTime() != nil, v.GetCustomFieldId(), part, strings.ToLower(u.GetDisplayName())})
			}
		}
		return keys
	})
	usersByPurge = users.Index("purge", func(u *pb.User) store.Key { return moment(u.GetPurgeTime()) })
	// memberships has every record of a person, also of what has ended.
	memberships = users.Index("memberships", func(u *pb.User) store.Key { return store.Key{u.GetId()} })

	sessions       = store.NewCollection("session", (*pb.Session).GetId).Party((*pb.Session).GetOrganizationId).Stays("a session is with this installation")
	sessionsByUser = sessions.Index("user", func(s *pb.Session) store.Key {
		return store.Key{s.GetUserId(), store.Desc(s.GetCreateTime().AsTime())}
	})
	sessionsByExpiry = sessions.Index("expiry", func(s *pb.Session) store.Key {
		return store.Key{s.GetExpireTime().AsTime()}
	})
	tokens = store.NewCollection("session_token", (*identitystorepb.SessionToken).GetId).
		OfRecord(apiKeys, (*identitystorepb.SessionToken).GetSessionId).Only(store.Keys)
	tokensBySession = tokens.Index("session", func(t *identitystorepb.SessionToken) store.Key {
		return store.Key{t.GetSessionId()}
	})
	tokensByExpiry = tokens.Index("expiry", func(t *identitystorepb.SessionToken) store.Key { return moment(t.GetExpireTime()) })

	refreshes        = store.NewCollection("session_refresh", (*identitystorepb.SessionRefresh).GetId).Stays("it goes on with a session")
	refreshBySession = refreshes.Index("session", func(r *identitystorepb.SessionRefresh) store.Key {
		return store.Key{r.GetSessionId(), r.GetCreateTime().AsTime()}
	})
	sessionUses  = store.NewCollection("session_use", (*identitystorepb.SessionUse).GetId).Stays("it is of a session")
	sessionHours = store.NewCollection("session_hours", (*identitystorepb.SessionHours).GetId).Stays("it is of a session")

	devices       = store.NewCollection("device", (*identitystorepb.Device).GetId).Stays("it was remembered by this installation")
	devicesByUser = devices.Index("user", func(d *identitystorepb.Device) store.Key {
		return store.Key{d.GetUserId(), store.Desc(d.GetCreateTime().AsTime())}
	})
	devicesByExpiry = devices.Index("expiry", func(d *identitystorepb.Device) store.Key {
		return store.Key{d.GetExpireTime().AsTime()}
	})

	places         = store.NewCollection("place", (*identitystorepb.Place).GetId).Stays("it is of sign-ins here")
	placesByExpiry = places.Index("expiry", func(p *identitystorepb.Place) store.Key { return moment(p.GetExpireTime()) })

	calendars = store.NewCollection("calendar_connection", (*pb.CalendarConnection).GetId).Party((*pb.CalendarConnection).GetOrganizationId).
			Stays("its address is of this installation")
	calendarByUser = calendars.Unique("user", func(c *pb.CalendarConnection) store.Key {
		return store.Key{c.GetOrganizationId(), c.GetUserId()}
	})

	apiKeys        = store.NewCollection("api_key", (*pb.ApiKey).GetId).Party((*pb.ApiKey).GetOrganizationId).OfOrganization(keyOrganization).Only(store.Keys)
	apiKeysByOwner = apiKeys.Index("organization", func(k *pb.ApiKey) store.Key {
		return store.Key{ownerOfKey(k), store.Desc(k.GetCreateTime().AsTime())}
	})
	apiKeysByUser = apiKeys.Index("user", func(k *pb.ApiKey) store.Key {
		if k.GetState() != keyActive {
			return nil
		}
		return store.Key{k.GetOrganizationId(), k.GetUserId()}
	})
	apiKeysByPurge = apiKeys.Index("purge", func(k *pb.ApiKey) store.Key {
		if k.GetPurgeTime() == nil {
			return nil
		}
		return store.Key{k.GetPurgeTime().AsTime()}
	})
	apiKeyUses = store.NewCollection("api_key_use", (*identitystorepb.ApiKeyUse).GetId).
			OfRecord(apiKeys, (*identitystorepb.ApiKeyUse).GetId).Only(store.Keys)

	impersonations       = store.NewCollection("impersonation", (*pb.Impersonation).GetId).Party((*pb.Impersonation).GetOrganizationId).OfParty()
	impersonationsByUser = impersonations.Index("user", func(i *pb.Impersonation) store.Key {
		return store.Key{i.GetOrganizationId(), i.GetUserId(), store.Desc(i.GetCreateTime().AsTime())}
	})
	impersonationsByActor = impersonations.Index("actor", func(i *pb.Impersonation) store.Key {
		return store.Key{i.GetOrganizationId(), i.GetActorId(), store.Desc(i.GetCreateTime().AsTime())}
	})
	impersonationsByPurge = impersonations.Index("purge", func(i *pb.Impersonation) store.Key {
		return store.Key{i.GetPurgeTime().AsTime()}
	})

	passkeys       = store.NewCollection("passkey", (*pb.Passkey).GetId).OfPerson((*pb.Passkey).GetUserId).Only(store.Passkeys)
	passkeysByUser = passkeys.Index("user", func(p *pb.Passkey) store.Key {
		return store.Key{p.GetUserId(), store.Desc(p.GetCreateTime().AsTime())}
	})
	passkeyKeys = store.NewCollection("passkey_key", (*identitystorepb.PasskeyKey).GetId).
			OfPerson((*identitystorepb.PasskeyKey).GetUserId).Only(store.Passkeys)
	passkeyKeyByUser = passkeyKeys.Index("user", func(k *identitystorepb.PasskeyKey) store.Key {
		return store.Key{k.GetUserId(), k.GetPasskeyId()}
	})

	factorRemovals       = store.NewCollection("factor_removal", (*pb.FactorRemoval).GetId).Party((*pb.FactorRemoval).GetOrganizationId).OfParty()
	factorRemovalsByUser = factorRemovals.Index("user", func(r *pb.FactorRemoval) store.Key {
		return store.Key{r.GetUserId(), store.Desc(r.GetCreateTime().AsTime())}
	})
	factorRemovalsByPurge = factorRemovals.Index("purge", func(r *pb.FactorRemoval) store.Key { return moment(r.GetPurgeTime()) })

	totps = store.NewCollection("totp", (*identitystorepb.Totp).GetUserId).
		OfPerson((*identitystorepb.Totp).GetUserId).Only(store.Credentials).
		Sealed(func(t *identitystorepb.Totp) (*[]byte, string) { return &t.Sealed, totpName(t.GetUserId()) })
	recoveryCodes = store.NewCollection("recovery_codes", (*identitystorepb.RecoveryCodes).GetUserId).
			OfPerson((*identitystorepb.RecoveryCodes).GetUserId).Only(store.Credentials)
	spentChallenges = store.NewCollection("spent_challenge", (*identitystorepb.SpentChallenge).GetId).Stays("it is of a sign-in here")
	spentByExpiry   = spentChallenges.Index("expiry", func(c *identitystorepb.SpentChallenge) store.Key {
		return store.Key{c.GetExpireTime().AsTime()}
	})

	failures        = store.NewCollection("failures", (*identitystorepb.Failures).GetId).Stays("they are of sign-ins here")
	failuresByPurge = failures.Index("purge", func(f *identitystorepb.Failures) store.Key {
		return store.Key{f.GetPurgeTime().AsTime()}
	})
	resets     = store.NewCollection("password_reset", (*identitystorepb.PasswordReset).GetUserId).Stays("the code is for this installation, for minutes")
	resetsByID = resets.Unique("id", func(r *identitystorepb.PasswordReset) store.Key { return store.Key{r.GetId()} })
	// resetsByExpiry are to be removed.
	resetsByExpiry = resets.Index("expiry", func(r *identitystorepb.PasswordReset) store.Key {
		return store.Key{r.GetExpireTime().AsTime()}
	})
	salts = store.NewCollection("salt", (*identitystorepb.Salt).GetId).Stays("it is of this installation")

	customFields = store.NewCollection("custom_field", (*pb.CustomField).GetId).Party((*pb.CustomField).GetOrganizationId).OfParty()
	// customFieldsInOrder and the names leave out what is deleted, deletedFields has
	// only that. So it is with labels.
	customFieldsInOrder = customFields.Index("order", func(f *pb.CustomField) store.Key {
		return ifThere(f, f.GetOrganizationId(), f.GetNoun(), f.GetPosition(), strings.ToLower(f.GetName()))
	})
	_ = customFields.Unique("name", func(f *pb.CustomField) store.Key {
		return ifThere(f, f.GetOrganizationId(), f.GetNoun(), strings.ToLower(f.GetName()))
	})
	deletedFields = customFields.Index("deleted", func(f *pb.CustomField) store.Key {
		return ifDeleted(f, f.GetOrganizationId(), f.GetNoun(), f.GetPosition(), strings.ToLower(f.GetName()))
	})
	customFieldsByPurge = customFields.Index("purge", func(f *pb.CustomField) store.Key { return moment(f.GetPurgeTime()) })

	labels        = store.NewCollection("label", (*pb.Label).GetId).Party((*pb.Label).GetOrganizationId).OfParty()
	labelsInOrder = labels.Index("order", func(l *pb.Label) store.Key {
		return ifThere(l, l.GetOrganizationId(), l.GetKind(), l.GetPosition(), strings.ToLower(l.GetName()))
	})
	_ = labels.Unique("name", func(l *pb.Label) store.Key {
		return ifThere(l, l.GetOrganizationId(), l.GetKind(), strings.ToLower(l.GetName()))
	})
	labelsByParent = labels.Index("parent", func(l *pb.Label) store.Key {
		if l.GetParentId() == "" {
			return nil
		}
		return ifThere(l, l.GetParentId())
	})
	deletedLabels = labels.Index("deleted", func(l *pb.Label) store.Key {
		return ifDeleted(l, l.GetOrganizationId(), l.GetKind(), l.GetPosition(), strings.ToLower(l.GetName()))
	})
	labelsByPurge = labels.Index("purge", func(l *pb.Label) store.Key { return moment(l.GetPurgeTime()) })

	accountingClasses = store.NewCollection("accounting_class", (*pb.AccountingClass).GetId).Stays("it is the brand's")
	// classesInOrder and the names leave out what is deleted, deletedClasses has only that.
	classesInOrder = accountingClasses.Index("order", func(c *pb.AccountingClass) store.Key {
		return ifThere(c, c.GetBrandId(), c.GetPosition(), strings.ToLower(c.GetName()))
	})
	_ = accountingClasses.Unique("name", func(c *pb.AccountingClass) store.Key {
		return ifThere(c, c.GetBrandId(), strings.ToLower(c.GetName()))
	})
	_ = accountingClasses.Unique("code", func(c *pb.AccountingClass) store.Key {
		if c.GetCode() == "" {
			return nil
		}
		return ifThere(c, c.GetBrandId(), strings.ToLower(c.GetCode()))
	})
	deletedClasses = accountingClasses.Index("deleted", func(c *pb.AccountingClass) store.Key {
		return ifDeleted(c, c.GetBrandId(), c.GetPosition(), strings.ToLower(c.GetName()))
	})
	classesByPurge = accountingClasses.Index("purge", func(c *pb.AccountingClass) store.Key { return moment(c.GetPurgeTime()) })

	automations = store.NewCollection("automation", (*pb.Automation).GetId).Stays("it is the brand's")

	notificationChoices = store.NewCollection("notification_choices", func(c *pb.NotificationChoices) string {
		return userKey(c.GetOrganizationId(), c.GetId())
	}).Party((*pb.NotificationChoices).GetOrganizationId).OfParty()
	notificationDefaults = store.NewCollection("notification_defaults", (*pb.NotificationDefaults).GetId).Party((*pb.NotificationDefaults).GetId).OfParty()

	mails    = store.NewCollection("mail", (*identitystorepb.Mail).GetId).Stays("it is sent from here")
	mailsDue = mails.Index("due", func(m *identitystorepb.Mail) store.Key { return moment(m.GetNextTime()) })
	// mailsSince has the oldest first.
	mailsSince = mails.Index("since", func(m *identitystorepb.Mail) store.Key { return moment(m.GetEventTime()) })

	mailCounts      = store.NewCollection("mail_count", (*identitystorepb.MailCount).GetId).Stays("they were sent from here")
	mailCountsByEnd = mailCounts.Index("end", func(c *identitystorepb.MailCount) store.Key { return moment(c.GetEndTime()) })

	billingAccounts = store.NewCollection("billing_account", (*pb.BillingAccount).GetId).Party((*pb.BillingAccount).GetId).OfParty()

	seedings = store.NewCollection("seeding", (*identitystorepb.Seeding).GetOrganizationId).
			OfOrganization((*identitystorepb.Seeding).GetOrganizationId)
	forgettings = store.NewCollection("forgetting", (*identitystorepb.Forgetting).GetId).
			OfOrganization((*identitystorepb.Forgetting).GetOrganizationId)
	erasures = store.NewCollection("erasure", (*identitystorepb.Erasure).GetId).Stays("the organization is not here any more")
	claims   = store.NewCollection("claim", (*identitystorepb.Claim).GetId).Stays("it is of this installation")
)

var schema = store.NewSchema(brands, organizations, profiles, credentials, importedKinds, users, sessions, tokens,
	refreshes, sessionUses, sessionHours, calendars, devices, places, passkeys, passkeyKeys, factorRemovals, totps, recoveryCodes, spentChallenges, failures, resets,
	salts, apiKeys, apiKeyUses, impersonations, seedings, claims,
	reopenings, forgettings, erasures, customFields, labels, accountingClasses, automations, notificationChoices, notificationDefaults, mails, mailCounts, billingAccounts,
	providers, providerSecrets, links, outsideInvitations,
	signingKeys, clients, clientSecrets, clientSessions, refreshTokens, authCodes, pushedRequests, consents, revocations).Shares(directory)

func userKey(organization, user string) string { return organization + "/" + user }

// ifThere is the key of a record that is not deleted, ifDeleted that of one that is.
func ifThere(r deletable, parts ...any) store.Key {
	if r.GetDeleteTime() != nil {
		return nil
	}
	return parts
}

func ifDeleted(r deletable, parts ...any) store.Key {
	if r.GetDeleteTime() == nil {
		return nil
	}
	return parts
}

// tokenID is what a token is found by.
func tokenID(hash []byte) string { return hex.EncodeToString(hash) }

// inDirectory lets a call reach identity's records. What it then may read and write
// of them the handlers decide, by the caller's organization.
func inDirectory(ctx context.Context) context.Context { return inTenant(ctx, directory) }

func inTenant(ctx context.Context, tenant string) context.Context {
	o := store.OriginOf(ctx)
	if o.Party == "" && o.Tenant != directory {
		o.Party = o.Tenant // the caller's, to which the entry in the journal belongs too
	}
	o.Tenant = tenant
	return store.WithOrigin(ctx, o)
}

// do is store.Do over identity's records.
func do[R proto.Message](ctx context.Context, s *service, req proto.Message, f func(*store.Tx) (R, error)) (R, error) {
	return store.Do(inDirectory(ctx), s.db, withoutSecrets(req), f)
}

// read is store.Read over identity's records.
func read[R any](ctx context.Context, s *service, f func(*store.Tx) (R, error)) (R, error) {
	return store.Read(inDirectory(ctx), s.db, f)
}

// withoutSecrets returns the request without the fields that are secret.
//
// SECURITY: the store keeps a plain SHA-256 of each request with a request_id, by
// which a password could be guessed a thousand times faster than by its own hash. So
// a repeat with another secret gets the first answer too; handlers check secrets
// before they come to the store.
func withoutSecrets(req proto.Message) proto.Message {
	switch r := req.(type) {
	case *pb.CreateSessionRequest:
		r = proto.CloneOf(r)
		r.Password, r.DeviceToken = "", ""
		return r
	case *pb.CreateUserRequest:
		r = proto.CloneOf(r)
		r.InitialPassword = ""
		return r
	case *pb.ImportUsersRequest:
		r = proto.CloneOf(r)
		for _, u := range r.GetUsers() {
			u.PasswordHash = ""
		}
		return r
	case *pb.ChangePasswordRequest:
		r = proto.CloneOf(r)
		r.CurrentPassword, r.NewPassword = "", ""
		return r
	case *pb.ResetPasswordRequest:
		r = proto.CloneOf(r)
		r.Code, r.NewPassword = "", ""
		return r
	case *pb.AnswerChallengeRequest:
		r = proto.CloneOf(r)
		r.Challenge, r.Proof = "", nil
		return r
	case *pb.ConfirmTotpRequest:
		r = proto.CloneOf(r)
		r.Setup, r.Code = "", ""
		return r
	case *pb.CreatePasskeyRequest:
		r = proto.CloneOf(r)
		r.Setup, r.Response = "", ""
		return r
	case *pb.CreateOutsideProviderRequest:
		r = proto.CloneOf(r)
		r.ClientSecret = ""
		return r
	case *pb.UpdateOutsideProviderRequest:
		r = proto.CloneOf(r)
		r.ClientSecret = nil
		return r
	case *pb.ClaimOwnershipRequest:
		r = proto.CloneOf(r)
		r.Code, r.OwnerPassword = "", ""
		return r
	}
	return req
}

// member finds a user of an organization, whatever the state. A person who is no
// member, or not any more, is as unknown as one who does not exist.
func member(tx *store.Tx, organization, id string) (*pb.User, error) {
	u, ok := users.Get(tx, userKey(organization, id))
	if !ok || u.GetDeleteTime() != nil {
		return nil, fault.NotFound("user", id)
	}
	return u, nil
}

// endSession removes a session and what proves it.
func endSession(tx *store.Tx, id string) {
	endTokens(tx, id)
	endClientSession(tx, id)
	sessionUses.Delete(tx, id)
	sessionHours.Delete(tx, id)
	sessions.Delete(tx, id)
}

// endTokens removes what proves a session or an API key, and what goes on with it.
func endTokens(tx *store.Tx, id string) {
	for t := range tokensBySession.Scan(tx, tokensBySession.Range(id)) {
		tokens.Delete(tx, t.GetId())
	}
	for r := range refreshBySession.Scan(tx, refreshBySession.Range(id)) {
		refreshes.Delete(tx, r.GetId())
	}
}

// endSessions ends those sessions of a person that which returns true for.
func endSessions(tx *store.Tx, user string, which func(*pb.Session) bool) {
	for s := range sessionsByUser.Scan(tx, sessionsByUser.Range(user)) {
		if which(s) {
			endSession(tx, s.GetId())
		}
	}
}
