package identity

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

// soundDirectory is a brand with an organization, one of which is all that an organization, a person
// and a client can have; and a brand that is closed.
func soundDirectory(tx *store.Tx) error {
	now := timestamppb.New(tx.Now())
	return errors.Join(
		brands.Put(tx, &pb.Brand{Id: "b"}), brands.Put(tx, &pb.Brand{Id: "closed", DeleteTime: now, PurgeTime: now}),
		reopenings.Put(tx, &identitystorepb.Reopening{Id: "code", BrandId: "closed"}),
		organizations.Put(tx, &pb.Organization{Id: "o", BrandId: "b"}),
		profiles.Put(tx, &pb.Profile{Id: "ann", Email: "ann@example.com"}),
		users.Put(tx, &pb.User{Id: "ann", OrganizationId: "o", Email: "ann@example.com"}),
		users.Put(tx, &pb.User{Id: "robot", OrganizationId: "o", ServiceAccount: true}),
		importedKinds.Put(tx, &identitystorepb.ImportedKind{Id: "bcrypt,12", Count: 1}),
		credentials.Put(tx, &identitystorepb.Credential{UserId: "ann", ImportedKind: "bcrypt,12"}),
		totps.Put(tx, &identitystorepb.Totp{UserId: "ann"}), recoveryCodes.Put(tx, &identitystorepb.RecoveryCodes{UserId: "ann"}),
		devices.Put(tx, &identitystorepb.Device{Id: "d", UserId: "ann"}),
		passkeys.Put(tx, &pb.Passkey{Id: "p", UserId: "ann"}), passkeyKeys.Put(tx, &identitystorepb.PasskeyKey{Id: "k", PasskeyId: "p", UserId: "ann"}),
		providers.Put(tx, &pb.OutsideProvider{Id: "out"}), providerSecrets.Put(tx, &identitystorepb.OutsideSecret{ProviderId: "out"}),
		links.Put(tx, &pb.OutsideLink{Id: "l", ProviderId: "out", UserId: "ann"}),
		outsideInvitations.Put(tx, &identitystorepb.OutsideInvitation{Id: "out/ann", ProviderId: "out", UserId: "ann"}),

		sessions.Put(tx, &pb.Session{Id: "s", UserId: "ann", OrganizationId: "o"}),
		sessionUses.Put(tx, &identitystorepb.SessionUse{Id: "s"}), sessionHours.Put(tx, &identitystorepb.SessionHours{Id: "s"}),
		refreshes.Put(tx, &identitystorepb.SessionRefresh{Id: "r", SessionId: "s"}), refreshTokens.Put(tx, &identitystorepb.RefreshToken{Id: "r", SessionId: "s"}),
		clients.Put(tx, &pb.OauthClient{Id: "client"}), clientSecrets.Put(tx, &identitystorepb.ClientSecrets{ClientId: "client"}),
		clientSessions.Put(tx, &identitystorepb.ClientSession{SessionId: "s", ClientId: "client"}),
		apiKeys.Put(tx, &pb.ApiKey{Id: "key", State: keyActive}), apiKeyUses.Put(tx, &identitystorepb.ApiKeyUse{Id: "key"}),
		calendars.Put(tx, &pb.CalendarConnection{Id: "feed", UserId: "ann", OrganizationId: "o"}),
		tokens.Put(tx, &identitystorepb.SessionToken{Id: "t1", SessionId: "s"}), tokens.Put(tx, &identitystorepb.SessionToken{Id: "t2", SessionId: "key"}),
		tokens.Put(tx, &identitystorepb.SessionToken{Id: "t3", SessionId: "client"}), tokens.Put(tx, &identitystorepb.SessionToken{Id: "t4", SessionId: "feed"}),

		seedings.Put(tx, &identitystorepb.Seeding{OrganizationId: "o"}), billingAccounts.Put(tx, &pb.BillingAccount{Id: "o"}),
		notificationDefaults.Put(tx, &pb.NotificationDefaults{Id: "o"}), notificationChoices.Put(tx, &pb.NotificationChoices{Id: "ann", OrganizationId: "o"}),
		customFields.Put(tx, &pb.CustomField{Id: "f", OrganizationId: "o"}),
		labels.Put(tx, &pb.Label{Id: "above", OrganizationId: "o", Kind: category, Name: "above"}),
		labels.Put(tx, &pb.Label{Id: "beneath", OrganizationId: "o", Kind: category, Name: "beneath", ParentId: "above"}),
		accountingClasses.Put(tx, &pb.AccountingClass{Id: "c", BrandId: "b"}), automations.Put(tx, &pb.Automation{Id: "b/1", BrandId: "b"}),
	)
}

