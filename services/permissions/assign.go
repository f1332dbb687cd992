package permissions

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// SetUserRole gives a user a role.
func (s *service) SetUserRole(ctx context.Context, req *pb.SetUserRoleRequest) (*pb.SetUserRoleResponse, error) {
	if req.GetRegionalManager() && !takesRegional(req.GetRoleId()) {
		return nil, fault.Invalid("regional_manager", "goes only with the role PM or PM+")
	}
	active, err := s.ownersAnd(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	return change(ctx, s, userTag(ctx, req.GetUserId()), req, func(tx *store.Tx) (*pb.SetUserRoleResponse, error) {
		u, err := newLoader(tx).editUser(granterOf(ctx), req.GetUserId(), req.GetEtag(), active, setRole(req))
		return &pb.SetUserRoleResponse{UserAccess: u}, err
	})
}

func setRole(req *pb.SetUserRoleRequest) func(*editing) error {
	return func(e *editing) error {
		if id := req.GetRoleId(); id != "" && e.role(id).id == "" {
			return fault.NotFound("role", id)
		}
		e.user.RoleId, e.user.RegionalManager, e.user.ChangeReason = req.GetRoleId(), req.GetRegionalManager(), req.GetReason()
		return nil
	}
}

// SetUserGroup puts a user into a group, or takes him out.
func (s *service) SetUserGroup(ctx context.Context, req *pb.SetUserGroupRequest) (*pb.SetUserGroupResponse, error) {
	active, err := s.ownersAnd(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	l, err := s.linkForGroup(ctx, req.GetUserId(), req.GetGroupId())
	if err != nil {
		return nil, err
	}
	return change(ctx, s, userTag(ctx, req.GetUserId()), req, func(tx *store.Tx) (*pb.SetUserGroupResponse, error) {
		u, err := newLoader(tx).editUser(granterOf(ctx), req.GetUserId(), req.GetEtag(), active, setGroup(req, l))
		return &pb.SetUserGroupResponse{UserAccess: u}, err
	})
}

func setGroup(req *pb.SetUserGroupRequest, l link) func(*editing) error {
	return func(e *editing) error {
		if id := req.GetGroupId(); id != "" && e.team(id).id == "" {
			return fault.NotFound("group", id)
		}
		e.user.GroupId, e.user.ChangeReason = req.GetGroupId(), req.GetReason()
		l.note(e.user)
		return nil
	}
}

// link is what scheduling said about a user: the service agent that he is, or nothing.
type link string

// note notes a link. It never ends, so one that is known stays, whatever was said before it
// was made.
func (l link) note(u *pb.UserAccess) {
	if l != "" {
		u.ServiceAgentId = string(l)
	}
}

// linkForGroup asks for a user's link if the group sets anything that only agents have.
func (s *service) linkForGroup(ctx context.Context, user, group string) (link, error) {
	var sets bool
	err := s.db.View(ctx, func(tx *store.Tx) error {
		sets = newLoader(tx).team(group).settings.agentOnly() != ""
		return nil
	})
	if err != nil || !sets {
		return "", err
	}
	return s.agentOf(ctx, user)
}

// SetOverride grants or denies a user one key.
func (s *service) SetOverride(ctx context.Context, req *pb.SetOverrideRequest) (*pb.SetOverrideResponse, error) {
	key, err := findKey("key", req.GetKey())
	if err != nil {
		return nil, err
	}
	if t := req.GetExpireTime(); t != nil && t.CheckValid() != nil {
		return nil, fault.Invalid("expire_time", "must be a time of the years 1 to 9999")
	}
	active, err := s.ownersAnd(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	return change(ctx, s, userTag(ctx, req.GetUserId()), req, func(tx *store.Tx) (*pb.SetOverrideResponse, error) {
		u, err := newLoader(tx).editUser(granterOf(ctx), req.GetUserId(), req.GetEtag(), active, putOverride(req, key))
		return &pb.SetOverrideResponse{UserAccess: u}, err
	})
}

func putOverride(req *pb.SetOverrideRequest, key catalog.Key) func(*editing) error {
	return func(e *editing) error {
		if t := req.GetExpireTime(); t != nil && !t.AsTime().After(e.now) {
			return fault.Invalid("expire_time", "must be in the future")
		}
		var named catalog.Set
		named.Add(key.Bit())
		if err := e.by.names(named); err != nil {
			return err
		}
		e.user.ChangeReason = req.GetReason()
		setOverride(e.user, &pb.Override{
			Key: key.Name, Effect: req.GetEffect(), Reason: req.GetReason(), ExpireTime: req.GetExpireTime(),
			SetBy: e.by.caller, SetTime: timestamppb.New(e.now),
		})
		return nil
	}
}

// ClearOverride takes a user's override of one key away.
func (s *service) ClearOverride(ctx context.Context, req *pb.ClearOverrideRequest) (*pb.ClearOverrideResponse, error) {
	key, err := findKey("key", req.GetKey())
	if err != nil {
		return nil, err
	}
	active, err := s.ownersAnd(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	return change(ctx, s, userTag(ctx, req.GetUserId()), req, func(tx *store.Tx) (*pb.ClearOverrideResponse, error) {
		u, err := newLoader(tx).editUser(granterOf(ctx), req.GetUserId(), req.GetEtag(), active, dropOverride(req, key))
		return &pb.ClearOverrideResponse{UserAccess: u}, err
	})
}

func dropOverride(req *pb.ClearOverrideRequest, key catalog.Key) func(*editing) error {
	return func(e *editing) error {
		if overrideIn(e.user, key.Bit()) == nil {
			return nil
		}
		e.user.ChangeReason = req.GetReason()
		clearOverride(e.user, key.Name)
		return nil
	}
}

// UpdateUserSettings changes the masked settings of a user.
func (s *service) UpdateUserSettings(ctx context.Context, req *pb.UpdateUserSettingsRequest) (*pb.UpdateUserSettingsResponse, error) {
	active, l, err := s.mayPutSettings(ctx, req)
	if err != nil {
		return nil, err
	}
	return change(ctx, s, userTag(ctx, req.GetUserId()), req, func(tx *store.Tx) (*pb.UpdateUserSettingsResponse, error) {
		u, err := newLoader(tx).editUser(granterOf(ctx), req.GetUserId(), req.GetEtag(), active, putSettings(req, l))
		return &pb.UpdateUserSettingsResponse{UserAccess: u}, err
	})
}

// mayPutSettings does what goes before the transaction that changes settings.
func (s *service) mayPutSettings(ctx context.Context, req *pb.UpdateUserSettingsRequest) (active map[string]bool, l link, err error) {
	written := &pb.UserSettings{}
	if err := mask.Apply(written, req.GetSettings(), req.GetUpdateMask(), settingNames...); err != nil {
		return nil, "", err
	}
	if written.GetInvoiceApprover() == req.GetUserId() {
		return nil, "", fault.Invalid("settings.invoice_approver", "must be somebody else: nobody approves his own invoices")
	}
	active, err = s.ownersAnd(ctx, req.GetUserId(), written.GetInvoiceApprover())
	if err != nil {
		return nil, "", err
	}
	l, err = s.linkForSettings(ctx, req.GetUserId(), written)
	return active, l, err
}

func putSettings(req *pb.UpdateUserSettingsRequest, l link) func(*editing) error {
	return func(e *editing) error {
		if e.user.Settings == nil {
			e.user.Settings = &pb.UserSettings{}
		}
		l.note(e.user)
		e.user.ChangeReason = req.GetReason()
		return mask.Apply(e.user.Settings, req.GetSettings(), req.GetUpdateMask(), settingNames...)
	}
}

// linkForSettings asks for a user's link if anything is written that only agents have,
// and fails if he is none.
func (s *service) linkForSettings(ctx context.Context, user string, written *pb.UserSettings) (link, error) {
	setting := compileSettings(written).agentOnly()
	if setting == "" {
		return "", nil
	}
	agent, err := s.agentOf(ctx, user)
	if err == nil && agent == "" {
		err = noServiceAgent(setting)
	}
	return agent, err
}

func noServiceAgent(setting string) error {
	return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_NO_SERVICE_AGENT,
		"the setting "+setting+" exists only for a user who is linked to a service agent: link one first",
		map[string]string{"setting": setting})
}
