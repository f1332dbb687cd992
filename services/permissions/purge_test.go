package permissions

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

func TestWhatWasDeletedLongAgoIsPurged(t *testing.T) {
	s := &service{db: openStore(t), log: slog.New(slog.DiscardHandler)}
	due, later := timestamppb.New(noon.Add(-1)), timestamppb.New(noon.Add(time.Hour))
	put := func(tx *store.Tx) error {
		for i := range purgeChunk + 1 {
			if err := roles.Put(tx, &pb.Role{Id: fmt.Sprint("due", i), DeleteTime: due, PurgeTime: due}); err != nil {
				return err
			}
		}
		for _, r := range []*pb.Role{{Id: "later", DeleteTime: due, PurgeTime: later}, {Id: "live", Name: "live"}} {
			if err := roles.Put(tx, r); err != nil {
				return err
			}
		}
		for _, g := range []*pb.Group{{Id: "due", DeleteTime: due, PurgeTime: due}, {Id: "later", DeleteTime: due, PurgeTime: later}, {Id: "live", Name: "live"}} {
			if err := groups.Put(tx, g); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.db.Update(tenant(t.Context()), put); err != nil {
		t.Fatal(err)
	}
	if err := s.purgeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []string
	err := s.db.View(tenant(t.Context()), func(tx *store.Tx) error {
		for r := range roles.All(tx) {
			left = append(left, "role "+r.GetId())
		}
		for g := range groups.All(tx) {
			left = append(left, "group "+g.GetId())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(left), "[role later role live group later group live]"; got != want {
		t.Errorf("left: got %s, want %s", got, want)
	}
}
