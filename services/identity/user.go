package identity

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/customfield"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// CreateUser implements pb.UserServiceServer.
//
// SECURITY: whether the address is known elsewhere in the suite changes neither the
// answer nor the work: permissions is asked and the password hashed in any case, and
// the name and the times of the user are this organization's own.
func (s *service) CreateUser(ctx context.Context, req *pb.CreateUserRequest) (*pb.CreateUserResponse, error) {
	email, err := newEmail("email", req.GetEmail())
	if err != nil {
		return nil, err
	}
	newcomer := &pb.Profile{Id: s.newPersonID(), Email: email, DisplayName: req.GetDisplayName()}
	fresh, err := s.firstPassword(ctx, newcomer, req.GetInitialPassword())
	if err != nil {
		return nil, err
	}
	who, err := read(ctx, s, func(tx *store.Tx) (*pb.Profile, error) { return personOr(tx, newcomer), nil })
	if err != nil {
		return nil, err
	}
	if err := s.checkWithin(ctx, who.GetId()); err != nil {
		return nil, err
	}
	organization := authz.Caller(ctx).Organization
	if err := s.forgetFormer(ctx, organization, who.GetId(), req.GetValidateOnly()); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.CreateUserResponse, error) {
		if personOr(tx, newcomer).GetId() != who.GetId() {
			return nil, fault.RaceLost("user", email)
		}
		if who == newcomer {
			if err := putPerson(tx, newcomer, fresh); err != nil {
				return nil, err
			}
		}
		if err := customfield.Check("custom_values", fieldsOf(tx, organization, ofUser), nil, req.GetCustomValues()); err != nil {
			return nil, err
		}
		u, err := addMember(tx, organization, who, req.GetDisplayName(), req.GetCustomValues())
		if err != nil {
			return nil, err
		}
		tx.Emit(&pb.UserAdded{OrganizationId: organization, UserId: u.GetId()})
		return &pb.CreateUserResponse{User: shown(ctx, u)}, nil
	})
}

// firstPassword returns what proves somebody new, or nil without a password.
func (s *service) firstPassword(ctx context.Context, newcomer *pb.Profile, password string) (*identitystorepb.Credential, error) {
	if password == "" {
		return nil, nil
	}
	organization := authz.Caller(ctx).Organization
	_, err := read(ctx, s, func(tx *store.Tx) (any, error) {
		least := leastLength(tx, newcomer.GetId(), organization)
		return nil, checkPassword("initial_password", password, least, namesAround(tx, newcomer, organization)...)
	})
	if err != nil {
		return nil, err
	}
	phc, err := s.hasher.hash(ctx, password)
	return &identitystorepb.Credential{PasswordHash: phc, Short: isShort(password)}, err
}

// forgetFormer has permissions forget what somebody could do who is no member now.
// SECURITY: whoever was a member before must not get back what whoever admits him
// now could not give.
func (s *service) forgetFormer(ctx context.Context, organization, person string, validateOnly bool) error {
	isMember, err := read(ctx, s, func(tx *store.Tx) (bool, error) {
		_, err := member(tx, organization, person)
		return err == nil, tx.Failed()
	})
	if err != nil || isMember || validateOnly {
		return err
	}
	_, err = s.grants.ForgetUser(inTenant(ctx, organization), &permissionspb.ForgetUserRequest{UserId: person})
	if err != nil {
		return unanswered(ctx, "permissions", "forget a former member", err)
	}
	return nil
}

// personOr returns the person who has the newcomer's address, or else the newcomer.
func personOr(tx *store.Tx, newcomer *pb.Profile) *pb.Profile {
	if known, ok := profileByEmail.First(tx, newcomer.GetEmail()); ok {
		return known
	}
	return newcomer
}

// putPerson keeps somebody new. Without a credential the person has no password.
func putPerson(tx *store.Tx, p *pb.Profile, c *identitystorepb.Credential) error {
	if err := profiles.Put(tx, p); err != nil || c == nil {
		return err
	}
	c.UserId, c.PasswordTime = p.GetId(), timestamppb.New(tx.Now())
	return credentials.Put(tx, c)
}

