package permissions

import (
	"context"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/store"
)

// ExplainAccess says why a user holds a grant or may call a method, or does not.
func (s *service) ExplainAccess(ctx context.Context, req *pb.ExplainAccessRequest) (*pb.ExplainAccessResponse, error) {
	q, err := inquiryOf(req)
	if err != nil {
		return nil, err
	}
	user, err := s.subject(ctx, req.UserId)
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ExplainAccessResponse, error) {
		l := newLoader(tx)
		u := l.user(user)
		v := l.access(u).judge(l.now)
		resp := &pb.ExplainAccessResponse{
			UserId: user, Revision: l.revision(), EvaluateTime: timestampOf(l.now), Allowed: q.holds(v.set),
		}
		if q.method != nil {
			resp.Method = v.explainMethod(q.method)
		} else {
			resp.Grant = l.why(u, &v, q.bit)
		}
		return resp, nil
	})
}

// why explains one grant.
func (l *loader) why(u *pb.UserAccess, v *verdict, b catalog.Bit) *pb.GrantExplanation {
	words := append(v.words(u, b), l.planWord(b)...)
	for _, w := range words {
		l.name(w)
		l.trace(u, w, b)
	}
	t := &trial{l: l, user: u}
	return &pb.GrantExplanation{
		Grant: b.String(), Layer: v.explainGrant(b).layer, Words: words, Gates: v.gates(b),
		Flips: t.flips(v, b), ExpireTime: timestampOf(v.next),
	}
}

// words returns what the layers say about a grant, the least specific first.
func (v *verdict) words(u *pb.UserAccess, b catalog.Bit) []*pb.LayerWord {
	if n := settingOf(b); n != 0 {
		return v.settingWords(n)
	}
	var words []*pb.LayerWord
	if v.role.keys.Has(b) || v.regional && regionalKeys.Has(b) {
		words = append(words, &pb.LayerWord{Layer: pb.Layer_LAYER_ROLE, Source: v.role.id, Effect: pb.Effect_EFFECT_GRANT})
	}
	switch {
	case v.group.denies.Has(b):
		words = append(words, &pb.LayerWord{Layer: pb.Layer_LAYER_GROUP, Source: v.group.id, Effect: pb.Effect_EFFECT_DENY})
	case v.group.grants.Has(b):
		words = append(words, &pb.LayerWord{Layer: pb.Layer_LAYER_GROUP, Source: v.group.id, Effect: pb.Effect_EFFECT_GRANT})
	}
	for _, o := range u.GetOverrides() {
		if o.GetKey() != b.String() {
			continue
		}
		w := &pb.LayerWord{
			Layer: pb.Layer_LAYER_OVERRIDE, Effect: o.GetEffect(), Reason: o.GetReason(), ExpireTime: o.GetExpireTime(),
			Ended: o.ExpireTime != nil && !v.at.Before(o.GetExpireTime().AsTime()),
			Set:   &pb.Provenance{Author: o.GetSetBy(), Time: o.GetSetTime()},
		}
		words = append(words, w)
	}
	if v.layered.Has(b) && !v.plain.Has(b) && !allFeatures.Has(b) {
		words = append(words, &pb.LayerWord{Layer: pb.Layer_LAYER_IMPLIED, Source: web.String(), Effect: pb.Effect_EFFECT_GRANT})
	}
	return decide(words)
}

// decide marks the word of the most specific layer that has not ended.
func decide(words []*pb.LayerWord) []*pb.LayerWord {
	for _, w := range slices.Backward(words) {
		if !w.GetEnded() {
			w.Decided = true
			break
		}
	}
	return words
}

// settingWords returns what the layers say about a boolean setting.
func (v *verdict) settingWords(n int) []*pb.LayerWord {
	var words []*pb.LayerWord
	for _, layer := range []struct {
		layer  pb.Layer
		source string
		values values
	}{
		{pb.Layer_LAYER_ROLE, v.role.id, v.role.settings},
		{pb.Layer_LAYER_GROUP, v.group.id, v.group.settings},
		{pb.Layer_LAYER_OVERRIDE, "", v.own},
	} {
		if !layer.values.says.has(n) {
			continue
		}
		effect := pb.Effect_EFFECT_DENY
		if layer.values.on.has(n) {
			effect = pb.Effect_EFFECT_GRANT
		}
		words = append(words, &pb.LayerWord{Layer: layer.layer, Source: layer.source, Effect: effect})
	}
	if agentSettings.has(n) && !v.agent {
		return words // none of them counts
	}
	return decide(words)
}

// planWord returns what the plan says about a feature.
func (l *loader) planWord(b catalog.Bit) []*pb.LayerWord {
	if !allFeatures.Has(b) || !l.plan.Has(b) {
		return nil
	}
	return []*pb.LayerWord{{Layer: pb.Layer_LAYER_PLAN, Effect: pb.Effect_EFFECT_GRANT, Decided: true}}
}

// settingOf returns the number of the setting that a grant is, or 0.
func settingOf(b catalog.Bit) int {
	for n, bit := range settingBits {
		if n > 0 && boolSettings.has(n) && bit == b {
			return n
		}
	}
	return 0
}

