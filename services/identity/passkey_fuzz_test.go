package identity_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authenticator"
)

// FuzzPasskeyAnswers sends what no authenticator would answer. Only the one answer to each
// challenge is taken, and all others are refused as wrong proofs.
func FuzzPasskeyAnswers(f *testing.F) {
	ada := owned(f).withPasskey(authenticator.New(origin))
	ada = ada.signInAlone(ada.challenged())
	begun, err := ada.factors().BeginPasskey(ada.ctx(), &pb.BeginPasskeyRequest{})
	mustNot(f, err)
	made, err := authenticator.New(origin).Create(begun.GetCreationOptions())
	mustNot(f, err)
	challenge := ada.beginAlone(&pb.BeginPasskeySignInRequest{})
	shown, err := ada.passkeys.Get(challenge.GetPasskeyOptions())
	mustNot(f, err)
	for _, right := range []string{made, shown} {
		for _, seed := range []string{
			right, right[:len(right)/2], strings.ToUpper(right), right + right, "[" + right + "]",
			strings.ReplaceAll(right, "public-key", "password"), strings.ReplaceAll(right, "response", "Response"),
			strings.ReplaceAll(right, `"id":"`, `"id":"AAAA`), strings.ReplaceAll(right, "AAAA", "____"), strings.ReplaceAll(right, "o2Nm", "v2Nm"),
		} {
			f.Add(seed)
		}
	}
	for _, seed := range []string{"", "{}", "null", "0", `{"id":"AA","rawId":"AA","type":"public-key","response":{}}`,
		`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","attestationObject":"o2NmbXRkbm9uZWdhdHRTdG10oGhhdXRoRGF0YUA"}}`,
		`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"bnVsbA","authenticatorData":"AA","signature":"AA","userHandle":"AA"}}`,
		strings.Repeat(`{"response":`, 1000)} {
		f.Add(seed)
	}
	ctx := ada.ctx()
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "?")
		_, err := ada.factors().CreatePasskey(ctx, &pb.CreatePasskeyRequest{Setup: begun.GetSetup(), Response: text, Name: "fuzz", ValidateOnly: true})
		judge(t, "CreatePasskey", text, made, err)
		_, err = ada.sessions().AnswerChallenge(ctx, &pb.AnswerChallengeRequest{Challenge: challenge.GetSecret(), Proof: passkey(text), ValidateOnly: true})
		judge(t, "AnswerChallenge", text, shown, err)
	})
}

// judge complains of an answer that is taken and is not the right one, or is refused as what
// it is not. JSON can be written otherwise and say the same.
func judge(t *testing.T, what, text, right string, err error) {
	t.Helper()
	switch code := status.Code(err); code {
	case codes.Unauthenticated, codes.InvalidArgument:
		if text == right {
			t.Errorf("%s refuses the right answer: %v", what, err)
		}
	case codes.OK:
		if !strings.Contains(text, "public-key") {
			t.Errorf("%s takes %q", what, text)
		}
	default:
		t.Errorf("%s of %q: got %v", what, text, err)
	}
}