// addMember makes a person an active member of an organization, in place of what is
// left of an earlier membership.
func addMember(tx *store.Tx, organization string, p *pb.Profile, name string, values []*typepb.CustomValue) (*pb.User, error) {
	if _, err := member(tx, organization, p.GetId()); err == nil {
		return nil, fault.Exists("user", "email")
	}
	u := &pb.User{
		Id: p.GetId(), OrganizationId: organization, Email: p.GetEmail(), DisplayName: name,
		State: active, CreateTime: timestamppb.New(tx.Now()), CustomValues: values,
	}
	forgettings.Delete(tx, userKey(organization, p.GetId()))
	return u, users.Put(tx, u)
}

// GetUser implements pb.UserServiceServer.
func (s *service) GetUser(ctx context.Context, req *pb.GetUserRequest) (*pb.GetUserResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetUserResponse, error) {
		u, err := member(tx, authz.Caller(ctx).Organization, req.GetId())
		if err != nil {
			return nil, err
		}
		return &pb.GetUserResponse{User: shown(ctx, u)}, nil
	})
}

// ListUsers implements pb.UserServiceServer.
func (s *service) ListUsers(ctx context.Context, req *pb.ListUsersRequest) (*pb.ListUsersResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListUsersResponse, error) {
		organization := authz.Caller(ctx).Organization
		filter, err := customfield.Parse(req.GetFilter(), &pb.User{}, fieldsNamed(tx, organization, req.GetFilter()))
		if err != nil {
			return nil, err
		}
		order, err := customfield.ParseOrder(req.GetOrderBy(), "display_name", fieldsNamed(tx, organization, req.GetOrderBy()))
		if err != nil {
			return nil, err
		}
		keep := func(u *pb.User) bool { return filter.Match(u) }
		sections := customfield.Sections(tx, filter, order, keep, usersOf(organization, req.GetShowDeleted()))
		page, next, err := store.PageInSections(tx, req, sections...)
		if err != nil {
			return nil, err
		}
		for _, u := range page {
			shown(ctx, u)
		}
		return &pb.ListUsersResponse{Users: page, NextPageToken: next}, nil
	})
}

// fieldsNamed are the fields of users, if a filter or an order may name one.
func fieldsNamed(tx *store.Tx, organization, text string) []*pb.CustomField {
	if !customfield.Named(text) {
		return nil
	}
	return fieldsOf(tx, organization, ofUser)
}

// usersOf returns how users of an organization are found, by name, and former ones if they are
// wanted.
func usersOf(organization string, former bool) customfield.Indexes[*pb.User] {
	both := func(of func(gone bool) store.Range[*pb.User]) []store.Range[*pb.User] {
		if former {
			return []store.Range[*pb.User]{of(false), of(true)}
		}
		return []store.Range[*pb.User]{of(false)}
	}
	return customfield.Indexes[*pb.User]{
		All: func() []store.Range[*pb.User] {
			return both(func(gone bool) store.Range[*pb.User] {
				if gone {
					return formerByName.Range(organization)
				}
				return usersByName.Range(organization)
			})
		},
		Having: func(field string) []store.Range[*pb.User] {
			return both(func(gone bool) store.Range[*pb.User] { return usersByField.Range(organization, gone, field) })
		},
		Valued: func(field string, part ...any) []store.Range[*pb.User] {
			return both(func(gone bool) store.Range[*pb.User] {
				return usersByValue.Range(append([]any{organization, gone, field}, part...)...)
			})
		},
	}
}