// gates returns what must count beside a grant.
func (v *verdict) gates(b catalog.Bit) (gates []*pb.Gate) {
	for need := range catalog.Needs(b).All() {
		gates = append(gates, &pb.Gate{Grant: need.String(), Counts: v.set.Has(need)})
	}
	return gates
}

// name gives a word the name of its role or group.
func (l *loader) name(w *pb.LayerWord) {
	switch w.GetLayer() {
	case pb.Layer_LAYER_ROLE:
		if r, ok := catalog.LookupRole(w.GetSource()); ok {
			w.SourceName = r.Name
		} else if r, ok := find(l, roles, w.GetSource()); ok {
			w.SourceName = r.GetName()
		}
	case pb.Layer_LAYER_GROUP:
		if g, ok := find(l, groups, w.GetSource()); ok {
			w.SourceName = g.GetName()
		}
	}
}

// trace looks up in the journal who had a layer say so.
func (l *loader) trace(u *pb.UserAccess, w *pb.LayerWord, b catalog.Bit) {
	n := settingOf(b)
	switch w.GetLayer() {
	case pb.Layer_LAYER_ROLE:
		if _, fixed := builtIn[w.GetSource()]; !fixed {
			w.Set = since(l.tx, roles, w.GetSource(), func(r *pb.Role) bool {
				return keySet(r.GetKeys()).Has(b) || compileSettings(r.GetSettings()).say(n, w.GetEffect())
			})
		}
		if u.GetGroupId() != "" && l.team(u.GetGroupId()).id != "" {
			w.Assigned = since(l.tx, groups, u.GetGroupId(), func(g *pb.Group) bool { return g.GetRoleId() == w.GetSource() })
		} else {
			w.Assigned = since(l.tx, accesses, u.GetId(), func(a *pb.UserAccess) bool { return a.GetRoleId() == w.GetSource() })
		}
	case pb.Layer_LAYER_GROUP:
		w.Set = since(l.tx, groups, w.GetSource(), func(g *pb.Group) bool {
			keys := keySet(g.GetGrants())
			if w.GetEffect() == pb.Effect_EFFECT_DENY {
				keys = keySet(g.GetDenies())
			}
			return keys.Has(b) || compileSettings(g.GetSettings()).say(n, w.GetEffect())
		})
		w.Assigned = since(l.tx, accesses, u.GetId(), func(a *pb.UserAccess) bool { return a.GetGroupId() == w.GetSource() })
	case pb.Layer_LAYER_OVERRIDE:
		now := overrideIn(u, b)
		w.Set = since(l.tx, accesses, u.GetId(), func(a *pb.UserAccess) bool {
			if n != 0 {
				return compileSettings(a.GetSettings()).say(n, w.GetEffect())
			}
			return proto.Equal(overrideIn(a, b), now)
		})
	case pb.Layer_LAYER_PLAN:
		w.Set = since(l.tx, plans, l.tx.Tenant(), func(p *pb.Plan) bool { return featuresOf(p.GetFeatures()).Has(b) })
	}
}

func overrideIn(u *pb.UserAccess, b catalog.Bit) *pb.Override {
	for _, o := range u.GetOverrides() {
		if o.GetKey() == b.String() {
			return o
		}
	}
	return nil
}

// since returns the change from which on something holds of a record until now, or nil if
// it does not hold or nothing is known.
func since[T reasoned](tx *store.Tx, c *store.Collection[T], id string, holds func(T) bool) *pb.Provenance {
	return sinceAsOf(tx, c, id, math.MaxInt64, holds)
}

// sinceAsOf is since as it was at a revision. Of a change that the journal no longer tells of
// it returns by when it was made.
func sinceAsOf[T reasoned](tx *store.Tx, c *store.Collection[T], id string, revision int64, holds func(T) bool) *pb.Provenance {
	holdsIn := func(value []byte) (v T, held bool) {
		v, err := c.Decode(value)
		return v, value != nil && err == nil && holds(v)
	}
	var next *storepb.Change // the one after what is looked at
	var first *pb.Provenance
	untold := func(by *timestamppb.Timestamp, revision int64) *pb.Provenance {
		_, held := holdsIn(next.GetOldValue())
		if now, ok := c.Get(tx, id); next == nil {
			held = ok && holds(now)
		}
		if !held {
			return first
		}
		return &pb.Provenance{ByTime: by, ByRevision: revision}
	}
	for e := range tx.History(c.Name(), id) {
		change := e.GetChanges()[0]
		if e.GetRevision() <= revision {
			if change.NewValue == nil && len(change.GetNewHash()) > 0 { // erased
				return untold(e.GetCommitTime(), e.GetRevision())
			}
			v, held := holdsIn(change.GetNewValue())
			if !held {
				return first
			}
			first = provenanceOf(e)
			first.Reason = v.GetChangeReason()
		}
		next = change
	}
	at, base := tx.Base()
	return untold(timestamppb.New(at), base)
}

func provenanceOf(e *storepb.JournalEntry) *pb.Provenance {
	if e == nil {
		return nil
	}
	return &pb.Provenance{
		Author: e.GetCaller(), Actor: e.GetActor(), Time: e.GetCommitTime(), Revision: e.GetRevision(), Method: e.GetMethod(),
	}
}
