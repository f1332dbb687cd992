package permissions

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/store"
)

// linkAgent notes that a user was made a service agent: from then on the settings exist for
// him that only service agents have, whichever layer says them.
func linkAgent(_ context.Context, tx *store.Tx, e *eventpb.WatchEventsResponse) error {
	made, err := agentMade(e)
	if err != nil {
		return err
	}
	u := newLoader(tx).user(made.GetUserId())
	if u.GetServiceAgentId() == made.GetServiceAgentId() {
		return nil // it was asked for already
	}
	u.ServiceAgentId, u.ChangeReason = made.GetServiceAgentId(), ""
	return accesses.Put(tx, u)
}

// announceLinks is change for what linkAgent does.
//
// SECURITY: it announces the links also where they could not be noted, because the outcome
// may be unknown: some settings take something away.
func (s *service) announceLinks(events []*eventpb.WatchEventsResponse, handle func() error) error {
	end := s.hub.Begin()
	defer end()
	var tags []string
	for _, e := range events {
		if made, err := agentMade(e); err == nil {
			tags = append(tags, userTagIn(e.GetTenant(), made.GetUserId()))
		}
	}
	err := handle()
	s.hub.Publish(tags...)
	return err
}

func agentMade(e *eventpb.WatchEventsResponse) (*schedulingpb.ServiceAgentCreated, error) {
	made := &schedulingpb.ServiceAgentCreated{}
	if err := proto.Unmarshal(e.GetPayload(), made); err != nil {
		return nil, fmt.Errorf("decode %s: %w", e.GetType(), err)
	}
	return made, nil
}
