package servicerequest

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
)

// busy tells whether the cycle timer of the request runs.
func busy(r *pb.ServiceRequest) bool {
	switch r.GetState() {
	case requested, declined, accepted:
		return r.GetDeleteTime() == nil
	}
	return false
}

// turned returns the timer after it was started or stopped at a time. One that runs
// already, or stands already, is returned as it is. One that never ran is nil.
func turned(t *pb.CycleTimer, run bool, at time.Time) *pb.CycleTimer {
	if run == (t.GetRunningSince() != nil) {
		return t
	}
	next := &pb.CycleTimer{Elapsed: durationpb.New(cycleTime(t, at))}
	if run {
		next.RunningSince = timestamppb.New(at)
	}
	return next
}

// cycleTime returns what the timer has measured until a time. A clock that was set
// back takes nothing away.
func cycleTime(t *pb.CycleTimer, at time.Time) time.Duration {
	total := t.GetElapsed().AsDuration()
	if since := t.GetRunningSince(); since != nil {
		total += max(0, at.Sub(since.AsTime()))
	}
	return total
}
