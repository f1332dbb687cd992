package identity

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	// maxLinks is how many links one person can have.
	maxLinks = 20
	// invitationLife is how long an invitation is good.
	invitationLife = 7 * day
)

// linkOf returns the link of an account, which is made now if its person was invited.
//
// SECURITY: an e-mail address never signs in by itself. It decides once, for somebody who can
// prove himself by nothing else yet and was invited to this provider, which is for that
// domain and has verified the address.
func (s *service) linkOf(ctx context.Context, p *pb.OutsideProvider, a *assertion) (*pb.OutsideLink, error) {
	link, err := read(ctx, s, func(tx *store.Tx) (*pb.OutsideLink, error) {
		l, _ := linkBySubject.First(tx, p.GetId(), a.subject)
		return l, nil
	})
	email, ok := normalEmail(a.email)
	switch {
	case err != nil || link != nil:
		return link, err
	case !ok || !a.verified:
		return nil, outsideFailed()
	}
	id := s.newID()
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		known, _ := profileByEmail.First(tx, email)
		invited, ok := outsideInvitations.Get(tx, invitationKey(p.GetId(), known.GetId()))
		now, there := providers.Get(tx, p.GetId())
		switch {
		case !ok || !invited.GetExpireTime().AsTime().After(tx.Now()), !there || !signsIn(now):
			return outsideFailed()
		case !slices.Contains(now.GetEmailDomains(), domainOf(email)), provesOtherwise(tx, known.GetId()):
			return outsideFailed()
		}
		link = newLink(tx, id, now, known.GetId(), a)
		link.Invited = true
		return keepLink(tx, now, link)
	})
	return link, err
}

func newLink(tx *store.Tx, id string, p *pb.OutsideProvider, user string, a *assertion) *pb.OutsideLink {
	l := &pb.OutsideLink{
		Id: id, CreateTime: timestamppb.New(tx.Now()), UserId: user, ProviderId: p.GetId(), Issuer: p.GetIssuer(), Subject: a.subject,
	}
	if p.GetOwner() != brandProvider {
		l.OrganizationId = p.GetOrganizationId()
	}
	l.Email, _ = emailOrNone("email", a.email)
	return l
}

// keepLink keeps a new link, for which no invitation is needed any more.
func keepLink(tx *store.Tx, p *pb.OutsideProvider, l *pb.OutsideLink) error {
	outsideInvitations.Delete(tx, invitationKey(p.GetId(), l.GetUserId()))
	for _, organization := range whereLinked(tx, p, l.GetUserId()) {
		tx.Involve(organization)
		tx.Emit(&pb.OutsideLinked{OrganizationId: organization, UserId: l.GetUserId(), ProviderId: p.GetId(), LinkId: l.GetId(), Invited: l.GetInvited()})
	}
	return links.Put(tx, l)
}

// removeLink removes a link, and with it the sessions of its person that its provider has
// opened, whose tags it returns.
func removeLink(tx *store.Tx, l *pb.OutsideLink) (tags []string) {
	p, _ := providers.Get(tx, l.GetProviderId())
	for _, organization := range whereLinked(tx, p, l.GetUserId()) {
		tx.Involve(organization)
		tx.Emit(&pb.OutsideUnlinked{OrganizationId: organization, UserId: l.GetUserId(), ProviderId: p.GetId(), LinkId: l.GetId()})
	}
	links.Delete(tx, l.GetId())
	return endProviderSessions(tx, p.GetId(), l.GetUserId())
}

// whereLinked returns the organizations of a person to which a provider signs in.
func whereLinked(tx *store.Tx, p *pb.OutsideProvider, user string) (in []string) {
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(user)) {
		if isFor(tx, p, u.GetOrganizationId()) {
			in = append(in, u.GetOrganizationId())
		}
	}
	return in
}

func linksOf(tx *store.Tx, user string) []*pb.OutsideLink {
	return slices.Collect(linksByUser.Scan(tx, linksByUser.Range(user)))
}

// provesOtherwise tells whether a person can prove who he is at all.
func provesOtherwise(tx *store.Tx, user string) bool {
	return credentials.Has(tx, user) || hasSecondFactor(tx, user) || len(linksOf(tx, user)) > 0
}

