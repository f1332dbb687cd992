package identity_test

import (
	"strings"
	"testing"
	"time"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/permissions"
)

// A suite signs people in by another one, which is their provider.
func TestSignInByAnotherSuite(t *testing.T) {
	config := config(t)
	config.Issuer = "" // so that it is where the suite is
	there := start(t, config, time.Now, identity.Cheap, permissions.Part)
	there.ready()
	boss := there.claim()
	client := boss.register(with(site("openid", "email"), func(c *pb.OauthClient) { c.RedirectUris = []string{appBack} }))

	owner := owned(t)
	provider := owner.configure(company(func(p *pb.OutsideProvider) {
		p.Issuer, p.ClientId, p.TrustedForMfa = there.Issuer(), client.GetId(), true
	}), client.secret)
	browser := there.browser()
	goThere := func(who *caller, address string) *pb.OutsideAnswer {
		t.Helper()
		path, ok := strings.CutPrefix(address, there.Issuer())
		if !ok {
			t.Fatalf("sent to %s, want %s", address, there.Issuer())
		}
		back := browser.letIn(who, path)
		return &pb.OutsideAnswer{State: back.Get("state"), Code: back.Get("code"), Iss: back.Get("iss")}
	}
	ada := owner.hire("ada", "US")
	begun, err := ada.links().BeginOutsideLink(ada.ctx(), &pb.BeginOutsideLinkRequest{ProviderId: provider.GetId(), RedirectUri: appBack})
	mustNot(t, err)
	made, err := ada.links().CompleteOutsideLink(ada.ctx(), &pb.CompleteOutsideLinkRequest{
		Challenge: begun.GetChallenge(), Answer: goThere(boss, begun.GetAuthorizationUrl()),
	})
	mustNot(t, err)
	if made.GetLink().GetSubject() != boss.user.GetId() || made.GetLink().GetIssuer() != there.Issuer() || made.GetLink().GetEmail() != boss.email {
		t.Errorf("got %v", made.GetLink())
	}
	signIn := func(fresh bool) *pb.Session {
		t.Helper()
		begun, err := owner.outside().BeginOutsideSignIn(t.Context(), &pb.BeginOutsideSignInRequest{
			ProviderId: provider.GetId(), RedirectUri: appBack, Surface: pb.Surface_SURFACE_WEB, Fresh: fresh,
		})
		mustNot(t, err)
		resp, err := owner.outside().CompleteOutsideSignIn(t.Context(), &pb.CompleteOutsideSignInRequest{
			Challenge: begun.GetChallenge(), Answer: goThere(boss, begun.GetAuthorizationUrl()),
		})
		mustNot(t, err)
		if !owner.signedIn(resp.GetToken()) || resp.GetSession().GetUserId() != ada.user.GetId() {
			t.Errorf("got %v, want a session of ada", resp)
		}
		return resp.GetSession()
	}
	first := signIn(false)
	if fresh := signIn(true); !fresh.GetAuthTime().AsTime().After(first.GetAuthTime().AsTime().Add(-time.Second)) || fresh.GetStrength() != pb.Strength_STRENGTH_SINGLE_FACTOR {
		t.Errorf("with a fresh sign-in there: got %v after %v", fresh, first)
	}
}
