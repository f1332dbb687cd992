package permissions

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/store"
)

// maxReplayPages is how many pages of decisions are read for one page that stays empty.
const maxReplayPages = 10

// replay is a page of a replay. The place where it goes on is a day, what is replayed,
// the number of the service, the number of the organization and the token of a page there.
type replay struct {
	*service
	ctx   context.Context
	draft *draft
	req   *pb.ReplayChangeRequest
	size  int

	from  string // day
	reads bool   // else calls
	at    int    // number of the service
	where int    // number of the organization
	inner string
	resp  *pb.ReplayChangeResponse
}

// ReplayChange tells which logged calls would have gone otherwise under a change.
func (s *service) ReplayChange(ctx context.Context, req *pb.ReplayChangeRequest) (*pb.ReplayChangeResponse, error) {
	if err := authz.Permits(ctx, methodOf(req.GetChange())); err != nil {
		return nil, err
	}
	d, err := s.draftOf(ctx, granterOf(ctx), req.GetChange())
	if err != nil {
		return nil, err
	}
	r := &replay{service: s, ctx: ctx, draft: d, req: req, resp: &pb.ReplayChangeResponse{}, from: s.firstDay(req)}
	if err := r.open(); err != nil {
		return nil, err
	}
	for range maxReplayPages {
		more, err := r.some()
		if err != nil {
			return nil, err
		}
		if !more {
			return r.resp, nil
		}
		if len(r.resp.GetCalls())+len(r.resp.GetReads()) > 0 {
			break
		}
	}
	return r.resp, r.seal()
}

// open goes to the place of the page.
func (r *replay) open() error {
	var place string
	err := r.db.View(r.ctx, func(tx *store.Tx) (err error) {
		if r.size, err = store.PageSize(r.req); err != nil {
			return err
		}
		place, err = tx.OpenCursor(r.req)
		return err
	})
	if err != nil {
		return err
	}
	if parts := strings.SplitN(place, " ", 5); len(parts) == 5 {
		r.from, r.reads, r.inner = parts[0], parts[1] == "reads", parts[4]
		for i, n := range []*int{&r.at, &r.where} {
			if *n, err = strconv.Atoi(parts[2+i]); err != nil {
				return fmt.Errorf("read the place of a page: %w", err)
			}
		}
	}
	from, err := time.Parse(time.DateOnly, r.from)
	if err != nil {
		return fmt.Errorf("read the day of a page: %w", err)
	}
	r.resp.FromTime = timestamppb.New(from)
	return nil
}

// seal notes where the next page begins.
func (r *replay) seal() error {
	what := "calls"
	if r.reads {
		what = "reads"
	}
	return r.db.View(r.ctx, func(tx *store.Tx) (err error) {
		r.resp.NextPageToken, err = tx.SealCursor(r.req, fmt.Sprintf("%s %s %d %d %s", r.from, what, r.at, r.where, r.inner))
		return err
	})
}

// some replays a piece, and reports whether there is more.
func (r *replay) some() (more bool, err error) {
	if r.reads {
		if r.inner, err = r.someReads(); err != nil || r.inner != "" {
			return true, err
		}
		r.where, r.reads, r.at = r.where+1, false, 0
		return r.where < len(r.draft.organizations), nil
	}
	if r.inner, err = r.someCalls(r.counts[r.at]); err != nil {
		return false, err
	}
	if r.inner == "" {
		r.at++
	}
	r.reads = r.at == len(r.counts)
	return true, nil
}

// in is the context of the organization that is looked at.
func (r *replay) in() context.Context {
	if len(r.draft.organizations) == 0 {
		return r.ctx
	}
	return elsewhere(r.ctx, r.draft.organizations[min(r.where, len(r.draft.organizations)-1)])
}

// someCalls replays a page of the decisions of one service, and returns the token of the
// next.
func (r *replay) someCalls(c counts) (next string, err error) {
	read, err := c.client.ReadDecisions(r.in(), &decisionpb.ReadDecisionsRequest{
		Source: c.service, UserId: r.draft.user, FromTime: r.resp.GetFromTime(), PageSize: int32(r.size), PageToken: r.inner,
	})
	if err != nil {
		return "", unavailable(c.service, err)
	}
	sides, err := r.sides(read.GetDecisions())
	if err != nil {
		return "", err
	}
	for _, d := range read.GetDecisions() {
		r.resp.CallsRead++
		m := methods[d.GetMethod()]
		if m == nil {
			r.resp.CallsUnknown++
			continue
		}
		side := sides[d.GetUserId()]
		if call := replayCall(m, d, side[0], side[1]); call != nil {
			call.Source = c.service
			r.resp.Calls = append(r.resp.Calls, call)
		}
	}
	return read.GetNextPageToken(), nil
}