// linkable finds a provider that the caller may link himself with.
func linkable(tx *store.Tx, caller *authz.Principal, id string) (*pb.OutsideProvider, error) {
	p, err := nearProvider(tx, caller.Organization, id)
	switch {
	case err != nil:
		return nil, err
	case p.GetDeleteTime() != nil:
		return nil, fault.NotFound("outside_provider", id)
	case p.GetDisabled():
		return nil, fault.Refused("the provider is disabled")
	case addressForeign(tx, subject{provider: id, user: caller.ID}):
		return nil, fault.Refused("the provider is not for the domain of your e-mail address")
	case len(linksOf(tx, caller.ID)) >= maxLinks:
		return nil, fault.Limit(fmt.Sprintf("links of one person: %d", maxLinks), 0)
	}
	return p, nil
}

// BeginOutsideLink implements pb.OutsideLinkServiceServer.
func (s *service) BeginOutsideLink(ctx context.Context, req *pb.BeginOutsideLinkRequest) (*pb.BeginOutsideLinkResponse, error) {
	caller := authz.Caller(ctx)
	p, err := read(ctx, s, func(tx *store.Tx) (*pb.OutsideProvider, error) {
		if err := admit(tx, callerAsSubject(caller), pathLink); err != nil {
			return nil, err
		}
		return linkable(tx, caller, req.GetProviderId())
	})
	if err != nil {
		return nil, err
	}
	c := s.newChallenge(caller.ID)
	c.OrganizationId, c.SessionId = caller.Organization, caller.SessionID
	address, secret, err := s.goOutside(ctx, p, c, req.GetRedirectUri(), false)
	return &pb.BeginOutsideLinkResponse{AuthorizationUrl: address, Challenge: secret, ExpireTime: c.GetExpireTime()}, err
}

// CompleteOutsideLink implements pb.OutsideLinkServiceServer.
func (s *service) CompleteOutsideLink(ctx context.Context, req *pb.CompleteOutsideLinkRequest) (*pb.CompleteOutsideLinkResponse, error) {
	caller := authz.Caller(ctx)
	c, err := s.openJourney(req.GetChallenge())
	if err != nil {
		return nil, err
	}
	if c.GetSessionId() != caller.SessionID || c.GetUserId() != caller.ID {
		return nil, challengeOver()
	}
	p, a, err := s.comeBack(ctx, c, req.GetAnswer())
	if err != nil {
		return nil, err
	}
	resp, id := &pb.CompleteOutsideLinkResponse{}, s.newID()
	change := func(ctx context.Context) error {
		return s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
			if err := admit(tx, callerAsSubject(caller), pathLink); err != nil {
				return err
			}
			p, err := linkable(tx, caller, p.GetId())
			if err != nil {
				return err
			}
			if _, taken := linkBySubject.First(tx, p.GetId(), a.subject); taken {
				return fault.Exists("outside_link", "answer")
			}
			endSessions(tx, caller.ID, func(session *pb.Session) bool { return session.GetId() != caller.SessionID })
			resp.Link = newLink(tx, id, p, caller.ID, a)
			return keepLink(tx, p, resp.Link)
		})
	}
	return resp, s.shutOut(ctx, change, userTag(caller.ID))
}

// ListMyOutsideLinks implements pb.OutsideLinkServiceServer.
func (s *service) ListMyOutsideLinks(ctx context.Context, req *pb.ListMyOutsideLinksRequest) (*pb.ListMyOutsideLinksResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListMyOutsideLinksResponse, error) {
		page, next, err := store.Page(tx, req, nil, linksByUser.Range(authz.Caller(ctx).ID))
		return &pb.ListMyOutsideLinksResponse{Links: page, NextPageToken: next}, err
	})
}

// DeleteMyOutsideLink implements pb.OutsideLinkServiceServer.
func (s *service) DeleteMyOutsideLink(ctx context.Context, req *pb.DeleteMyOutsideLinkRequest) (*pb.DeleteMyOutsideLinkResponse, error) {
	caller := authz.Caller(ctx)
	return changeFactors(ctx, s, req, callerAsSubject(caller), pathLink, func(tx *store.Tx) (*pb.DeleteMyOutsideLinkResponse, error) {
		l, err := linkToRemove(tx, caller.ID, req.GetId(), req.GetEtag())
		if err != nil {
			return nil, err
		}
		removeLink(tx, l)
		if !credentials.Has(tx, caller.ID) && len(usablePasskeys(tx, caller.ID)) == 0 && len(linksOf(tx, caller.ID)) == 0 {
			return nil, fault.Refused("this is your last way in: set a password or a passkey first")
		}
		return &pb.DeleteMyOutsideLinkResponse{}, nil
	})
}

