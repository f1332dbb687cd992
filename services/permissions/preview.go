package permissions

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// draft is a change that is to be previewed.
type draft struct {
	user, role, group string              // whom or what it is about; if none of them, the plan
	apply             func(*loader) error // makes it, with all that it is checked for
	organizations     []string            // in which; none if in the caller's alone
}

// dry has the store throw away what a transaction writes.
var dry = &pb.SetUserRoleRequest{ValidateOnly: true}

// PreviewChange tells what a change would do: it makes the change in a transaction that
// comes to nothing, and compares.
func (s *service) PreviewChange(ctx context.Context, req *pb.PreviewChangeRequest) (*pb.PreviewChangeResponse, error) {
	if err := authz.Permits(ctx, methodOf(req)); err != nil {
		return nil, err
	}
	d, err := s.draftOf(ctx, granterOf(ctx), req)
	if err != nil {
		return nil, err
	}
	if len(d.organizations) > 0 {
		return s.previewEverywhere(ctx, d, req)
	}
	return store.Do(ctx, s.db, dry, func(tx *store.Tx) (*pb.PreviewChangeResponse, error) { return d.preview(tx, req) })
}

// methodOf returns the method that would make the change.
func methodOf(req *pb.PreviewChangeRequest) string {
	switch req.GetChange().(type) {
	case *pb.PreviewChangeRequest_SetUserRole:
		return pb.AccessService_SetUserRole_FullMethodName
	case *pb.PreviewChangeRequest_SetUserGroup:
		return pb.AccessService_SetUserGroup_FullMethodName
	case *pb.PreviewChangeRequest_SetOverride:
		return pb.AccessService_SetOverride_FullMethodName
	case *pb.PreviewChangeRequest_ClearOverride:
		return pb.AccessService_ClearOverride_FullMethodName
	case *pb.PreviewChangeRequest_UpdateRole:
		return pb.RoleService_UpdateRole_FullMethodName
	case *pb.PreviewChangeRequest_UpdateBrandRole:
		return pb.BrandRoleService_UpdateBrandRole_FullMethodName
	case *pb.PreviewChangeRequest_UpdateGroup:
		return pb.GroupService_UpdateGroup_FullMethodName
	case *pb.PreviewChangeRequest_UpdateUserSettings:
		return pb.AccessService_UpdateUserSettings_FullMethodName
	case *pb.PreviewChangeRequest_EndOfMembership:
		return pb.AnalysisService_PreviewChange_FullMethodName // identity asks for no other key
	}
	return pb.PlanService_UpdateBillingPlan_FullMethodName
}

// preview makes the change and returns a page of what differs.
func (d *draft) preview(tx *store.Tx, req *pb.PreviewChangeRequest) (*pb.PreviewChangeResponse, error) {
	before := newLoader(tx)
	d.warm(before)
	was := before.access(before.user(d.user))
	if err := d.apply(newLoader(tx)); err != nil {
		return nil, err
	}
	after := newLoader(tx)
	resp := &pb.PreviewChangeResponse{Revision: tx.Revision() - 1}
	keep := func(u *pb.UserAccess) bool {
		if d.user == "" {
			was = before.access(u) // the change leaves the users' records as they are
		}
		diff := difference(u.GetId(), was, after.access(u), after)
		if diff != nil {
			resp.Differences = append(resp.Differences, diff)
		}
		return diff != nil
	}
	var err error
	_, resp.NextPageToken, err = store.Page(tx, req, keep, d.reach(after)...)
	return resp, err
}

// warm compiles what the change will replace.
func (d *draft) warm(l *loader) {
	switch {
	case d.group != "":
		l.team(d.group)
	case d.role != "":
		l.role(d.role)
		for g := range groupByRole.Scan(l.tx, groupByRole.Range(d.role)) {
			l.team(g.GetId())
		}
	}
}

// reach returns ranges in which all are whose access the change can change, each in the
// order of the ids.
func (d *draft) reach(l *loader) []store.Range[*pb.UserAccess] {
	switch {
	case d.user != "":
		return []store.Range[*pb.UserAccess]{accesses.Range().From(d.user).To(d.user + "\x00")}
	case d.group != "":
		return []store.Range[*pb.UserAccess]{accessByGroup.Range(d.group)}
	case d.role == "":
		return []store.Range[*pb.UserAccess]{accesses.Range()}
	}
	ranges := []store.Range[*pb.UserAccess]{accessByRole.Range(d.role)}
	for g := range groupByRole.Scan(l.tx, groupByRole.Range(d.role)) {
		ranges = append(ranges, accessByGroup.Range(g.GetId()))
	}
	return ranges
}

// difference returns what differs between two accesses of a user now, or nil.
func difference(user string, was, is *access, l *loader) *pb.AccessDifference {
	before, _ := was.grants(l.now)
	after, _ := is.grants(l.now)
	d := &pb.AccessDifference{UserId: user}
	if b, a := was.settings().effective(), is.settings().effective(); !proto.Equal(b, a) {
		d.SettingsBefore, d.SettingsAfter = b, a
	} else if before == after {
		return nil
	}
	d.Gained = keyNames(after.Without(before).Without(allFeatures))
	d.Lost = keyNames(before.Without(after).Without(allFeatures))
	for _, name := range askingMethods {
		switch could, can := methods[name].Permits(before), methods[name].Permits(after); {
		case can && !could:
			d.GainedMethods = append(d.GainedMethods, name)
		case could && !can:
			d.LostMethods = append(d.LostMethods, name)
		}
	}
	if d.SettingsAfter == nil && len(d.GetGained())+len(d.GetLost())+len(d.GetGainedMethods())+len(d.GetLostMethods()) == 0 {
		return nil // but for features, which are the plan's
	}
	return d
}

