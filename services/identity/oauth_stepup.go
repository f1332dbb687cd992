package identity

import (
	"net/http"
	"slices"

	"google.golang.org/grpc/metadata"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

// classes are what acr_values may name, the weakest first: each is worth as much as a session
// of that strength.
var classes = []string{"single_factor", "multi_factor"}

// wants is how much a session has to be worth for one of the classes that a client asks for
// (OpenID Connect Core 1.0 3.1.2.1, RFC 9470 4); 0 if it knows none of them.
func wants(asked []string) int {
	for i, class := range classes {
		if slices.Contains(asked, class) {
			return i + 1
		}
	}
	return 0
}

// stale tells whether the session of the browser is older than the client allows.
func (s *service) stale(a *authorization, who *pb.Session) bool {
	return a.maxAge == 0 || a.maxAge > 0 && s.now().Sub(authTime(who)) > a.maxAge
}

// weak tells whether it is worth less than the client asks for.
func weak(a *authorization, who *pb.Session) bool { return int(who.GetStrength()) < wants(a.classes) }

// askMore has a person prove more, or anew, as the client asks, and tells whether that was
// answered with a page. Of who has nothing to prove more with the client is told so, or it would
// ask for the same again and again.
func (s *service) askMore(w http.ResponseWriter, r *http.Request, a *authorization, who *pb.Session) (asked bool, err error) {
	if !s.stale(a, who) && !weak(a, who) {
		return false, nil
	}
	factors, err := read(r.Context(), s, func(tx *store.Tx) ([]pb.Factor, error) { return secondFactors(tx, who.GetUserId()), nil })
	switch {
	case err != nil:
		return false, err
	case len(factors) == 0 && weak(a, who):
		return false, a.refuse("unmet_authentication_requirements", "the person has no second factor")
	case slices.Contains(a.prompt, "none"):
		return false, a.refuse("login_required", "the person has not proven enough, or not lately enough")
	case len(factors) == 0:
		s.sendToSignIn(w, r, a)
		return true, nil
	}
	ctx := metadata.NewOutgoingContext(r.Context(), metadata.Pairs("authorization", "Bearer "+s.cookieOf(r, sessionCookie)))
	resp, err := pb.NewSessionServiceClient(s.public).BeginStepUp(ctx, &pb.BeginStepUpRequest{})
	if err != nil {
		return false, err
	}
	c := resp.GetChallenge()
	s.showChallenge(w, r, http.StatusOK, a.again(), challengeForm{
		Challenge: c.GetSecret(), Continue: a.again().String(), PasskeyOptions: s.passkeyOnPages(c.GetPasskeyOptions()),
	})
	return true, nil
}
