package server

import (
	"context"
	"fmt"
	"path/filepath"

	"google.golang.org/grpc"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/decision"
)

// decisions are the logs of the parts that keep something.
type decisions struct {
	logs  map[string]*decision.Log // by part
	first *decision.Log            // keeps what was decided on reading the logs
	part  map[string]string        // by gRPC service, the part that registered it
}

// openDecisions opens the logs and offers to read them.
func (p *Process) openDecisions(ctx context.Context) error {
	folder, err := p.config.countsFolder()
	if err != nil {
		return err
	}
	p.decisions = decisions{logs: map[string]*decision.Log{}, part: map[string]string{}}
	for _, part := range p.parts {
		db, ok := p.stores[part.Name]
		if !ok {
			continue
		}
		c := decision.Config{Store: db, Now: p.now, NewID: p.ids.next, Log: p.log.With("service", part.Name)}
		if folder != "" {
			c.Counts = filepath.Join(folder, part.Name+".counts")
		}
		l, err := decision.Open(ctx, c)
		if err != nil {
			return fmt.Errorf("open the log of %s: %w", part.Name, err)
		}
		p.decisions.logs[part.Name] = l
		if p.decisions.first == nil {
			p.decisions.first = l
		}
		p.goWork(part.Name+": uses", l.Run)
	}
	decisionpb.RegisterDecisionServiceServer(p.grpc, decision.NewServer(p.decisions.logs))
	return nil
}

// of returns the log of a gRPC service, or nil.
func (d *decisions) of(service string) authz.Log {
	l := d.logs[d.part[service]]
	switch service {
	case decisionpb.DecisionService_ServiceDesc.ServiceName, journalpb.JournalService_ServiceDesc.ServiceName:
		l = d.first
	}
	if l == nil {
		return nil
	}
	return l
}

// registrar registers the services of one part.
type registrar struct {
	*servers
	decisions *decisions
	part      string
}

// RegisterService registers a service as the part's.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	r.decisions.part[desc.ServiceName] = r.part
	r.servers.RegisterService(desc, impl)
}
