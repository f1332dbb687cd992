package decision

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Server shows the logs of a process.
type Server struct {
	decisionpb.UnimplementedDecisionServiceServer
	logs map[string]*Log // by service
}

// NewServer returns a server of the logs, by the name of their service.
func NewServer(logs map[string]*Log) *Server { return &Server{logs: logs} }

func (s *Server) log(source string) (*Log, error) {
	l, ok := s.logs[source]
	if !ok {
		return nil, fault.NotFound("source of decisions", source)
	}
	return l, nil
}

// ListDecisions lists decisions.
func (s *Server) ListDecisions(ctx context.Context, req *decisionpb.ListDecisionsRequest) (*decisionpb.ListDecisionsResponse, error) {
	l, err := s.log(req.GetSource())
	if err != nil {
		return nil, err
	}
	if g := req.GetGrant(); g != "" {
		if _, ok := catalog.Grant(g); !ok {
			return nil, fault.Invalid("grant", "must be a grant, spelled exactly, and %q is none", g)
		}
	}
	if r := req.GetReason(); r != "" && faultpb.Reason_value["REASON_"+r] == 0 {
		return nil, fault.Invalid("reason", "must be the reason of an error, spelled as in it, and %q is none", r)
	}
	return store.Read(ctx, l.Store, func(tx *store.Tx) (*decisionpb.ListDecisionsResponse, error) {
		keep := func(d *decisionpb.Decision) bool { return wanted(req, d) }
		found, next, err := page(tx, req, instant(req.GetFromTime()), instant(req.GetToTime()), keep)
		return &decisionpb.ListDecisionsResponse{Decisions: found, NextPageToken: next}, err
	})
}

// ReadDecisions reads decisions for other services.
func (s *Server) ReadDecisions(ctx context.Context, req *decisionpb.ReadDecisionsRequest) (*decisionpb.ReadDecisionsResponse, error) {
	l, err := s.log(req.GetSource())
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, l.Store, func(tx *store.Tx) (*decisionpb.ReadDecisionsResponse, error) {
		keep := func(d *decisionpb.Decision) bool { return req.GetUserId() == "" || req.GetUserId() == d.GetUserId() }
		found, next, err := page(tx, req, instant(req.GetFromTime()), time.Time{}, keep)
		return &decisionpb.ReadDecisionsResponse{Decisions: found, NextPageToken: next}, err
	})
}

// page returns a page of the decisions that keep keeps.
func page(tx *store.Tx, req store.PageRequest, from, to time.Time, keep func(*decisionpb.Decision) bool) (found []*decisionpb.Decision, next string, err error) {
	next, err = store.PageNotes(tx, req, from, to, func(value []byte) (bool, error) {
		d := &decisionpb.Decision{}
		if err := proto.Unmarshal(value, d); err != nil || !keep(d) {
			return false, err
		}
		found = append(found, d)
		return true, nil
	})
	return found, next, err
}

func instant(t interface {
	IsValid() bool
	AsTime() time.Time
}) time.Time {
	if !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

func wanted(req *decisionpb.ListDecisionsRequest, d *decisionpb.Decision) bool {
	return (req.GetUserId() == "" || req.GetUserId() == d.GetUserId()) &&
		(req.GetActorId() == "" || req.GetActorId() == d.GetActorId()) &&
		(req.GetReason() == "" || req.GetReason() == d.GetReason()) &&
		(req.GetMethod() == "" || req.GetMethod() == d.GetMethod()) &&
		(req.GetOutcome() == 0 || req.GetOutcome() == d.GetOutcome()) &&
		(req.GetGrant() == "" || req.GetGrant() == d.GetMissingGrant() || slices.Contains(d.GetGrants(), req.GetGrant()))
}

// counted returns the log of a source when all that was counted until now is in its store,
// and the day that a question begins with.
func (s *Server) counted(ctx context.Context, req interface {
	GetSource() string
	GetFromDay() string
}) (l *Log, from int64, err error) {
	if l, err = s.log(req.GetSource()); err != nil {
		return nil, 0, err
	}
	if from, err = dayOf("from_day", req.GetFromDay(), store.DayOf(l.Now())-store.KeepDays); err != nil {
		return nil, 0, err
	}
	return l, from, l.Flush(ctx)
}

// ListUsage lists how often users used which grants.
func (s *Server) ListUsage(ctx context.Context, req *decisionpb.ListUsageRequest) (*decisionpb.ListUsageResponse, error) {
	l, from, err := s.counted(ctx, req)
	if err != nil {
		return nil, err
	}
	to, err := dayOf("to_day", req.GetToDay(), store.DayOf(l.Now())+1)
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, l.Store, func(tx *store.Tx) (*decisionpb.ListUsageResponse, error) {
		resp := &decisionpb.ListUsageResponse{}
		var err error
		resp.NextPageToken, err = store.PageUses(tx, req, req.GetUserId(), from, to, func(u store.Use) bool {
			resp.Usage = append(resp.Usage, usageOf(u))
			return true
		})
		return resp, err
	})
}

func usageOf(u store.Use) *decisionpb.Usage {
	return &decisionpb.Usage{
		UserId: u.User, Grant: u.Grant, Day: store.DayStart(u.Day).Format(time.DateOnly),
		Reads: u.Reads, Changes: u.Changes, Consulted: u.Consulted,
	}
}

func dayOf(field, text string, otherwise int64) (int64, error) {
	if text == "" {
		return otherwise, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return 0, fault.Invalid(field, "must be a day, as 2026-03-31, and %q is none", text)
	}
	return store.DayOf(t), nil
}

// SumUsage sums up how often some users used which grants. Each user is read by himself,
// so that no read is long.
func (s *Server) SumUsage(ctx context.Context, req *decisionpb.SumUsageRequest) (*decisionpb.SumUsageResponse, error) {
	l, from, err := s.counted(ctx, req)
	if err != nil {
		return nil, err
	}
	resp := &decisionpb.SumUsageResponse{}
	for _, user := range req.GetUserIds() {
		sums := map[string]store.Use{}
		err := l.Store.View(ctx, func(tx *store.Tx) error {
			for u := range tx.Uses(user, from, store.DayOf(tx.Now())+1) {
				sum := sums[u.Grant]
				u.Reads, u.Changes, u.Consulted = u.Reads+sum.Reads, u.Changes+sum.Changes, u.Consulted || sum.Consulted
				sums[u.Grant] = u
			}
			return tx.Failed()
		})
		if err != nil {
			return nil, err
		}
		at := len(resp.Usage)
		for _, u := range sums {
			resp.Usage = append(resp.Usage, usageOf(u))
		}
		slices.SortFunc(resp.Usage[at:], func(a, b *decisionpb.Usage) int { return cmp.Compare(a.GetGrant(), b.GetGrant()) })
	}
	return resp, nil
}

// GetLastUses tells when some users last used each grant.
func (s *Server) GetLastUses(ctx context.Context, req *decisionpb.GetLastUsesRequest) (*decisionpb.GetLastUsesResponse, error) {
	l, from, err := s.counted(ctx, req)
	if err != nil {
		return nil, err
	}
	last := map[string]int64{}
	if err := l.Store.LastUses(ctx, slices.Sorted(slices.Values(req.GetUserIds())), from, last); err != nil {
		return nil, err
	}
	resp := &decisionpb.GetLastUsesResponse{}
	for _, grant := range slices.Sorted(maps.Keys(last)) {
		resp.LastUses = append(resp.LastUses, &decisionpb.LastUse{Grant: grant, Day: store.DayStart(last[grant]).Format(time.DateOnly)})
	}
	return resp, nil
}
