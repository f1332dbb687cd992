package permissions

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/store"
)

// reviewRow is a line of a review. The order of its fields is that of the columns; new
// ones go to the end.
type reviewRow struct {
	UserID     string `json:"user_id"`
	RoleID     string `json:"role_id"`
	GroupID    string `json:"group_id"`
	Key        string `json:"key"`
	Allowed    bool   `json:"allowed"`
	Layer      string `json:"layer"`
	Source     string `json:"source"`
	Missing    string `json:"missing"`
	SetBy      string `json:"set_by"`
	SetTime    string `json:"set_time"`
	ExpireTime string `json:"expire_time"`
	Reason     string `json:"reason"`

	DisplayName string `json:"display_name"`
	Email       string `json:"email"`
	Member      string `json:"member"`
}

var reviewColumns = []string{
	"user_id", "role_id", "group_id", "key", "allowed", "layer", "source", "missing", "set_by", "set_time", "expire_time", "reason",
	"display_name", "email", "member",
}

func (r *reviewRow) cells() []string {
	return []string{
		r.UserID, r.RoleID, r.GroupID, r.Key, strconv.FormatBool(r.Allowed), r.Layer, r.Source, r.Missing,
		r.SetBy, r.SetTime, r.ExpireTime, r.Reason, r.DisplayName, r.Email, r.Member,
	}
}

// reviewChunk is how many users one transaction reads for a review.
const reviewChunk = 200