// linkToRemove finds a link of a person, in the version that the caller read.
func linkToRemove(tx *store.Tx, user, id, etag string) (*pb.OutsideLink, error) {
	l, ok := links.Get(tx, id)
	if !ok || l.GetUserId() != user {
		return nil, fault.NotFound("outside_link", id)
	}
	return l, links.Match(l, etag)
}

// ListUserOutsideLinks implements pb.OutsideLinkServiceServer.
func (s *service) ListUserOutsideLinks(ctx context.Context, req *pb.ListUserOutsideLinksRequest) (*pb.ListUserOutsideLinksResponse, error) {
	if err := s.checkMember(ctx, req.GetUserId()); err != nil {
		return nil, err
	}
	organization := authz.Caller(ctx).Organization
	return read(ctx, s, func(tx *store.Tx) (*pb.ListUserOutsideLinksResponse, error) {
		near := func(l *pb.OutsideLink) bool {
			_, err := nearProvider(tx, organization, l.GetProviderId())
			return err == nil
		}
		page, next, err := store.Page(tx, req, near, linksByUser.Range(req.GetUserId()))
		return &pb.ListUserOutsideLinksResponse{Links: page, NextPageToken: next}, err
	})
}

const sharedLink = "the link is not for this organization alone: only the person can remove it"

// DeleteUserOutsideLink implements pb.OutsideLinkServiceServer.
func (s *service) DeleteUserOutsideLink(ctx context.Context, req *pb.DeleteUserOutsideLinkRequest) (*pb.DeleteUserOutsideLinkResponse, error) {
	caller := authz.Caller(ctx)
	if err := s.checkMember(ctx, req.GetUserId()); err != nil {
		return nil, err
	}
	return doAndShutOut(ctx, s, req, func(tx *store.Tx) (*pb.DeleteUserOutsideLinkResponse, []string, error) {
		if err := admit(tx, callerAsSubject(caller), pathInvite); err != nil {
			return nil, nil, err
		}
		l, err := linkToRemove(tx, req.GetUserId(), req.GetId(), req.GetEtag())
		if err != nil {
			return nil, nil, err
		}
		if _, err := nearProvider(tx, caller.Organization, l.GetProviderId()); err != nil {
			return nil, nil, fault.NotFound("outside_link", req.GetId())
		}
		if l.GetOrganizationId() == "" {
			if err := onlyMember(tx, caller.Organization, req.GetUserId(), sharedLink); err != nil {
				return nil, nil, err
			}
		}
		return &pb.DeleteUserOutsideLinkResponse{}, removeLink(tx, l), nil
	})
}

// InviteToOutsideProvider implements pb.OutsideLinkServiceServer.
func (s *service) InviteToOutsideProvider(ctx context.Context, req *pb.InviteToOutsideProviderRequest) (*pb.InviteToOutsideProviderResponse, error) {
	caller, user := authz.Caller(ctx), req.GetUserId()
	if err := s.checkMember(ctx, user); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.InviteToOutsideProviderResponse, error) {
		if err := admit(tx, callerAsSubject(caller), pathInvite); err != nil {
			return nil, err
		}
		u, err := member(tx, caller.Organization, user)
		if err != nil {
			return nil, err
		}
		p, err := nearProvider(tx, caller.Organization, req.GetProviderId())
		switch {
		case err != nil:
			return nil, err
		case !signsIn(p):
			return nil, fault.Refused("the provider is disabled or deleted")
		case !slices.Contains(p.GetEmailDomains(), domainOf(u.GetEmail())):
			return nil, fault.Refused("the provider has to name the domain of the user's address among its email_domains: it is trusted with all of them")
		case provesOtherwise(tx, user):
			return nil, fault.Refused("the user can sign in already: let the person link the account")
		}
		i := &identitystorepb.OutsideInvitation{
			Id: invitationKey(p.GetId(), user), ProviderId: p.GetId(), UserId: user, OrganizationId: caller.Organization,
			ExpireTime: timestamppb.New(tx.Now().Add(invitationLife)),
		}
		tx.Involve(caller.Organization)
		tx.Emit(&pb.OutsideInvited{OrganizationId: caller.Organization, UserId: user, ProviderId: p.GetId()})
		return &pb.InviteToOutsideProviderResponse{ExpireTime: i.GetExpireTime()}, outsideInvitations.Put(tx, i)
	})
}
