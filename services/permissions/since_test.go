package permissions

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// Who had a layer say what it says is not known any more where the journal was compacted
// since: then it is told by when, and nobody is named who only changed the record later.
func TestWhyOfWhatTheJournalNoLongerTells(t *testing.T) {
	c := newChain(t, 1)
	revision := func() (now int64) {
		c.must(c.db.View(c.at("house0"), func(tx *store.Tx) error {
			now = tx.Revision()
			return nil
		}))
		return now
	}
	put := func(keys ...string) int64 {
		c.ahead.Add(int64(time.Minute))
		c.must(c.edit("house0", func(l *loader) error {
			r, ok := roles.Get(l.tx, "desk")
			if !ok {
				return l.createRole(boss(), &pb.Role{Id: "desk", Name: "Desk", Keys: keys})
			}
			return errOf(l.updateRole(boss(), &pb.Role{Id: r.GetId(), Keys: keys}, maskOfFields("keys"), map[string]bool{"boss": true}))
		}))
		return revision()
	}
	made := put("Web", "Calendar")
	c.must(c.give("house0", "uma", "desk"))
	given, at := revision(), c.clock()
	added := put("Web", "Calendar", "Contacts")

	user := "uma"
	want := func(what, key string, set, assigned *pb.Provenance) {
		t.Helper()
		resp, err := c.ExplainAccess(c.at("house0"), &pb.ExplainAccessRequest{UserId: &user, Question: &pb.ExplainAccessRequest_Grant{Grant: key}})
		c.must(err)
		w := resp.GetGrant().GetWords()[0]
		if !proto.Equal(w.GetSet(), set) || !proto.Equal(w.GetAssigned(), assigned) {
			t.Errorf("%s: %s:\n got %v, %v\nwant %v, %v", what, key, w.GetSet(), w.GetAssigned(), set, assigned)
		}
	}
	known := func(revision int64, at time.Time) *pb.Provenance {
		return &pb.Provenance{Author: "boss", Revision: revision, Time: timestamppb.New(at)}
	}
	by := func(revision int64, at time.Time) *pb.Provenance {
		return &pb.Provenance{ByRevision: revision, ByTime: timestamppb.New(at)}
	}
	later := c.clock()
	want("at first", "Calendar", known(made, at), known(given, at))
	want("at first", "Contacts", known(added, later), known(given, at))

	compact := func(to int64) {
		_, err := c.db.CompactTo(t.Context(), "house0", to)
		c.must(err)
	}
	compact(given)
	want("without the older", "Calendar", by(given, at), by(given, at))
	want("without the older", "Contacts", known(added, later), by(given, at))
	c.reviewed(t, "Calendar", "", "")
	c.reviewed(t, "Contacts", "boss", later.Format(time.RFC3339Nano))

	c.ahead.Add(int64(48 * time.Hour))
	_, err := c.db.Compact(t.Context(), "house0", store.Retention{Values: 24 * time.Hour})
	c.must(err)
	want("without values", "Contacts", by(added, later), by(given, at))
	compact(added)
	want("without any", "Contacts", by(added, later), by(added, later))
	put("Web", "Contacts")
	want("changed since", "Contacts", by(added, later), by(added, later))
	last := put("Web", "Contacts", "Invoices")
	want("changed since", "Invoices", known(last, c.clock()), by(added, later))
}

// reviewed holds who a review says had a role grant a key, and when.
func (c *chain) reviewed(t *testing.T, key, author, at string) {
	t.Helper()
	r := &review{service: c.service, ctx: c.at("house0"), at: c.clock(), set: map[says]*pb.Provenance{}}
	c.must(c.db.View(r.ctx, func(tx *store.Tx) error {
		r.revision = tx.Revision()
		return nil
	}))
	rows, _, err := r.some()
	c.must(err)
	for _, row := range rows {
		if row.UserID == "uma" && row.Key == key && (row.SetBy != author || row.SetTime != at) {
			t.Errorf("review of %s: got %q at %q, want %q at %q", key, row.SetBy, row.SetTime, author, at)
		}
	}
}
