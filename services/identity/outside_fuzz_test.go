package identity_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

// FuzzOutsideAnswers sends back what no provider would, and has the provider send ID tokens that
// are none of this sign-in. Nothing of it signs in, and all of it is refused as what it is. An
// empty part of an answer stands for the right one.
func FuzzOutsideAnswers(f *testing.F) {
	owner := owned(f)
	there := newFake(f)
	ada := owner.hire("ada", "US").linked(there, owner.configureFake(there), "ada there")
	claims := fmt.Appendf(nil, `{"iss":%q,"aud":"latchkey","sub":"ada there","nonce":"n","iat":%d,"exp":%d}`, there.URL, time.Now().Unix(), time.Now().Add(time.Hour).Unix())
	good := signed(f, jose.ES256, there.key, there.keyID, claims)
	head, rest, _ := strings.Cut(good, ".")
	body, sum, _ := strings.Cut(rest, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	for _, token := range []string{
		good, good[:len(good)/2], good + good, strings.ToUpper(good), head + "." + body + ".", none + "." + body + ".", none + "." + body + "." + sum,
		"", "..", "{}", "null", `{"payload":"` + body + `","protected":"` + head + `","signature":"` + sum + `"}`, `{"payload":"` + body + `","signatures":[]}`,
		signed(f, jose.HS256, []byte(fakeSecret), there.keyID, claims), signed(f, jose.ES256, there.key, "another", claims),
		signed(f, jose.ES256, there.key, there.keyID, []byte("null")), signed(f, jose.ES256, there.key, there.keyID, []byte(`{"iss":1}`)),
		signed(f, jose.ES256, there.key, there.keyID, []byte(`{"_claim_names":{"a":"b"}}`)), strings.Repeat("a.", 1000),
	} {
		f.Add("", "", "", token)
	}
	for _, part := range []string{"x", "\x00", "é", "%00", there.URL, strings.Repeat("x", 5000), "a b", "https://evil.example"} {
		f.Add(part, "", "", good)
		f.Add("", part, "", good)
		f.Add("", "", part, good)
	}
	f.Fuzz(func(t *testing.T, state, code, iss, token string) {
		there.change(func(f *fake) { f.t, f.sign = t, func([]byte) string { return token } })
		suite, ada := *ada.suite, *ada // a fuzz target has no use of f
		suite.t, ada.suite = t, &suite
		begun, err := ada.beginOutside(&pb.BeginOutsideSignInRequest{})
		mustNot(t, err)
		answer := there.answer("ada there", begun.GetAuthorizationUrl())
		for part, text := range map[*string]string{&answer.State: state, &answer.Code: code, &answer.Iss: iss} {
			if text != "" {
				*part = strings.ToValidUTF8(text, "?")
			}
		}
		_, err = ada.outside().CompleteOutsideSignIn(t.Context(), &pb.CompleteOutsideSignInRequest{Challenge: begun.GetChallenge(), Answer: answer})
		switch got := status.Code(err); got {
		case codes.Unauthenticated, codes.InvalidArgument:
		case codes.FailedPrecondition:
			if token != "" {
				t.Errorf("%q is refused as if there were none: %v", token, err)
			}
		default:
			t.Errorf("%q %q %q %q: got %v", state, code, iss, token, err)
		}
	})
}