// sides returns what the callers of some decisions hold now, and would under the change.
func (r *replay) sides(decisions []*decisionpb.Decision) (map[string][2]catalog.Set, error) {
	var sides map[string][2]catalog.Set
	_, err := store.Do(r.in(), r.db, dry, func(tx *store.Tx) (*pb.ReplayChangeResponse, error) {
		sides = map[string][2]catalog.Set{}
		before := newLoader(tx)
		for _, d := range decisions {
			if _, known := sides[d.GetUserId()]; !known && d.GetUserId() != "" {
				set, _ := before.access(before.user(d.GetUserId())).grants(before.now)
				sides[d.GetUserId()] = [2]catalog.Set{set}
			}
		}
		if err := r.draft.apply(newLoader(tx)); err != nil {
			return nil, err
		}
		after := newLoader(tx)
		for user, side := range sides {
			side[1], _ = after.access(after.user(user)).grants(after.now)
			sides[user] = side
		}
		return r.resp, nil
	})
	return sides, err
}

// someReads replays the reads of a page of the users to whom the change makes a
// difference, and returns the token of the next.
func (r *replay) someReads() (next string, err error) {
	preview := &pb.PreviewChangeRequest{Change: r.req.GetChange().GetChange(), PageSize: int32(min(r.size, maxAsked)), PageToken: r.inner}
	page, err := store.Do(r.in(), r.db, dry, func(tx *store.Tx) (*pb.PreviewChangeResponse, error) { return r.draft.preview(tx, preview) })
	if err != nil {
		return "", err
	}
	lost := map[string][]string{}
	var users []string
	for _, d := range page.GetDifferences() {
		if len(d.GetLost()) > 0 {
			users = append(users, d.GetUserId())
			lost[d.GetUserId()] = d.GetLost()
		}
	}
	if len(users) == 0 {
		return page.GetNextPageToken(), nil
	}
	for _, c := range r.counts {
		sums, err := c.client.SumUsage(r.in(), &decisionpb.SumUsageRequest{Source: c.service, UserIds: users, FromDay: r.from})
		if err != nil {
			return "", unavailable(c.service, err)
		}
		for _, u := range sums.GetUsage() {
			if u.GetReads() > 0 && slices.Contains(lost[u.GetUserId()], u.GetGrant()) {
				reads := replayReads(c.service, u)
				reads.OrganizationId = store.OriginOf(r.in()).Tenant
				r.resp.Reads = append(r.resp.Reads, reads)
			}
		}
	}
	return page.GetNextPageToken(), nil
}

// replayReads says what becomes of the reads that a grant let in which is taken away.
func replayReads(service string, u *decisionpb.Usage) *pb.ReplayedReads {
	reads := &pb.ReplayedReads{
		UserId: u.GetUserId(), Source: service, Grant: u.GetGrant(), Reads: u.GetReads(), LastDay: u.GetDay(),
		Certainty: pb.Certainty_CERTAINTY_WOULD,
	}
	// Of several grants that would do the first that was held was counted: another may
	// do now.
	if oneOfSeveral.Has(catalog.MustGrant(u.GetGrant())) {
		reads.Certainty, reads.Unlogged = pb.Certainty_CERTAINTY_MAY, []pb.Unlogged{pb.Unlogged_UNLOGGED_RECORD}
	}
	return reads
}

// oneOfSeveral is the grants that some method names beside others which would do.
var oneOfSeveral = func() (set catalog.Set) {
	for _, m := range methods {
		if m.Kind == authz.RuleAny {
			set = set.Union(m.Asks())
		}
	}
	return set
}()

// logged is what is known of a logged call.
type logged struct {
	method  *authz.Requirement
	named   catalog.Set // grants that the rule names
	content catalog.Set // those that the content asked for, as far as it was read
	surface catalog.Set // the key of the session's surface, where the rule names grants
	missing catalog.Set // of a denied call: the grant that was missing
}

