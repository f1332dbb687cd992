package identity

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// freshFor is for how long a proof opens what is worth stealing a session for.
const freshFor = 10 * time.Minute

// BeginStepUp implements pb.SessionServiceServer.
func (s *service) BeginStepUp(ctx context.Context, _ *pb.BeginStepUpRequest) (*pb.BeginStepUpResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	factors, err := read(ctx, s, func(tx *store.Tx) ([]pb.Factor, error) {
		if factors := secondFactors(tx, caller.ID); len(factors) > 0 {
			return factors, nil
		}
		if len(linksOf(tx, caller.ID)) > 0 && !credentials.Has(tx, caller.ID) {
			return nil, fault.Refused("you have neither a password nor a second factor: sign in anew by your provider, and freshly there")
		}
		return []pb.Factor{factorPassword}, nil
	})
	if err != nil {
		return nil, err
	}
	c := s.newChallenge(caller.ID)
	c.OrganizationId, c.SessionId, c.Factors = caller.Organization, caller.SessionID, numbersOf(factors...)
	shown, err := s.shownChallenge(ctx, c)
	return &pb.BeginStepUpResponse{Challenge: shown}, err
}

// CheckStepUp implements pb.SessionServiceServer.
func (s *service) CheckStepUp(ctx context.Context, req *pb.CheckStepUpRequest) (*pb.CheckStepUpResponse, error) {
	who := subject{organization: store.OriginOf(ctx).Tenant, user: req.GetUserId(), session: req.GetSessionId()}
	return read(ctx, s, func(tx *store.Tx) (*pb.CheckStepUpResponse, error) {
		return &pb.CheckStepUpResponse{}, admit(tx, who, pathElsewhere)
	})
}

// authTime is when something was last proven in a session.
func authTime(session *pb.Session) time.Time {
	if session.GetAuthTime() != nil {
		return session.GetAuthTime().AsTime()
	}
	return session.GetCreateTime().AsTime()
}

// proofStale holds when the session that asks has proven nothing lately.
func proofStale(tx *store.Tx, s subject) bool {
	session, _ := sessions.Get(tx, s.session)
	return tx.Now().Sub(authTime(session)) >= freshFor
}

// sessionWeak holds when the session that asks has not shown the second factor that its
// user has.
func sessionWeak(tx *store.Tx, s subject) bool {
	session, _ := sessions.Get(tx, s.session)
	return session.GetStrength() != multiFactor && hasSecondFactor(tx, s.user)
}

func stepUpStale() error {
	return stepUpNeeded("prove once more who you are", "single_factor")
}

func stepUpWeak() error {
	return stepUpNeeded("prove your second factor first", "multi_factor")
}

// stepUpHow is what a program does about it.
const stepUpHow = ": call SessionService.BeginStepUp, answer its challenge, and repeat this call with the new token"

// stepUpNeeded says in the words of RFC 9470 what is missing.
func stepUpNeeded(need, strength string) error {
	return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_STEP_UP_NEEDED,
		need+stepUpHow,
		map[string]string{
			"error": "insufficient_user_authentication", "acr_values": strength,
			"max_age": strconv.Itoa(int(freshFor / time.Second)),
		})
}
