package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"
)

// A call of import says each beatEvery that it is at work, and is taken for dead when it has
// not for deadAfter.
const (
	beatEvery = time.Second
	deadAfter = 8 * time.Second
)

var errAtWork = errors.New("another call of import is bringing the organization at the moment: wait until it has ended, or stop it and call import again")

// claimed does something while the import of the organization is this call's, and stops it
// where another call has taken the import over.
func (im *importing) claimed(ctx context.Context, do func(context.Context) error) error {
	if err := im.claim(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { im.beat(ctx, cancel) })
	err := do(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	cancel(nil)
	beats.Wait()
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer stop()
	if _, releaseErr := im.ask(ctx, operatorpb.ImportStep_IMPORT_STEP_RELEASE, 0); err == nil {
		err = releaseErr
	}
	return err
}

// claim makes the import this call's. Where another one has it, it waits until that one has
// given a sign of life or is dead.
func (im *importing) claim(ctx context.Context) error {
	resp, err := im.ask(ctx, operatorpb.ImportStep_IMPORT_STEP_CLAIM, 0)
	if err != nil {
		return err
	}
	first := resp
	if !resp.GetClaimed() && !im.alone {
		im.in.note("another call of import has begun: looking whether it is at work")
	}
	for end := time.Now().Add(deadAfter); !resp.GetClaimed(); {
		if im.alone || time.Now().After(end) {
			im.begin.Claim = first.GetClaim() // the dead one
		} else {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(beatEvery / 2):
			}
		}
		if resp, err = im.ask(ctx, operatorpb.ImportStep_IMPORT_STEP_CLAIM, first.GetBeat()); err != nil {
			return err
		}
		if !resp.GetClaimed() && (resp.GetClaim() != first.GetClaim() || resp.GetBeat() != first.GetBeat()) {
			return errAtWork
		}
	}
	im.begin.Claim = resp.GetClaim()
	return nil
}

// beat says that this call is at work, until that is over or another call has taken over.
func (im *importing) beat(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := im.ask(ctx, operatorpb.ImportStep_IMPORT_STEP_BEAT, 0)
		if status.Code(err) == codes.FailedPrecondition {
			stop(err)
			return
		}
	}
}

// ask does a step of a claim where the people are kept.
func (im *importing) ask(ctx context.Context, step operatorpb.ImportStep, beat int64) (resp *operatorpb.ImportOrganizationResponse, err error) {
	service := im.directory()
	b := &operatorpb.ImportBegin{
		Service: service, Step: step, Organization: im.begin.GetOrganization(), Checksum: im.begin.GetChecksum(),
		Claim: im.begin.GetClaim(), Beat: beat,
	}
	if im.local.stores[service] != nil {
		resp, err = im.local.do(ctx, b, nil, nil)
	} else {
		for _, o := range im.stores.all {
			if o.service == service {
				resp, err = sendStep(ctx, o.remote, b, nil)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", service, err)
	}
	return resp, nil
}