// TestInvariants damages one record for each of them.
func TestInvariants(t *testing.T) {
	now := timestamppb.Now()
	damages := map[string][]servertest.Damage{
		"brand/purge_time":            {servertest.Changed(brands, "closed", func(b *pb.Brand) { b.PurgeTime = nil })},
		"organization/purge_time":     {servertest.Changed(organizations, "o", func(o *pb.Organization) { o.DeleteTime = now })},
		"user/purge_time":             {servertest.Changed(users, "o/ann", func(u *pb.User) { u.PurgeTime = now })},
		"outside_provider/purge_time": {servertest.Changed(providers, "out", func(p *pb.OutsideProvider) { p.PurgeTime = now })},
		"oauth_client/purge_time":     {servertest.Changed(clients, "client", func(c *pb.OauthClient) { c.DeleteTime = now })},
		"custom_field/purge_time":     {servertest.Changed(customFields, "f", func(f *pb.CustomField) { f.DeleteTime = now })},
		"label/purge_time":            {servertest.Changed(labels, "above", func(l *pb.Label) { l.DeleteTime = now })},
		"accounting_class/purge_time": {servertest.Changed(accountingClasses, "c", func(c *pb.AccountingClass) { c.DeleteTime = now })},
		"reopening/brand_id": {
			servertest.Removed(brands, "closed"),
			servertest.Changed(brands, "closed", func(b *pb.Brand) { b.DeleteTime, b.PurgeTime = nil, nil }),
		},
		"user/email": {servertest.Changed(users, "o/ann", func(u *pb.User) { u.Email = "ann@elsewhere.example" })},
		"imported_kind/count": {
			servertest.Changed(importedKinds, "bcrypt,12", func(k *identitystorepb.ImportedKind) { k.Count = 2 }),
			servertest.Changed(credentials, "ann", func(c *identitystorepb.Credential) { c.ImportedKind = "" }),
			servertest.Put(credentials, &identitystorepb.Credential{UserId: "bob", ImportedKind: "bcrypt,12"}),
		},
		"credential/imported_kind": {servertest.Removed(importedKinds, "bcrypt,12")},
		"session_token/session_id": {
			servertest.Removed(sessions, "s"), servertest.Removed(apiKeys, "key"), servertest.Removed(clients, "client"), servertest.Removed(calendars, "feed"),
		},
		"session_use/id":  {servertest.Put(sessionUses, &identitystorepb.SessionUse{Id: "none"})},
		"api_key_use/id":  {servertest.Removed(apiKeys, "key")},
		"session/user_id": {servertest.Put(sessions, &pb.Session{Id: "s2", UserId: "nobody", OrganizationId: "o"})},
		"api_key/state": {
			servertest.Changed(apiKeys, "key", func(k *pb.ApiKey) { k.State = keyRevoked }),
			servertest.Changed(apiKeys, "key", func(k *pb.ApiKey) { k.State, k.RevokeTime, k.PurgeTime = keyRevoked, now, now }),
			servertest.Changed(apiKeys, "key", func(k *pb.ApiKey) { k.State = 0 }),
		},
		"passkey_key/passkey_id": {servertest.Removed(passkeys, "p")},
		"label/parent_id": {
			servertest.Removed(labels, "above"),
			servertest.Changed(labels, "above", func(l *pb.Label) { l.DeleteTime, l.PurgeTime = now, now }),
			servertest.Changed(labels, "above", func(l *pb.Label) { l.OrganizationId = "another" }),
		},
	}
	for _, gone := range []struct {
		damage servertest.Damage
		breaks []string
	}{
		{servertest.Removed(brands, "b"), []string{"organization/brand_id", "accounting_class/brand_id", "automation/brand_id"}},
		{servertest.Removed(organizations, "o"), []string{
			"user/organization_id", "seeding/organization_id", "billing_account/id", "notification_defaults/id", "custom_field/organization_id", "label/organization_id",
		}},
		{servertest.Removed(users, "o/ann"), []string{"calendar_connection/user_id", "notification_choices/id"}},
		{servertest.Removed(profiles, "ann"), []string{
			"user/id", "credential/user_id", "totp/user_id", "recovery_codes/user_id", "device/user_id", "passkey/user_id", "outside_link/user_id",
		}},
		{servertest.Removed(providers, "out"), []string{"outside_link/provider_id", "outside_invitation/provider_id", "outside_secret/provider_id"}},
		{servertest.Removed(sessions, "s"), []string{
			"session_refresh/session_id", "session_use/id", "session_hours/id", "oauth_session/session_id", "oauth_refresh/session_id",
		}},
		{servertest.Removed(clients, "client"), []string{"oauth_session/client_id", "oauth_secret/client_id"}},
	} {
		for _, name := range gone.breaks {
			damages[name] = append(damages[name], gone.damage)
		}
	}
	servertest.FindsDamage(t, schema, soundDirectory, damages)
}
