package identity

import (
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

var (
	providers = store.NewCollection("outside_provider", (*pb.OutsideProvider).GetId).Party((*pb.OutsideProvider).GetOrganizationId).
			Stays("it knows this installation by its address")
	providersByOwner = providers.Index("owner", func(p *pb.OutsideProvider) store.Key {
		return store.Key{ownerOf(p), store.Desc(p.GetCreateTime().AsTime())}
	})
	_ = providers.Unique("client_id", func(p *pb.OutsideProvider) store.Key {
		return ifThere(p, ownerOf(p), p.GetIssuer(), p.GetClientId())
	})
	providersByPurge = providers.Index("purge", func(p *pb.OutsideProvider) store.Key { return moment(p.GetPurgeTime()) })
	providerSecrets  = store.NewCollection("outside_secret", (*identitystorepb.OutsideSecret).GetProviderId).Stays("it is of a provider")

	links = store.NewCollection("outside_link", (*pb.OutsideLink).GetId).Party((*pb.OutsideLink).GetOrganizationId).
		Stays("an account is linked where it is to sign in")
	// linkBySubject finds an account. Its issuer is that of the provider, which never changes.
	linkBySubject = links.Unique("subject", func(l *pb.OutsideLink) store.Key {
		return store.Key{l.GetProviderId(), l.GetSubject()}
	})
	linksByUser = links.Index("user", func(l *pb.OutsideLink) store.Key {
		return store.Key{l.GetUserId(), store.Desc(l.GetCreateTime().AsTime())}
	})

	outsideInvitations  = store.NewCollection("outside_invitation", (*identitystorepb.OutsideInvitation).GetId).Stays("it is of a provider")
	invitationsByUser   = outsideInvitations.Index("user", func(i *identitystorepb.OutsideInvitation) store.Key { return store.Key{i.GetUserId()} })
	invitationsByExpiry = outsideInvitations.Index("expiry", func(i *identitystorepb.OutsideInvitation) store.Key {
		return moment(i.GetExpireTime())
	})

	sessionsByProvider = sessions.Index("provider", func(s *pb.Session) store.Key {
		if s.GetProviderId() == "" {
			return nil
		}
		return store.Key{s.GetProviderId()}
	})
)

func invitationKey(provider, user string) string { return provider + "/" + user }

// purgeProviders erases the records of providers that were deleted long enough ago.
func purgeProviders(tx *store.Tx) int { return deleteDue(tx, providers, providersByPurge) }

// purgeInvitations removes invitations that have expired.
func purgeInvitations(tx *store.Tx) int {
	return deleteDue(tx, outsideInvitations, invitationsByExpiry)
}

// eraseProviders removes the providers of an organization or a brand, and what belongs to
// them.
func eraseProviders(tx *store.Tx, owner string) {
	for p := range providersByOwner.Scan(tx, providersByOwner.Range(owner)) {
		emptyProvider(tx, p)
		providers.Delete(tx, p.GetId())
		tx.EraseHistory(providers.Name(), p.GetId())
	}
}

// emptyProvider removes the secret of a provider, the links and invitations to it and the
// sessions that were opened by it, and returns the tags of those.
func emptyProvider(tx *store.Tx, p *pb.OutsideProvider) (tags []string) {
	providerSecrets.Delete(tx, p.GetId())
	for l := range linkBySubject.Scan(tx, linkBySubject.Range(p.GetId())) {
		links.Delete(tx, l.GetId())
	}
	for i := range outsideInvitations.Scan(tx, outsideInvitations.Range().From(p.GetId()+"/").To(p.GetId()+"0")) { // "0" follows "/"
		outsideInvitations.Delete(tx, i.GetId())
	}
	return endProviderSessions(tx, p.GetId(), "")
}

// endProviderSessions ends the sessions that were opened by a provider, of one person if
// one is named, and returns their tags.
func endProviderSessions(tx *store.Tx, provider, user string) (tags []string) {
	for session := range sessionsByProvider.Scan(tx, sessionsByProvider.Range(provider)) {
		if user != "" && session.GetUserId() != user {
			continue
		}
		tags = append(append(tags, sessionTag(session.GetId())), dependents(tx, session.GetId())...)
		endSession(tx, session.GetId())
	}
	return tags
}

// eraseLinks erases what outside providers know a person by, at those of one organization
// if one is named.
func eraseLinks(tx *store.Tx, user, organization string) {
	for l := range linksByUser.Scan(tx, linksByUser.Range(user)) {
		if organization == "" || l.GetOrganizationId() == organization {
			links.Delete(tx, l.GetId())
			tx.EraseHistory(links.Name(), l.GetId())
		}
	}
	for i := range invitationsByUser.Scan(tx, invitationsByUser.Range(user)) {
		if organization == "" || i.GetOrganizationId() == organization {
			outsideInvitations.Delete(tx, i.GetId())
		}
	}
}
