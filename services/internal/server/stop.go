package server

import (
	"context"
	"errors"
	"time"
)

// Stop drains the process: it is out of health checks at once, takes no new calls,
// lets the running ones finish for as long as the configuration says, and then ends
// everything. It may be called more than once.
func (p *Process) Stop() {
	p.stopOnce.Do(func() {
		p.health.Shutdown()
		limit, cancel := context.WithTimeout(context.Background(), p.config.Drain)
		defer cancel()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			p.grpc.GracefulStop()
		}()
		p.waitForCalls(limit)
		close(p.draining) // ends the feeds of events, which never end by themselves
		for _, h := range p.leases.Hubs() {
			h.Close()
		}
		select {
		case <-stopped:
		case <-limit.Done():
			p.grpc.Stop()
			<-stopped
		}
		p.cancel(context.Canceled)
		p.release()
	})
}

// waitForCalls waits until no unary call runs, or the limit.
func (p *Process) waitForCalls(limit context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for p.edge.running.Load() > 0 {
		select {
		case <-tick.C:
		case <-limit.Done():
			return
		}
	}
}

// release closes what start opened, in the other order.
func (p *Process) release() {
	if p.grpc != nil {
		p.grpc.Stop()
	}
	if p.listener != nil {
		p.listener.Close()
	}
	if p.dialer != nil {
		p.dialer.close()
	}
	p.work.Wait()
	var errs []error
	for _, db := range p.stores {
		errs = append(errs, db.Close())
	}
	if err := errors.Join(errs...); err != nil {
		p.log.Error("close the stores", "error", err)
	}
	p.tracing.close()
}
