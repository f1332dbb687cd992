package store

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// Claim says whose the import of an organization is. Calls of import take a claim before all
// else, and say again and again that they are at work. A claim whose beats have stopped is dead,
// and another call takes its place with a higher number, which it leaves in each store before
// it writes there: from then on the call before it, which may only have been frozen, writes
// nothing more.
type Claim struct {
	Number int64 // grows; 0 is nobody's
	Beat   int64
}

// givenUp is the beat of a claim that nobody has any more.
const givenUp = -1

var (
	errTakenOver = fault.Refused("another call of import has taken the organization over from this one")
	errNoArrival = fault.Refused("nothing of the organization was put here")
)

// ClaimArrival gives the caller a claim to the arrival of an organization in the shared tenant,
// unless somebody has one that is not the dead one. Then it returns that, and false.
func (db *DB) ClaimArrival(ctx context.Context, organization string, dead Claim) (held Claim, ok bool, err error) {
	err = db.arriving(ctx, organization, func(noted *storepb.Arrival) error {
		held = Claim{noted.GetClaim(), noted.GetBeat()}
		if ok = held.Number == 0 || held.Beat == givenUp || held == dead; ok {
			held = Claim{Number: max(noted.GetClaim()+1, db.cfg.Now().UnixMicro())}
			noted.Claim, noted.Beat = held.Number, held.Beat
		}
		return nil
	})
	return held, ok, err
}

// BeatArrival says that the call of a claim is at work.
func (db *DB) BeatArrival(ctx context.Context, organization string, claim int64) error {
	return db.arriving(ctx, organization, func(noted *storepb.Arrival) error {
		if noted.GetClaim() != claim || noted.GetBeat() == givenUp {
			return errTakenOver
		}
		noted.Beat++
		return nil
	})
}

// ReleaseArrival gives a claim up, if it is still there. Where something was begun its number
// stays, since it is in the stores, too, and that of the next must be higher.
func (db *DB) ReleaseArrival(ctx context.Context, organization string, claim int64) error {
	return db.arriving(ctx, organization, func(noted *storepb.Arrival) error {
		switch {
		case noted.GetClaim() != claim:
		case len(noted.GetChecksum()) > 0:
			noted.Beat = givenUp
		default:
			noted.Claim, noted.Beat = 0, 0
		}
		return nil
	})
}

// arriving changes what is noted in the shared tenant of the arrival of an organization. The
// journal does not tell of it.
func (db *DB) arriving(ctx context.Context, organization string, f func(*storepb.Arrival) error) error {
	key := tenantRow(db.schema.shared, spaceArrival, organization)
	return db.system(ctx, func(s Snapshot) ([]Write, error) {
		noted := &storepb.Arrival{}
		if err := read(s, key, noted); err != nil {
			return nil, err
		}
		if err := f(noted); err != nil {
			return nil, err
		}
		if noted.GetClaim() == 0 && len(noted.GetChecksum()) == 0 {
			return []Write{{key, nil}}, nil
		}
		row, err := encode(noted)
		return []Write{{key, row}}, err
	})
}

// claimed is the engine of a DB for the arrival of a tenant: it writes only while no other
// call has left its claim there, and tells the DB where an outcome is unknown.
type claimed struct {
	Engine
	db     *DB
	tenant string
	claim  int64
}

// Update implements Engine.
func (c claimed) Update(ctx context.Context, f func(Snapshot) ([]Write, error)) error {
	err := c.Engine.Update(ctx, func(s Snapshot) ([]Write, error) {
		row, err := s.Get(arrivalKey(c.tenant))
		if err != nil {
			return nil, err
		}
		if row == nil {
			return nil, errNoArrival
		}
		noted := &storepb.Arrival{}
		if err := proto.Unmarshal(row, noted); err != nil {
			return nil, err
		}
		if noted.GetClaim() != c.claim {
			return nil, errTakenOver
		}
		return f(s)
	})
	if errors.Is(err, ErrUnknownOutcome) {
		c.db.fatal.Do(func() { c.db.cfg.Fatal(err) })
	}
	return err
}
