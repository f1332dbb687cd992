package permissions

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// ListHolders lists the users who hold a grant or may call a method.
func (s *service) ListHolders(ctx context.Context, req *pb.ListHoldersRequest) (*pb.ListHoldersResponse, error) {
	q, err := aboutSetting(req.GetSetting())
	if req.GetSetting() == "" {
		q, err = inquiryOf(req)
	}
	if err != nil {
		return nil, err
	}
	if q.method != nil && q.method.Asks().Empty() {
		return nil, fault.Invalid("method", "must ask for a grant, and %s asks for none: %s", q.method.Method, ruleKinds[q.method.Kind])
	}
	if allFeatures.Has(q.bit) {
		return nil, fault.Invalid("grant", "must not be a feature: everybody has it while the plan includes it, which PlanService.GetPlan tells")
	}
	resp, err := store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListHoldersResponse, error) { return listHolders(tx, q, req) })
	if err != nil {
		return nil, err
	}
	return resp, s.introduce(ctx, resp.GetHolders())
}

// introduce tells who the holders are.
func (s *service) introduce(ctx context.Context, holders []*pb.Holder) error {
	var ids []string
	for _, h := range holders {
		ids = append(ids, h.GetUserId())
	}
	members, err := s.membersAmong(ctx, ids)
	if err != nil {
		return err
	}
	for _, h := range holders {
		m := members[h.GetUserId()]
		h.DisplayName, h.Email, h.Member = m.GetDisplayName(), m.GetEmail(), memberState(m)
	}
	return nil
}

func listHolders(tx *store.Tx, q inquiry, req *pb.ListHoldersRequest) (*pb.ListHoldersResponse, error) {
	l, err := loaderAsOf(tx, req.GetAsOfTime())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListHoldersResponse{Revision: l.revision()}
	keep := func(u *pb.UserAccess) bool {
		h := l.holder(u, q)
		if h != nil {
			resp.Holders = append(resp.Holders, h)
		}
		return h != nil
	}
	if l.past != 0 {
		resp.NextPageToken, err = l.pastPage(req, keep)
	} else {
		_, resp.NextPageToken, err = store.Page(tx, req, keep, l.candidates(q)...)
	}
	return resp, err
}

// holder returns a user as a holder, or nil if he is none.
func (l *loader) holder(u *pb.UserAccess, q inquiry) *pb.Holder {
	v := l.access(u).judge(l.now)
	if q.setting != 0 {
		return v.holderOfSetting(u.GetId(), q.setting)
	}
	if !q.holds(v.set) {
		return nil
	}
	h := &pb.Holder{UserId: u.GetId(), ExpireTime: timestampOf(v.next)}
	if q.method == nil {
		r := v.explainGrant(q.bit)
		h.Layer, h.Source = r.layer, r.source
	}
	return h
}

// holderOfSetting returns a user for whom a setting says something, or nil.
func (v *verdict) holderOfSetting(user string, n int) *pb.Holder {
	now := v.settings()
	if !now.tells(n) {
		return nil
	}
	r := v.explainSetting(n)
	h := &pb.Holder{UserId: user, Layer: r.layer, Source: r.source}
	if !boolSettings.has(n) {
		h.Settings = now.effective()
	}
	return h
}

// pastPage is store.Page over everybody of whom something was stored. To look at the past
// takes longer, so fewer are looked at for a page.
func (l *loader) pastPage(req store.PageRequest, keep func(*pb.UserAccess) bool) (next string, err error) {
	size, err := store.PageSize(req)
	if err != nil {
		return "", err
	}
	last, err := l.tx.OpenCursor(req)
	if err != nil {
		return "", err
	}
	kept, budget := 0, 2*size+1000
	for id := range accesses.IDs(l.tx, last) {
		if kept == size || budget == 0 {
			return l.tx.SealCursor(req, last)
		}
		budget--
		last = id
		if u, ok := find(l, accesses, id); ok && keep(u) {
			kept++
		}
	}
	return "", nil
}

// maxRanges bounds the ranges that candidates are merged from. More are slower than to
// read everybody.
const maxRanges = 64

// candidates returns ranges in which all are who could hold what is asked about, each in the
// order of the ids: those whose role, group or overrides could give it, or everybody.
func (l *loader) candidates(q inquiry) []store.Range[*pb.UserAccess] {
	everybody := []store.Range[*pb.UserAccess]{accesses.Range()}
	if q.setting != 0 {
		return everybody
	}
	var wanted catalog.Set
	if q.method != nil {
		wanted = q.method.Asks()
	} else {
		wanted.Add(q.bit)
	}
	if wanted.Has(appKey) {
		wanted.Add(web)
	}
	if wanted != wanted.OnlyKeys() {
		return everybody // settings and the plan are in no index
	}
	if ranges := l.sources(wanted); len(ranges) <= maxRanges {
		return ranges
	}
	return everybody
}

// sources returns the ranges of those whom a layer could give one of some keys.
func (l *loader) sources(wanted catalog.Set) (ranges []store.Range[*pb.UserAccess]) {
	add := func(b baseline) {
		if b.keys.Intersects(wanted) || takesRegional(b.id) && regionalKeys.Intersects(wanted) {
			ranges = append(ranges, accessByRole.Range(b.id))
		}
	}
	for _, r := range catalog.Roles() {
		add(builtIn[r.Code])
	}
	for r := range roles.All(l.tx) {
		add(l.role(r.GetId()))
	}
	for g := range groups.All(l.tx) {
		t := l.team(g.GetId())
		regional := takesRegional(t.role.id) && regionalKeys.Intersects(wanted)
		if t.grants.Union(t.role.keys).Intersects(wanted) || regional {
			ranges = append(ranges, accessByGroup.Range(g.GetId()))
		}
	}
	for b := range wanted.All() {
		ranges = append(ranges, accessByOverride.Range(b.String()))
	}
	return ranges
}