func loggedOf(m *authz.Requirement, d *decisionpb.Decision) logged {
	c := logged{method: m}
	for _, b := range m.Grants {
		c.named.Add(b)
	}
	for _, name := range d.GetGrants() {
		if b, ok := catalog.Grant(name); ok && !c.named.Has(b) {
			c.content.Add(b)
		}
	}
	if b, ok := catalog.Grant(d.GetMissingGrant()); ok {
		c.missing.Add(b)
	}
	if m.Kind == authz.RuleAll || m.Kind == authz.RuleAny || m.Kind == authz.RuleByContent {
		switch d.GetSurface() {
		case authz.SurfaceWeb.String():
			c.surface.Add(web)
		case authz.SurfaceApp.String():
			c.surface.Add(appKey)
		}
	}
	return c
}

// lets reports whether the call is let in for who holds the grants, by all that is known
// of it.
func (c *logged) lets(set catalog.Set) bool {
	return set.Contains(c.content.Union(c.surface)) && c.method.Permits(set)
}

// replayCall returns a call that the change turns round, and nil for every other. Was and
// is are what its caller holds now, and would under the change.
func replayCall(m *authz.Requirement, d *decisionpb.Decision, was, is catalog.Set) *pb.ReplayedCall {
	if was == is || d.GetService() != "" || m.Kind == authz.RuleInternal {
		return nil
	}
	c := loggedOf(m, d)
	if d.GetOutcome() == decisionpb.Outcome_OUTCOME_ALLOWED {
		return c.wouldDeny(d, was, is)
	}
	return c.wouldAllow(d, was, is)
}

// wouldDeny replays a call that was let in.
func (c *logged) wouldDeny(d *decisionpb.Decision, was, is catalog.Set) *pb.ReplayedCall {
	asked := c.named.Union(c.content).Union(c.surface)
	lost := asked.Intersection(was).Without(is)
	if !c.lets(was) || lost.Empty() {
		return nil
	}
	call := &pb.ReplayedCall{
		Decision: d, Outcome: decisionpb.Outcome_OUTCOME_DENIED, Grants: keyNames(lost), Certainty: pb.Certainty_CERTAINTY_WOULD,
	}
	if c.lets(is) { // by another of several grants, if the record goes with that
		call.Certainty, call.Unlogged = pb.Certainty_CERTAINTY_MAY, []pb.Unlogged{pb.Unlogged_UNLOGGED_RECORD}
	}
	return call
}

// wouldAllow replays a call that was denied.
func (c *logged) wouldAllow(d *decisionpb.Decision, was, is catalog.Set) *pb.ReplayedCall {
	asked := c.named.Union(c.content).Union(c.surface).Union(c.missing)
	gained := asked.Intersection(is).Without(was)
	if gained.Empty() || !c.lets(is) {
		return nil
	}
	if !c.named.Intersects(c.missing) && !is.Contains(c.missing) {
		return nil // what was missing still is
	}
	call := &pb.ReplayedCall{Decision: d, Outcome: decisionpb.Outcome_OUTCOME_ALLOWED, Grants: keyNames(gained)}
	switch d.GetReason() {
	case "GRANT_MISSING", "SURFACE_CLOSED", "FEATURE_NOT_IN_PLAN":
	case "BEYOND_OWN_GRANTS":
		call.Unlogged = append(call.Unlogged, pb.Unlogged_UNLOGGED_RECORD)
	default:
		return nil // not for want of a grant
	}
	if len(c.method.Content) > 0 {
		call.Unlogged = append(call.Unlogged, pb.Unlogged_UNLOGGED_CONTENT)
	}
	if c.method.Kind == authz.RuleAny {
		call.Unlogged = append(call.Unlogged, pb.Unlogged_UNLOGGED_RECORD)
	}
	if d.GetLimited() {
		call.Unlogged = append(call.Unlogged, pb.Unlogged_UNLOGGED_SESSION)
	}
	call.Certainty = pb.Certainty_CERTAINTY_WOULD
	if len(call.GetUnlogged()) > 0 {
		call.Certainty = pb.Certainty_CERTAINTY_MAY
	}
	return call
}
