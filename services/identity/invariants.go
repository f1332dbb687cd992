package identity

import (
	"fmt"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

// What is always true of the records, as far as one can see it in them: verify asks for it. A session
// may outlive its organization for a while, and an API key, an impersonation or a consent its user.
var (
	_ = organizations.Refers("brand_id", (*pb.Organization).GetBrandId, brands)
	_ = organizations.Always("purge_time", store.PurgesDeleted[*pb.Organization])
	_ = brands.Always("purge_time", store.PurgesDeleted[*pb.Brand])
	_ = reopenings.Always("brand_id", func(tx *store.Tx, r *identitystorepb.Reopening) string {
		if b, ok := brands.Get(tx, r.GetBrandId()); !ok || b.GetDeleteTime() == nil {
			return fmt.Sprintf("brand %q is not closed", r.GetBrandId())
		}
		return ""
	})

	_ = users.Refers("organization_id", (*pb.User).GetOrganizationId, organizations)
	_ = users.Refers("id", personOf, profiles)
	_ = users.Always("email", asProfileSays)
	_ = users.Always("purge_time", store.PurgesDeleted[*pb.User])
)

// What a person has, and what proves who she is.
var (
	_ = credentials.Refers("user_id", (*identitystorepb.Credential).GetUserId, profiles)
	_ = credentials.Refers("imported_kind", (*identitystorepb.Credential).GetImportedKind, importedKinds)
	_ = store.Counts(importedKinds, "count", (*identitystorepb.ImportedKind).GetCount, credentials, (*identitystorepb.Credential).GetImportedKind)
	_ = totps.Refers("user_id", (*identitystorepb.Totp).GetUserId, profiles)
	_ = recoveryCodes.Refers("user_id", (*identitystorepb.RecoveryCodes).GetUserId, profiles)
	_ = devices.Refers("user_id", (*identitystorepb.Device).GetUserId, profiles)
	_ = passkeys.Refers("user_id", (*pb.Passkey).GetUserId, profiles)
	_ = passkeyKeys.Refers("passkey_id", (*identitystorepb.PasskeyKey).GetPasskeyId, passkeys)
	_ = links.Refers("user_id", (*pb.OutsideLink).GetUserId, profiles)
	_ = links.Refers("provider_id", (*pb.OutsideLink).GetProviderId, providers)
	_ = outsideInvitations.Refers("provider_id", (*identitystorepb.OutsideInvitation).GetProviderId, providers)
	_ = providerSecrets.Refers("provider_id", (*identitystorepb.OutsideSecret).GetProviderId, providers)
	_ = providers.Always("purge_time", store.PurgesDeleted[*pb.OutsideProvider])
)

// Sessions, keys and clients, and what they are proven by.
var (
	_ = sessions.Always("user_id", func(tx *store.Tx, s *pb.Session) string {
		if profiles.Has(tx, s.GetUserId()) || users.Has(tx, userKey(s.GetOrganizationId(), s.GetUserId())) {
			return ""
		}
		return fmt.Sprintf("there is no profile %q, nor such a user in organization %q", s.GetUserId(), s.GetOrganizationId())
	})
	_ = tokens.Refers("session_id", (*identitystorepb.SessionToken).GetSessionId, sessions, apiKeys, clients, calendars)
	_ = refreshes.Refers("session_id", (*identitystorepb.SessionRefresh).GetSessionId, sessions)
	_ = sessionUses.Refers("id", (*identitystorepb.SessionUse).GetId, sessions, calendars)
	_ = sessionHours.Refers("id", (*identitystorepb.SessionHours).GetId, sessions)
	_ = clientSessions.Refers("session_id", (*identitystorepb.ClientSession).GetSessionId, sessions)
	_ = clientSessions.Refers("client_id", (*identitystorepb.ClientSession).GetClientId, clients)
	_ = refreshTokens.Refers("session_id", (*identitystorepb.RefreshToken).GetSessionId, sessions)
	_ = calendars.Refers("user_id", func(c *pb.CalendarConnection) string { return userKey(c.GetOrganizationId(), c.GetUserId()) }, users)
	_ = apiKeyUses.Refers("id", (*identitystorepb.ApiKeyUse).GetId, apiKeys)
	_ = apiKeys.Always("state", keyFitsState)
	_ = clientSecrets.Refers("client_id", (*identitystorepb.ClientSecrets).GetClientId, clients)
	_ = clients.Always("purge_time", store.PurgesDeleted[*pb.OauthClient])
)

// What an organization or a brand has set up.
var (
	_ = seedings.Refers("organization_id", (*identitystorepb.Seeding).GetOrganizationId, organizations)
	_ = billingAccounts.Refers("id", (*pb.BillingAccount).GetId, organizations)
	_ = notificationDefaults.Refers("id", (*pb.NotificationDefaults).GetId, organizations)
	_ = notificationChoices.Refers("id", func(c *pb.NotificationChoices) string { return userKey(c.GetOrganizationId(), c.GetId()) }, users)
	_ = customFields.Refers("organization_id", (*pb.CustomField).GetOrganizationId, organizations)
	_ = customFields.Always("purge_time", store.PurgesDeleted[*pb.CustomField])
	_ = labels.Refers("organization_id", (*pb.Label).GetOrganizationId, organizations)
	_ = labels.Always("parent_id", isBeneath)
	_ = labels.Always("purge_time", store.PurgesDeleted[*pb.Label])
	_ = accountingClasses.Refers("brand_id", (*pb.AccountingClass).GetBrandId, brands)
	_ = accountingClasses.Always("purge_time", store.PurgesDeleted[*pb.AccountingClass])
	_ = automations.Refers("brand_id", (*pb.Automation).GetBrandId, brands)
)

// asProfileSays holds if a user has the address of the person.
func asProfileSays(tx *store.Tx, u *pb.User) string {
	if p, ok := profiles.Get(tx, personOf(u)); ok && p.GetEmail() != u.GetEmail() {
		return fmt.Sprintf("it is %q, and that of the profile %q", u.GetEmail(), p.GetEmail())
	}
	return ""
}

// keyFitsState holds if a key that is revoked has the times of that, and nothing that proves it.
func keyFitsState(tx *store.Tx, k *pb.ApiKey) string {
	revoked := k.GetState() == keyRevoked
	switch {
	case !revoked && k.GetState() != keyActive:
		return fmt.Sprintf("it is %s", k.GetState())
	case revoked != (k.GetRevokeTime() != nil), revoked != (k.GetPurgeTime() != nil):
		return fmt.Sprintf("it is %s, and whether it has a revoke_time %t, and a purge_time %t", k.GetState(), k.GetRevokeTime() != nil, k.GetPurgeTime() != nil)
	}
	if t, ok := tokensBySession.First(tx, k.GetId()); ok && revoked {
		return fmt.Sprintf("it is %s, and token %q proves it", k.GetState(), t.GetId())
	}
	return ""
}

// isBeneath holds if a category that is not deleted is beneath none, or beneath one of its
// organization that is not either.
func isBeneath(tx *store.Tx, l *pb.Label) string {
	if l.GetParentId() == "" || l.GetDeleteTime() != nil {
		return ""
	}
	parent, ok := labels.Get(tx, l.GetParentId())
	if ok && parent.GetDeleteTime() == nil && parent.GetKind() == category && l.GetKind() == category && parent.GetOrganizationId() == l.GetOrganizationId() {
		return ""
	}
	return fmt.Sprintf("there is no category %q in organization %q, or it is deleted", l.GetParentId(), l.GetOrganizationId())
}
