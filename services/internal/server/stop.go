package server

import (
	"context"
	"errors"
	"sync"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"
	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"
)

// errStopped is why the background work of a process ends that was told to stop.
var errStopped = errors.New("stopped")

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
			web := make(chan struct{})
			go func() {
				defer close(web)
				p.http.drain(limit)
			}()
			p.grpc.public.GracefulStop()
			<-web
		}()
		p.edge.calls.wait(limit) // while they run, they may need leases, and other parts
		close(p.draining)        // ends the feeds of events
		p.leave(limit)           // ends the work of this process, which others then do
		p.closeHubs()            // and those of leases
		select {
		case <-stopped:
		case <-time.After(feedGrace):
			p.grpc.public.Stop()
			p.http.close()
			<-stopped
		}
		p.cancel(errStopped)
		p.release()
	})
}

// leave takes this process off the lists of replicas.
func (p *Process) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	var all sync.WaitGroup
	for _, r := range p.replicas {
		all.Go(func() { r.leave(ctx) })
	}
	all.Wait()
}

// leaveLimit is how long the database may take to note that a process leaves.
const leaveLimit = 5 * time.Second

// feedGrace is how long feeds may take to end in order, when they are told to.
const feedGrace = time.Second

// feeds are the streams that never end by themselves, and for which nobody waits.
var feeds = []string{
	leasepb.LeaseService_Watch_FullMethodName,
	eventpb.EventService_WatchEvents_FullMethodName,
	journalpb.JournalService_WatchJournal_FullMethodName,
	operatorpb.OperatorService_WatchTenants_FullMethodName,
	healthpb.Health_Watch_FullMethodName,
	reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}

func (p *Process) closeHubs() {
	for _, h := range p.hubs {
		h.Close()
	}
}

// release closes what start opened, in the other order, however far start came.
func (p *Process) release() {
	if p.grpc != nil {
		p.grpc.stop()
	}
	p.closeHubs()
	if p.listener != nil {
		p.listener.Close()
	}
	p.http.close()
	if p.dialer != nil {
		p.dialer.close()
	}
	p.work.Wait()
	if p.metrics != nil {
		p.metrics.listener.Close()
	}
	var errs []error
	for _, db := range p.stores {
		errs = append(errs, db.Close())
	}
	if err := errors.Join(errs...); err != nil {
		p.log.Error("close the stores", "error", err)
	}
	p.tracing.close()
}

// running counts calls, so that one can wait for the last.
type running struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n becomes 0; nil if nobody waits
}

func (r *running) begin() {
	r.mu.Lock()
	r.n++
	r.mu.Unlock()
}

func (r *running) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 && r.none != nil {
		close(r.none)
		r.none = nil
	}
}

// wait waits until no call runs, or the limit.
func (r *running) wait(limit context.Context) {
	r.mu.Lock()
	none := r.none
	if r.n > 0 && none == nil {
		none = make(chan struct{})
		r.none = none
	}
	idle := r.n == 0
	r.mu.Unlock()
	if idle {
		return
	}
	select {
	case <-none:
	case <-limit.Done():
	}
}
