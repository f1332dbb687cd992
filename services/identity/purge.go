package identity

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// purgeUsers erases the records of memberships that ended long enough ago.
func (s *service) purgeUsers(ctx context.Context) (n int, err error) {
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		over := take(usersByPurge.Scan(tx, usersByPurge.Range().To(tx.Now())))
		for _, u := range over {
			if err := errors.Join(eraseUser(tx, u), forget(tx, u)); err != nil {
				return err
			}
		}
		n = len(over)
		return nil
	})
	return n, err
}

// eraseUser erases what an organization has of a person, from the journal too, and the
// person with it who is in no other.
func eraseUser(tx *store.Tx, u *pb.User) error {
	key := userKey(u.GetOrganizationId(), u.GetId())
	users.Delete(tx, key)
	tx.EraseHistory(users.Name(), key)
	notificationChoices.Delete(tx, key)
	tx.EraseHistory(notificationChoices.Name(), key)
	forgetPlaces(tx, u.GetOrganizationId(), u.GetId())
	if c, ok := calendarByUser.First(tx, u.GetOrganizationId(), u.GetId()); ok {
		endCalendar(tx, u.GetOrganizationId(), u.GetId())
		tx.EraseHistory(calendars.Name(), c.GetId())
	}
	for c := range consents.Scan(tx, consents.Range().From(key+"/").To(key+"0")) { // "0" follows "/"
		consents.Delete(tx, c.GetId())
	}
	eraseLinks(tx, u.GetId(), u.GetOrganizationId())
	for other := range memberships.Scan(tx, memberships.Range(u.GetId())) {
		if other.GetOrganizationId() != u.GetOrganizationId() {
			return nil
		}
	}
	return erasePerson(tx, u.GetId())
}

// forget keeps that permissions is to be told.
func forget(tx *store.Tx, u *pb.User) error {
	return forgettings.Put(tx, &identitystorepb.Forgetting{
		Id: userKey(u.GetOrganizationId(), u.GetId()), OrganizationId: u.GetOrganizationId(), UserId: u.GetId(),
	})
}

// erasePerson erases all that identity knows of a person. The journal keeps hashes, and
// verifies; what it has of sessions that had ended before goes with its age.
func erasePerson(tx *store.Tx, id string) error {
	if c, ok := credentials.Get(tx, id); ok {
		if err := forgetImported(tx, c); err != nil {
			return err
		}
	}
	for session := range sessionsByUser.Scan(tx, sessionsByUser.Range(id)) {
		endSession(tx, session.GetId())
		tx.EraseHistory(sessions.Name(), session.GetId())
	}
	for d := range devicesByUser.Scan(tx, devicesByUser.Range(id)) {
		devices.Delete(tx, d.GetId())
		tx.EraseHistory(devices.Name(), d.GetId())
	}
	for k := range passkeyKeyByUser.Scan(tx, passkeyKeyByUser.Range(id)) {
		passkeyKeys.Delete(tx, k.GetId())
		tx.EraseHistory(passkeyKeys.Name(), k.GetId())
	}
	for _, k := range passkeysOf(tx, id) {
		passkeys.Delete(tx, k.GetId())
		tx.EraseHistory(passkeys.Name(), k.GetId())
	}
	for r := range factorRemovalsByUser.Scan(tx, factorRemovalsByUser.Range(id)) {
		factorRemovals.Delete(tx, r.GetId())
		tx.EraseHistory(factorRemovals.Name(), r.GetId())
	}
	eraseLinks(tx, id, "")
	clearFailures(tx, passwordFailures(id), sessionFailures(id), totpFailures(id), recoveryFailures(id), passkeyFailures(id))
	profiles.Delete(tx, id)
	credentials.Delete(tx, id)
	totps.Delete(tx, id)
	recoveryCodes.Delete(tx, id)
	resets.Delete(tx, id)
	for _, collection := range []string{profiles.Name(), credentials.Name(), resets.Name(), totps.Name(), recoveryCodes.Name()} {
		tx.EraseHistory(collection, id)
	}
	return nil
}

// forgetAll has permissions forget what erased members could do. Whoever is a member again
// by then has lost the forgetting: see addMember.
func (s *service) forgetAll(ctx context.Context) (n int, err error) {
	pending, err := read(ctx, s, func(tx *store.Tx) ([]*identitystorepb.Forgetting, error) {
		return take(forgettings.All(tx)), nil
	})
	if err != nil {
		return 0, err
	}
	for _, f := range pending {
		_, err := s.grants.ForgetUser(inTenant(ctx, f.GetOrganizationId()), &permissionspb.ForgetUserRequest{UserId: f.GetUserId()})
		if err != nil {
			return 0, unanswered(ctx, "permissions", "forget an erased member", err)
		}
	}
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		for _, f := range pending {
			forgettings.Delete(tx, f.GetId())
		}
		return nil
	})
	return len(pending), err
}