// UpdateUser implements pb.UserServiceServer.
func (s *service) UpdateUser(ctx context.Context, req *pb.UpdateUserRequest) (*pb.UpdateUserResponse, error) {
	id := req.GetUser().GetId()
	if err := s.checkMember(ctx, id); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateUserResponse, error) {
		u, err := s.change(ctx, tx, pb.UserService_UpdateUser_FullMethodName, id, req.GetUser().GetEtag())
		if err != nil {
			return nil, err
		}
		was := proto.CloneOf(u)
		if err := mask.Apply(u, req.GetUser(), req.GetUpdateMask(), "display_name", "custom_values"); err != nil {
			return nil, err
		}
		if err := checkName("user.display_name", u.GetDisplayName()); err != nil {
			return nil, err
		}
		if err := checkValues(tx, was, u); err != nil {
			return nil, err
		}
		if err := users.Put(tx, u); err != nil {
			return nil, err
		}
		return &pb.UpdateUserResponse{User: shown(ctx, u)}, nil
	})
}

// ofUser is the noun of the fields that users have.
const ofUser = pb.CustomFieldNoun_CUSTOM_FIELD_NOUN_USER

// checkValues says which custom value of a user will not do, if any has changed.
func checkValues(tx *store.Tx, was, is *pb.User) error {
	same := func(a, b *typepb.CustomValue) bool { return proto.Equal(a, b) }
	if slices.EqualFunc(was.GetCustomValues(), is.GetCustomValues(), same) {
		return nil
	}
	return customfield.Check("user.custom_values", fieldsOf(tx, is.GetOrganizationId(), ofUser), was.GetCustomValues(), is.GetCustomValues())
}

// checkMember returns nil if the caller may change a user of his organization at
// all: the id is one, and the user holds no more than he.
func (s *service) checkMember(ctx context.Context, id string) error {
	_, err := read(ctx, s, func(tx *store.Tx) (*pb.User, error) {
		return memberOrFormer(tx, authz.Caller(ctx).Organization, id)
	})
	if err != nil {
		return err
	}
	return s.checkWithin(ctx, id)
}

// memberOrFormer is member, but also finds who was one: a repeat of EndMembership has
// to come as far as the store, which knows its answer.
func memberOrFormer(tx *store.Tx, organization, id string) (*pb.User, error) {
	if u, ok := users.Get(tx, userKey(organization, id)); ok {
		return u, nil
	}
	return nil, fault.NotFound("user", id)
}

// change finds a user of the caller's organization who is to change, in the version
// that the caller read, and moves the user by the row of the method.
func (s *service) change(ctx context.Context, tx *store.Tx, method, id, etag string) (*pb.User, error) {
	u, err := member(tx, authz.Caller(ctx).Organization, id)
	if err != nil {
		return nil, err
	}
	if etag != "" && etag != u.GetEtag() {
		return nil, fault.Stale("user", id, u.GetEtag())
	}
	return u, userStates.Apply(ctx, method, u)
}

// DeactivateUser implements pb.UserServiceServer.
func (s *service) DeactivateUser(ctx context.Context, req *pb.DeactivateUserRequest) (*pb.DeactivateUserResponse, error) {
	var resp *pb.DeactivateUserResponse
	err := s.removeUser(ctx, req, func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.DeactivateUserResponse, error) {
			u, err := s.change(ctx, tx, pb.UserService_DeactivateUser_FullMethodName, req.GetId(), req.GetEtag())
			if err != nil {
				return nil, err
			}
			if err := shutUser(tx, u); err != nil {
				return nil, err
			}
			return &pb.DeactivateUserResponse{User: shown(ctx, u)}, nil
		})
		return err
	})
	return resp, err
}

// EndMembership implements pb.UserServiceServer.
func (s *service) EndMembership(ctx context.Context, req *pb.EndMembershipRequest) (*pb.EndMembershipResponse, error) {
	var resp *pb.EndMembershipResponse
	err := s.removeUser(ctx, req, func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.EndMembershipResponse, error) {
			u, err := s.change(ctx, tx, pb.UserService_EndMembership_FullMethodName, req.GetId(), req.GetEtag())
			if err != nil {
				return nil, err
			}
			u.DeleteTime, u.PurgeTime = endNow(tx)
			if err := shutUser(tx, u); err != nil {
				return nil, err
			}
			return &pb.EndMembershipResponse{User: shown(ctx, u)}, nil
		})
		return err
	})
	return resp, err
}

// removal is a request that shuts a user out.
type removal interface {
	GetId() string
	GetValidateOnly() bool
}