// draftOf does what the handler of the change does before its transaction.
func (s *service) draftOf(ctx context.Context, by granter, req *pb.PreviewChangeRequest) (*draft, error) {
	switch c := req.GetChange().(type) {
	case *pb.PreviewChangeRequest_UpdateRole:
		return s.roleDraft(ctx, by, c.UpdateRole)
	case *pb.PreviewChangeRequest_UpdateBrandRole:
		return s.brandDraft(ctx, by, c.UpdateBrandRole)
	case *pb.PreviewChangeRequest_UpdateGroup:
		return s.groupDraft(ctx, by, c.UpdateGroup)
	case *pb.PreviewChangeRequest_UpdateBillingPlan:
		return s.planDraft(ctx, by, c.UpdateBillingPlan)
	case *pb.PreviewChangeRequest_UpdateUserSettings:
		return s.settingsDraft(ctx, by, c.UpdateUserSettings)
	case *pb.PreviewChangeRequest_EndOfMembership:
		return s.leaveDraft(ctx, by, c.EndOfMembership.GetUserId())
	}
	user, etag, f, err := s.userDraft(ctx, req)
	if err != nil {
		return nil, err
	}
	active, err := s.ownersAnd(ctx, user)
	if err != nil {
		return nil, err
	}
	return &draft{user: user, apply: func(l *loader) error {
		_, err := l.editUser(by, user, etag, active, f)
		return err
	}}, nil
}

// userDraft returns the edit that a change of one user is.
func (s *service) userDraft(ctx context.Context, req *pb.PreviewChangeRequest) (user, etag string, f func(*editing) error, err error) {
	switch c := req.GetChange().(type) {
	case *pb.PreviewChangeRequest_SetUserRole:
		r := c.SetUserRole
		if r.GetRegionalManager() && !takesRegional(r.GetRoleId()) {
			err = fault.Invalid("set_user_role.regional_manager", "goes only with the role PM or PM+")
		}
		return r.GetUserId(), r.GetEtag(), setRole(r), err
	case *pb.PreviewChangeRequest_SetUserGroup:
		r := c.SetUserGroup
		link, err := s.linkForGroup(ctx, r.GetUserId(), r.GetGroupId())
		return r.GetUserId(), r.GetEtag(), setGroup(r, link), err
	case *pb.PreviewChangeRequest_SetOverride:
		r := c.SetOverride
		if t := r.GetExpireTime(); t != nil && t.CheckValid() != nil {
			return "", "", nil, fault.Invalid("set_override.expire_time", "must be a time of the years 1 to 9999")
		}
		key, err := findKey("set_override.key", r.GetKey())
		return r.GetUserId(), r.GetEtag(), putOverride(r, key), err
	}
	r := req.GetClearOverride()
	key, err := findKey("clear_override.key", r.GetKey())
	return r.GetUserId(), r.GetEtag(), dropOverride(r, key), err
}

func (s *service) roleDraft(ctx context.Context, by granter, req *pb.UpdateRoleRequest) (*draft, error) {
	wanted := proto.CloneOf(req.GetRole())
	keys, err := findKeys("update_role.role.keys", wanted.GetKeys())
	if err != nil {
		return nil, err
	}
	wanted.Keys = keyNames(keys)
	active, err := s.ownersAnd(ctx, wanted.GetSettings().GetInvoiceApprover())
	return &draft{role: wanted.GetId(), apply: func(l *loader) error {
		_, err := l.updateRole(by, wanted, req.GetUpdateMask(), active)
		return err
	}}, err
}

func (s *service) groupDraft(ctx context.Context, by granter, req *pb.UpdateGroupRequest) (*draft, error) {
	wanted := proto.CloneOf(req.GetGroup())
	if err := spell(wanted, "update_group.group.", wanted.GetGrants(), wanted.GetDenies()); err != nil {
		return nil, err
	}
	active, err := s.ownersAnd(ctx, wanted.GetSettings().GetInvoiceApprover())
	return &draft{group: wanted.GetId(), apply: func(l *loader) error {
		_, err := l.updateGroup(by, wanted, req.GetUpdateMask(), active)
		return err
	}}, err
}

func (s *service) settingsDraft(ctx context.Context, by granter, req *pb.UpdateUserSettingsRequest) (*draft, error) {
	active, l, err := s.mayPutSettings(ctx, req)
	return &draft{user: req.GetUserId(), apply: func(on *loader) error {
		_, err := on.editUser(by, req.GetUserId(), req.GetEtag(), active, putSettings(req, l))
		return err
	}}, err
}

// leaveDraft returns the end of a membership as a draft. It is checked as identity checks it.
func (s *service) leaveDraft(ctx context.Context, by granter, user string) (*draft, error) {
	active, err := s.ownersAnd(ctx, user)
	return &draft{user: user, apply: func(l *loader) error {
		a := l.access(l.user(user))
		if err := within(a.keys(l.now, l.plan), by.carries, "the user has %s, which you lack"); err != nil {
			return err
		}
		if a.owns(l.now) {
			if err := l.keepOwner(active, user); err != nil {
				return err
			}
		}
		return accesses.Put(l.tx, &pb.UserAccess{Id: user})
	}}, err
}

func (s *service) planDraft(ctx context.Context, by granter, req *pb.UpdateBillingPlanRequest) (*draft, error) {
	wanted := proto.CloneOf(req.GetPlan())
	var err error
	if wanted.Features, err = findFeatures(wanted.GetFeatures()); err != nil {
		return nil, err
	}
	allowed, err := s.allowedFeatures(ctx, by)
	return &draft{apply: func(l *loader) error {
		_, err := updatePlan(l.tx, wanted, req.GetUpdateMask(), allowed)
		return err
	}}, err
}