// purgeOrganizations erases organizations that were closed long enough ago, a part of one
// at a time.
func (s *service) purgeOrganizations(ctx context.Context) (n int, err error) {
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		n = 0
		for o := range organizationsByPurge.Scan(tx, organizationsByPurge.Range().To(tx.Now())) {
			n = batch // there may be more
			return eraseOrganization(tx, o.GetId())
		}
		return nil
	})
	return n, err
}

// eraseOrganization erases a number of an organization's members and keys, and the rest
// once there are none. Permissions is not told of each of the members: it removes all that it has of
// the organization, which it keeps an owner until then.
func eraseOrganization(tx *store.Tx, id string) error {
	some := take(users.Scan(tx, users.Range().From(id+"/").To(id+"0"))) // "0" follows "/"
	for _, u := range some {
		if err := eraseUser(tx, u); err != nil {
			return err
		}
	}
	if len(some)+eraseKeys(tx, id) > 0 {
		return nil
	}
	eraseClients(tx, id)
	eraseProviders(tx, id)
	for f := range customFieldsInOrder.Scan(tx, customFieldsInOrder.Range(id)) {
		customFields.Delete(tx, f.GetId())
	}
	for f := range deletedFields.Scan(tx, deletedFields.Range(id)) {
		customFields.Delete(tx, f.GetId())
	}
	for l := range labelsInOrder.Scan(tx, labelsInOrder.Range(id)) {
		labels.Delete(tx, l.GetId())
	}
	for l := range deletedLabels.Scan(tx, deletedLabels.Range(id)) {
		labels.Delete(tx, l.GetId())
	}
	notificationDefaults.Delete(tx, id)
	billingAccounts.Delete(tx, id)
	tx.EraseHistory(billingAccounts.Name(), id)
	seedings.Delete(tx, id)
	organizations.Delete(tx, id)
	tx.EraseHistory(organizations.Name(), id)
	return erasures.Put(tx, &identitystorepb.Erasure{Id: id})
}

// eraseKeys removes a number of the API keys of an organization or a brand, and returns how
// many.
func eraseKeys(tx *store.Tx, owner string) int {
	keys := take(apiKeysByOwner.Scan(tx, apiKeysByOwner.Range(owner)))
	for _, key := range keys {
		endTokens(tx, key.GetId())
		apiKeyUses.Delete(tx, key.GetId())
		apiKeys.Delete(tx, key.GetId())
	}
	return len(keys)
}

// eraseClients removes the OAuth clients of an organization or a brand.
func eraseClients(tx *store.Tx, owner string) {
	for c := range clientsByOwner.Scan(tx, clientsByOwner.Range(owner)) {
		endTokens(tx, c.GetId())
		clientSecrets.Delete(tx, c.GetId())
		clients.Delete(tx, c.GetId())
	}
}

// purgeBrands closes for good what a brand has that was closed long enough ago, and erases
// the brand once there is nothing left of it: then the suite can be claimed again, when it
// next starts.
func (s *service) purgeBrands(ctx context.Context) (n int, err error) {
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		n = 0
		for _, b := range take(brandsByPurge.Scan(tx, brandsByPurge.Range().To(tx.Now()))) {
			if err := eraseBrand(tx, b.GetId()); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

func eraseBrand(tx *store.Tx, id string) error {
	left := take(organizationsByName.Scan(tx, organizationsByName.Range(id)))
	for _, o := range left {
		// Both before now, as purgeOrganizations looks.
		o.DeleteTime, o.PurgeTime = timestamppb.New(tx.Now().Add(-undeleteLife)), timestamppb.New(tx.Now().Add(-1))
		if err := organizations.Put(tx, o); err != nil {
			return err
		}
	}
	if len(left) > 0 || closedByName.Count(tx, closedByName.Range(id)) > 0 || eraseKeys(tx, id) > 0 {
		return nil
	}
	eraseClients(tx, id)
	eraseProviders(tx, id)
	eraseClasses(tx, id)
	eraseAutomations(tx, id)
	for r := range reopenings.All(tx) {
		if r.GetBrandId() == id {
			reopenings.Delete(tx, r.GetId())
		}
	}
	if claim, ok := claims.Get(tx, claimID); ok && claim.GetBrandId() == id {
		claims.Delete(tx, claimID)
	}
	brands.Delete(tx, id)
	tx.EraseHistory(brands.Name(), id)
	return erasures.Put(tx, &identitystorepb.Erasure{Id: id})
}

// purgeFields erases custom fields that were deleted long enough ago.
func purgeFields(tx *store.Tx) int { return deleteDue(tx, customFields, customFieldsByPurge) }

// purgeLabels erases categories, tags and labels that were deleted long enough ago.
func purgeLabels(tx *store.Tx) int { return deleteDue(tx, labels, labelsByPurge) }
