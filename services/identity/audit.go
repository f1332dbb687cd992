package identity

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// tellEvery is how often at most the journal is told of wrong proofs that one counter
// counts, so that guessing fills no disk. There are as many counters as accounts and
// places (sources) for each.
const tellEvery = 10 * time.Minute

// failure is a proof that was wrong.
type failure struct {
	user          string
	organizations []string // that are told
	factor        pb.Factor
	from          place
}

// failure is a wrong password of a sign-in. The organization that was named is told, if the
// person may be in it; if none was, all that she may be in are.
func (p person) failure() failure {
	f := failure{user: p.profile.GetId(), factor: factorPassword, from: p.from}
	if p.member {
		f.organizations = append(f.organizations, p.named)
	}
	for _, o := range p.choices {
		f.organizations = append(f.organizations, o.GetId())
	}
	return f
}

// tellFailure tells the journal of a wrong proof that was counted, unless it was told of one
// lately, and returns what the caller is told.
//
// SECURITY: of an address that nobody has the same is written, but for the event.
func (s *service) tellFailure(ctx context.Context, c counter, f failure, refusal error) error {
	due, err := read(ctx, s, func(tx *store.Tx) (bool, error) {
		kept, ok := failures.Get(tx, c.id)
		return ok && c.due(tx, kept), nil
	})
	if err != nil || !due {
		return errors.Join(err, refusal)
	}
	err = s.db.Update(inDirectory(context.WithoutCancel(ctx)), func(tx *store.Tx) error {
		kept, ok := failures.Get(tx, c.id)
		if !ok || !c.due(tx, kept) {
			return nil
		}
		for _, organization := range f.organizations {
			tx.Involve(organization)
			tx.Emit(&pb.SignInFailed{
				OrganizationId: organization, UserId: f.user, Factor: f.factor, InARow: kept.GetCount(), UntilTime: kept.GetUntilTime(),
				Locked: int(kept.GetCount()) >= c.most, Address: f.from.address, UserAgent: f.from.userAgent,
			})
		}
		kept.ToldTime = timestamppb.New(tx.Now())
		return failures.Put(tx, kept)
	})
	if err != nil {
		return err
	}
	return refusal
}

// due holds when the journal is to be told of what is counted.
func (c counter) due(tx *store.Tx, kept *identitystorepb.Failures) bool {
	return kept.GetToldTime() == nil || tx.Now().Sub(kept.GetToldTime().AsTime()) >= tellEvery || int(kept.GetCount()) >= c.most
}

// tellWrongProof is tellFailure for the answer to a challenge, if err says that it was wrong.
func (s *service) tellWrongProof(ctx context.Context, c *identitystorepb.Challenge, factor pb.Factor, err error) error {
	wrong, ok := errors.AsType[*fault.Error](err)
	if !ok || wrong.Reason != faultpb.Reason_REASON_PROOF_WRONG {
		return err
	}
	if factor == factorPasskey {
		return s.tellWrongPasskey(ctx, c, err)
	}
	user := c.GetUserId()
	counted := map[pb.Factor]counter{
		factorPassword: sessionFailures(user), factorTOTP: totpGuesses(c), factorRecovery: recoveryFailures(user),
	}[factor]
	if counted.id == "" {
		return err
	}
	f := failure{user: user, organizations: []string{c.GetOrganizationId()}, factor: factor, from: s.placeOf(ctx)}
	return s.tellFailure(ctx, counted, f, err)
}

// tellWrongPasskey counts the wrong answer of a passkey and tells of it. Whoever signs in by
// nothing else says himself who he is: then those organizations are told that the person
// may be in.
//
// SECURITY: of somebody whom nobody knows the same is written, but for the event.
func (s *service) tellWrongPasskey(ctx context.Context, c *identitystorepb.Challenge, refusal error) error {
	user := c.GetUserId()
	if user == "" {
		return refusal // it was no answer at all
	}
	account := user
	f := failure{user: user, organizations: []string{c.GetOrganizationId()}, from: s.placeOf(ctx)}
	if alone(c) {
		found, err := read(ctx, s, func(tx *store.Tx) (person, error) {
			p := person{profile: &pb.Profile{Id: user}, named: c.GetOrganizationId(), from: f.from}
			if !profiles.Has(tx, user) {
				account = s.unknownAccount(user)
			}
			return findMemberships(tx, answerer(c, factorPasskey), p), nil
		})
		if err != nil {
			return errors.Join(err, refusal)
		}
		f = found.failure()
	}
	f.factor = factorPasskey
	if err := s.countFailure(ctx, passkeyFailures(account)); err != nil {
		return errors.Join(err, refusal)
	}
	return s.tellFailure(ctx, passkeyFailures(account), f, refusal)
}

// tellFactorAdded tells each organization of a person of another way in that she has.
func tellFactorAdded(tx *store.Tx, user string, factor pb.Factor) {
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(user)) {
		tx.Involve(u.GetOrganizationId())
		tx.Emit(&pb.FactorAdded{OrganizationId: u.GetOrganizationId(), UserId: user, Factor: factor})
	}
}

// tellCloned tells each organization of a person that there are two of a passkey of hers.
func tellCloned(tx *store.Tx, found *cloned, from place) {
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(found.user)) {
		tx.Involve(u.GetOrganizationId())
		tx.Emit(&pb.PasskeyCloned{
			OrganizationId: u.GetOrganizationId(), UserId: found.user, PasskeyId: found.passkey, Address: from.address, UserAgent: from.userAgent,
		})
	}
}

// tellFactorRemoved is tellFactorAdded for one that she has removed.
func tellFactorRemoved(tx *store.Tx, user string, factor pb.Factor) {
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(user)) {
		tx.Involve(u.GetOrganizationId())
		tx.Emit(&pb.FactorRemoved{OrganizationId: u.GetOrganizationId(), UserId: user, Factor: factor})
	}
}

// tellReuse tells the journal, with its end, why a session ends.
func tellReuse(tx *store.Tx, who subject, from place) {
	tx.Involve(who.organization)
	tx.Emit(&pb.RefreshTokenReused{
		OrganizationId: who.organization, UserId: who.user, SessionId: who.session, Address: from.address, UserAgent: from.userAgent,
	})
}
