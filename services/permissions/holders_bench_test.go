package permissions

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// BenchmarkListHolders lists all the holders of a key, page by page: of one that few hold
// and of one that every second does, now and as of a past time. With -long also of a
// million users.
func BenchmarkListHolders(b *testing.B) {
	sizes := []int{10_000}
	if *long {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		c := newCompany(b, 5)
		c.populate(n)
		for _, q := range []struct {
			name, key string
			past      bool
		}{{"rare", "Invoices:Void", false}, {"common", "Web", false}, {"past", "Invoices:Void", true}} {
			b.Run(fmt.Sprintf("users=%d/%s", n, q.name), func(b *testing.B) {
				held := 0
				for range b.N {
					req := &pb.ListHoldersRequest{PageSize: 500, Question: &pb.ListHoldersRequest_Grant{Grant: q.key}}
					if q.past {
						req.AsOfTime = timestamppb.New(c.now)
					}
					c.t = b
					held = len(c.holders(req))
				}
				b.ReportMetric(float64(held), "holders")
			})
		}
	}
}

// populate makes users: every second is a PM, of the others one of a hundred may void
// invoices.
func (c *company) populate(n int) {
	for i := 0; i < n; {
		c.update(func(tx *store.Tx) error {
			for end := i + 1000; i < end && i < n; i++ {
				u := &pb.UserAccess{Id: fmt.Sprintf("person%07d", i), RoleId: []string{"PM", "SA"}[i%2]}
				if i%200 == 1 {
					u.Overrides = []*pb.Override{
						{Key: "Invoices", Effect: pb.Effect_EFFECT_GRANT}, {Key: "Invoices:Void", Effect: pb.Effect_EFFECT_GRANT},
					}
				}
				if err := accesses.Put(tx, u); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
