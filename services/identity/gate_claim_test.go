package identity_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"latchkey.dev/services/internal/servertest"
)

// The suite is claimed once, and with the code alone.
func TestGateOfClaim(t *testing.T) {
	s := newSuite(t, time.Now)
	wrong := claimRequest()
	wrong.Code = "a code that the operator did not choose"
	for _, when := range []string{"at once", "after a restart"} {
		_, err := s.bootstrap().ClaimOwnership(t.Context(), wrong)
		check(t, when+", one-time code wrong", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
		s = s.again()
	}
	s.claim()
	for _, when := range []string{"at once", "after a restart"} {
		again := claimRequest()
		again.RequestId = servertest.UUID(7)
		_, err := s.bootstrap().ClaimOwnership(t.Context(), again)
		check(t, when+", suite owned", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
		s = s.again()
	}
}