// ExportAccessReview exports who holds what and why.
func (s *service) ExportAccessReview(req *pb.ExportAccessReviewRequest, stream grpc.ServerStreamingServer[pb.ExportAccessReviewResponse]) error {
	r := &review{service: s, ctx: stream.Context(), json: req.GetFormat() == pb.ReviewFormat_REVIEW_FORMAT_JSON, set: map[says]*pb.Provenance{}}
	err := s.db.View(r.ctx, func(tx *store.Tx) error {
		l, err := loaderAsOf(tx, req.GetAsOfTime())
		if err == nil {
			r.revision, r.at = l.revision(), l.now
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.write(func(data []byte) error {
		return stream.Send(&pb.ExportAccessReviewResponse{Data: data, Revision: r.revision})
	})
}

// review is an export that goes on. Each of its transactions sees the records of the one
// revision.
type review struct {
	*service
	ctx      context.Context
	json     bool
	revision int64
	at       time.Time
	last     string // user
	rows     int
	// set is who put a key into a role or a group, and when, by what says is made of it.
	set map[says]*pb.Provenance
}

// says is one word of a role or a group about a key.
type says struct {
	layer  pb.Layer
	source string
	key    catalog.Bit
	deny   bool
}

// write sends the whole in pieces.
func (r *review) write(send func([]byte) error) error {
	var b bytes.Buffer
	if r.json {
		b.WriteString("[")
	} else {
		w := csv.NewWriter(&b)
		w.Write(reviewColumns)
		w.Flush()
	}
	for more := true; more; {
		rows, next, err := r.some()
		if err != nil {
			return err
		}
		more = next
		if err := r.format(&b, rows); err != nil {
			return err
		}
		if !more && r.json {
			b.WriteString("\n]\n")
		}
		if err := send(bytes.Clone(b.Bytes())); err != nil {
			return err
		}
		b.Reset()
	}
	return nil
}

func (r *review) format(b *bytes.Buffer, rows []reviewRow) error {
	if !r.json {
		w := csv.NewWriter(b)
		for i := range rows {
			w.Write(harmless(rows[i].cells()))
		}
		w.Flush()
		return w.Error()
	}
	for i := range rows {
		if r.rows++; r.rows > 1 {
			b.WriteString(",")
		}
		line, err := json.Marshal(&rows[i])
		if err != nil {
			return err
		}
		b.WriteString("\n")
		b.Write(line)
	}
	return nil
}

// harmless returns the cells so that no spreadsheet takes a reason that somebody
// wrote for a formula: what begins like one is led by an apostrophe.
//
// SECURITY: a formula in a review would run on the desk of whoever reads it.
func harmless(cells []string) []string {
	for i, c := range cells {
		if c != "" && strings.ContainsRune("=+-@\t\r", rune(c[0])) {
			cells[i] = "'" + c
		}
	}
	return cells
}

// some returns the rows of the next users, and whether there may be more.
func (r *review) some() (rows []reviewRow, more bool, err error) {
	last := r.last
	err = r.db.View(r.ctx, func(tx *store.Tx) error {
		l, n := loaderAt(tx, r.revision, r.at), 0
		for id := range accesses.IDs(tx, r.last) {
			if n++; n > reviewChunk {
				more = true
				break
			}
			last = id
			if u, ok := find(l, accesses, id); ok {
				rows = append(rows, r.of(l, u)...)
			}
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	r.last = last
	return rows, more, r.introduce(rows)
}

// introduce tells of whom the rows are.
func (r *review) introduce(rows []reviewRow) error {
	var ids []string
	for i := range rows {
		if i == 0 || rows[i].UserID != rows[i-1].UserID {
			ids = append(ids, rows[i].UserID)
		}
	}
	members, err := r.membersAmong(r.ctx, ids)
	if err != nil {
		return err
	}
	for i := range rows {
		m := members[rows[i].UserID]
		rows[i].DisplayName, rows[i].Email, rows[i].Member = m.GetDisplayName(), m.GetEmail(), memberNames[memberState(m)]
	}
	return nil
}

// of returns the rows of one user: each key that counts, and each that a group or an
// override speaks about.
func (r *review) of(l *loader, u *pb.UserAccess) (rows []reviewRow) {
	v := l.access(u).judge(l.now)
	for _, k := range allKeys {
		why := v.explain(k.Bit())
		if why.layer == pb.Layer_LAYER_NONE {
			continue
		}
		row := reviewRow{
			UserID: u.GetId(), RoleID: v.role.id, GroupID: v.group.id, Key: k.Name, Allowed: v.set.Has(k.Bit()),
			Layer: layerNames[why.layer], Missing: why.missing, Source: why.source,
		}
		switch why.layer {
		case pb.Layer_LAYER_OVERRIDE:
			row.Source = ""
			row.override(overrideIn(u, k.Bit()))
		case pb.Layer_LAYER_ROLE, pb.Layer_LAYER_GROUP:
			row.setBy(r.who(l, says{why.layer, why.source, k.Bit(), v.group.denies.Has(k.Bit())}))
		}
		rows = append(rows, row)
	}
	return rows
}

// who returns who had a role or a group speak so, as of the revision of the review; nil of
// what is built in, and where the journal does not reach back so far.
func (r *review) who(l *loader, w says) *pb.Provenance {
	p, known := r.set[w]
	if known {
		return p
	}
	_, fixed := builtIn[w.source]
	switch {
	case w.layer == pb.Layer_LAYER_GROUP:
		p = sinceAsOf(l.tx, groups, w.source, r.revision, func(g *pb.Group) bool {
			if w.deny {
				return keySet(g.GetDenies()).Has(w.key)
			}
			return keySet(g.GetGrants()).Has(w.key)
		})
	case !fixed:
		p = sinceAsOf(l.tx, roles, w.source, r.revision, func(role *pb.Role) bool { return keySet(role.GetKeys()).Has(w.key) })
	}
	r.set[w] = p
	return p
}

func (r *reviewRow) setBy(p *pb.Provenance) {
	if p.GetTime() == nil {
		return
	}
	r.SetBy, r.SetTime, r.Reason = p.GetAuthor(), p.GetTime().AsTime().Format(time.RFC3339Nano), p.GetReason()
}

// override notes who set an override, when, until when and why.
func (r *reviewRow) override(o *pb.Override) {
	r.SetBy, r.Reason = o.GetSetBy(), o.GetReason()
	if o.GetSetTime() != nil {
		r.SetTime = o.GetSetTime().AsTime().Format(time.RFC3339Nano)
	}
	if o.GetExpireTime() != nil {
		r.ExpireTime = o.GetExpireTime().AsTime().Format(time.RFC3339Nano)
	}
}

// memberNames is how a review tells how somebody belongs to the organization.
var memberNames = map[pb.MemberState]string{
	pb.MemberState_MEMBER_STATE_ACTIVE: "active", pb.MemberState_MEMBER_STATE_DEACTIVATED: "deactivated",
	pb.MemberState_MEMBER_STATE_ENDED: "ended",
}

// layerNames is how a review names the layers.
var layerNames = map[pb.Layer]string{
	pb.Layer_LAYER_NONE: "none", pb.Layer_LAYER_ROLE: "role", pb.Layer_LAYER_GROUP: "group",
	pb.Layer_LAYER_OVERRIDE: "override", pb.Layer_LAYER_IMPLIED: "implied",
}