// removeUser runs a change that shuts a user out of the caller's organization, if the
// caller may and an owner stays, and returns when it holds everywhere.
func (s *service) removeUser(ctx context.Context, req removal, change func(context.Context) error) error {
	if err := s.checkMember(ctx, req.GetId()); err != nil {
		return err
	}
	if err := s.checkRemovable(ctx, req); err != nil {
		return err
	}
	if req.GetValidateOnly() {
		return change(ctx)
	}
	return s.shutOut(ctx, change, userTag(req.GetId()))
}

// shutUser keeps a user who may no longer come in, and ends the user's sessions and
// API keys in the organization, and the calendar's feed.
func shutUser(tx *store.Tx, u *pb.User) error {
	endSessions(tx, u.GetId(), func(session *pb.Session) bool {
		return session.GetOrganizationId() == u.GetOrganizationId()
	})
	endCalendar(tx, u.GetOrganizationId(), u.GetId())
	if err := revokeKeysOf(tx, u); err != nil {
		return err
	}
	return users.Put(tx, u)
}

// ReactivateUser implements pb.UserServiceServer.
func (s *service) ReactivateUser(ctx context.Context, req *pb.ReactivateUserRequest) (*pb.ReactivateUserResponse, error) {
	if err := s.checkMember(ctx, req.GetId()); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.ReactivateUserResponse, error) {
		u, err := s.change(ctx, tx, pb.UserService_ReactivateUser_FullMethodName, req.GetId(), req.GetEtag())
		if err != nil {
			return nil, err
		}
		if err := users.Put(tx, u); err != nil {
			return nil, err
		}
		return &pb.ReactivateUserResponse{User: shown(ctx, u)}, nil
	})
}

// UndeleteUser implements pb.UserServiceServer.
//
// SECURITY: as with ReactivateUser, nobody brings back whom he could not have let in.
func (s *service) UndeleteUser(ctx context.Context, req *pb.UndeleteUserRequest) (*pb.UndeleteUserResponse, error) {
	if err := s.checkMember(ctx, req.GetId()); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UndeleteUserResponse, error) {
		u, err := memberOrFormer(tx, authz.Caller(ctx).Organization, req.GetId())
		if err != nil {
			return nil, err
		}
		if purgeDue(tx, u) {
			return nil, fault.NotFound("user", req.GetId())
		}
		if err := users.Match(u, req.GetEtag()); err != nil {
			return nil, err
		}
		if err := formerStates.Apply(ctx, pb.UserService_UndeleteUser_FullMethodName, u); err != nil {
			return nil, err
		}
		u.DeleteTime, u.PurgeTime = nil, nil
		if err := users.Put(tx, u); err != nil {
			return nil, err
		}
		return &pb.UndeleteUserResponse{User: shown(ctx, u)}, nil
	})
}

// LookupMembers implements pb.UserServiceServer.
func (s *service) LookupMembers(ctx context.Context, req *pb.LookupMembersRequest) (*pb.LookupMembersResponse, error) {
	organization := store.OriginOf(ctx).Tenant
	return read(ctx, s, func(tx *store.Tx) (*pb.LookupMembersResponse, error) {
		resp := &pb.LookupMembersResponse{}
		add := func(id string, p *pb.Profile) {
			u, err := member(tx, organization, id)
			if err == nil && (p != nil || u.GetServiceAccount()) && (u.GetState() == active || req.GetIncludeDeactivated()) {
				resp.Members = append(resp.Members, &pb.Member{
					UserId: id, DisplayName: u.GetDisplayName(), Email: p.GetEmail(), State: u.GetState(), ServiceAccount: u.GetServiceAccount(),
				})
			}
		}
		for _, id := range req.GetUserIds() {
			p, _ := profiles.Get(tx, id)
			add(id, p)
		}
		for _, text := range req.GetEmails() {
			email, _ := normalEmail(text)
			if p, ok := profileByEmail.First(tx, email); ok && email != "" {
				add(p.GetId(), p)
			}
		}
		return resp, nil
	})
}
