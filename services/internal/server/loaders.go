package server

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Sources of leases.
const (
	identity    = "identity"
	permissions = "permissions"
)

// Loaders ask for what a process must know of its callers. Each returns a fact and
// the tags under which its changes are published.
type Loaders struct {
	Session func(ctx context.Context, key string) (authz.Session, []string, error) // by authz.SessionKey
	Grants  func(ctx context.Context, key string) (authz.Grants, []string, error)  // by authz.GrantsKey
}

// peersLoaders ask the services identity and permissions.
func peersLoaders(conn func(service string) grpc.ClientConnInterface) Loaders {
	return Loaders{
		Session: func(ctx context.Context, key string) (authz.Session, []string, error) {
			return loadSession(ctx, identitypb.NewSessionServiceClient(conn(identity)), key)
		},
		Grants: func(ctx context.Context, key string) (authz.Grants, []string, error) {
			return loadGrants(ctx, permissionspb.NewGrantServiceClient(conn(permissions)), key)
		},
	}
}

func loadSession(ctx context.Context, c identitypb.SessionServiceClient, key string) (authz.Session, []string, error) {
	hash, organization := authz.CutSessionKey(key)
	resp, err := c.ResolveSession(ctx, &identitypb.ResolveSessionRequest{TokenHash: []byte(hash), OrganizationId: organization})
	if err != nil {
		return authz.Session{}, nil, refused(err)
	}
	s := resp.GetSession()
	session := authz.Session{
		ID: s.GetSessionId(), User: s.GetUserId(), Organization: s.GetOrganizationId(), Actor: s.GetActorId(),
		Surface: surfaces[s.GetSurface()], Expires: s.GetExpireTime().AsTime(), Limited: s.Scopes != nil,
		OnlyMethod: s.GetOnlyMethod(),
	}
	if session.Limited {
		if session.Scopes, err = catalog.SetFromBytes(s.GetScopes()); err != nil {
			return authz.Session{}, nil, fmt.Errorf("read scopes of session %s: %w", session.ID, err)
		}
	}
	tags := []string{"session:" + session.ID, "user:" + session.User, "organization:" + session.Organization}
	if session.Actor != "" {
		tags = append(tags, "session:"+s.GetActorSessionId(), "user:"+session.Actor)
	}
	return session, tags, nil
}

// tellable are the refusals of identity that callers are told as they are: of who is known,
// and may not use the app, or not now, or not in the organization that the call names.
var tellable = []faultpb.Reason{
	faultpb.Reason_REASON_OUTSIDE_WORK_HOURS, faultpb.Reason_REASON_SURFACE_CLOSED, faultpb.Reason_REASON_ORGANIZATION_UNNAMED, faultpb.Reason_REASON_ORGANIZATION_REFUSED,
}

// refused says what an error of ResolveSession means to the caller.
func refused(err error) error {
	if told := fault.Relay(err, tellable...); told != nil {
		return told
	}
	if status.Code(err) == codes.Unauthenticated {
		return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID,
			"the credentials are not valid, or not any more: sign in again", nil)
	}
	return unanswered(identity, err)
}

var surfaces = map[identitypb.Surface]authz.Surface{
	identitypb.Surface_SURFACE_WEB: authz.SurfaceWeb,
	identitypb.Surface_SURFACE_APP: authz.SurfaceApp,
	identitypb.Surface_SURFACE_API: authz.SurfaceAPI,
}

func loadGrants(ctx context.Context, c permissionspb.GrantServiceClient, key string) (authz.Grants, []string, error) {
	organization, user, _ := strings.Cut(key, "/")
	ctx = store.WithOrigin(ctx, store.Origin{Tenant: organization})
	resp, err := c.ResolveGrants(ctx, &permissionspb.ResolveGrantsRequest{UserId: user})
	if err != nil {
		return authz.Grants{}, nil, unanswered(permissions, err)
	}
	set, err := catalog.SetFromBytes(resp.GetGrants())
	if err != nil {
		return authz.Grants{}, nil, fmt.Errorf("read grants of %s: %w", key, err)
	}
	g := authz.Grants{Set: set, Values: values(resp.GetSettings()), Revision: resp.GetRevision()}
	if resp.GetExpireTime() != nil {
		g.Expires = resp.GetExpireTime().AsTime()
	}
	return g, []string{"organization:" + organization, "user:" + key}, nil
}

// values returns the settings that are not boolean as text, by name; those of a
// message with a dot, "login_restrictions.before_minutes".
func values(s *permissionspb.EffectiveSettings) map[string]string {
	found := map[string]string{}
	var add func(prefix string, m protoreflect.Message)
	add = func(prefix string, m protoreflect.Message) {
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			name := prefix + string(fd.Name())
			switch {
			case fd.Message() != nil:
				add(name+".", v.Message())
			case fd.Enum() != nil:
				found[name] = string(fd.Enum().Values().ByNumber(v.Enum()).Name())
			case fd.Kind() == protoreflect.Int32Kind:
				found[name] = strconv.FormatInt(v.Int(), 10)
			default:
				found[name] = v.String()
			}
			return true
		})
	}
	add("", s.ProtoReflect())
	return found
}

// unanswered says what it means that a source did not answer: nothing about the
// caller is known, so he is neither let in nor denied.
func unanswered(service string, err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		return fault.Unreachable(service)
	}
	return fmt.Errorf("ask %s who calls: %w", service, err)
}
