package identity

import (
	"context"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"

	"latchkey.dev/services/internal/store"
)

// wakeEraser has eraseForever look.
func (s *service) wakeEraser() {
	select {
	case s.erase <- struct{}{}:
	default:
	}
}

// eraseForever has the services remove what they keep of organizations and brands that were
// erased, until ctx ends. It is no part of upkeep, since it takes as long as there is much
// of a company, and others wait for upkeep.
func (s *service) eraseForever(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.erase:
			s.removeAll(ctx, "records of erased organizations", s.eraseEverywhere)
		}
	}
}

// eraseEverywhere has every service remove what it keeps, and counts the organizations and
// brands of which nothing is left then. Where a service cannot be reached, the rest waits.
func (s *service) eraseEverywhere(ctx context.Context) (n int, err error) {
	pending, err := read(ctx, s, func(tx *store.Tx) ([]*identitystorepb.Erasure, error) {
		return take(erasures.All(tx)), nil
	})
	if err != nil {
		return 0, err
	}
	for _, e := range pending {
		for name, keeper := range s.keepers {
			if err := eraseFrom(ctx, name, keeper, e.GetId()); err != nil {
				return n, err
			}
		}
		err := s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
			erasures.Delete(tx, e.GetId())
			return nil
		})
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func eraseFrom(ctx context.Context, service string, keeper operatorpb.OperatorServiceClient, tenant string) error {
	for more := true; more; {
		resp, err := keeper.EraseTenant(ctx, &operatorpb.EraseTenantRequest{Service: service, Tenant: tenant})
		if err != nil {
			return unanswered(ctx, service, "erase an organization", err)
		}
		more = resp.GetMore()
	}
	return nil
}
