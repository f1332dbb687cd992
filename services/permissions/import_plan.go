package permissions

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// importPlan is what an import comes to, as of a revision.
type importPlan struct {
	revision int64
	until    time.Time // from then on the caller may hold less; zero if never
	roles    []*pb.Role
	groups   []*pb.Group
	users    []*pb.UserAccess
	etag     string
	ended    int // overrides of the file

	roleDiffs  []*pb.RoleDifference
	groupDiffs []*pb.GroupDifference
	userDiffs  []*pb.UserDifference
	accesses   []*pb.AccessDifference
}

// holds reports whether the plan is one of what a transaction sees.
func (p *importPlan) holds(tx *store.Tx) bool {
	return p != nil && tx.Revision()-1 == p.revision && (p.until.IsZero() || tx.Now().Before(p.until))
}

// write makes the change. The transaction may run again, so it keeps the records as
// they are.
func (p *importPlan) write(tx *store.Tx) error {
	for _, r := range p.roles {
		if err := roles.Put(tx, proto.CloneOf(r)); err != nil {
			return err
		}
	}
	for _, g := range p.groups {
		if err := groups.Put(tx, proto.CloneOf(g)); err != nil {
			return err
		}
	}
	for _, u := range p.users {
		if err := accesses.Put(tx, proto.CloneOf(u)); err != nil {
			return err
		}
	}
	return nil
}

// empty reports whether the plan changes nothing.
func (p *importPlan) empty() bool { return len(p.roles)+len(p.groups)+len(p.users) == 0 }

func (p *importPlan) summary(applied bool) *pb.ImportSummary {
	revision := p.revision
	if applied && !p.empty() {
		revision++
	}
	return &pb.ImportSummary{
		Etag: p.etag, Revision: revision, Applied: applied, Roles: int32(len(p.roles)), Groups: int32(len(p.groups)),
		Users: int32(len(p.users)), AffectedUsers: int32(len(p.accesses)), EndedOverrides: int32(p.ended),
	}
}

// partSize is about how many bytes of differences one response holds.
const partSize = 256 << 10

// parts yields the differences as responses.
func (p *importPlan) parts() iter.Seq[*pb.ImportAccessResponse] {
	return func(yield func(*pb.ImportAccessResponse) bool) {
		part, size := &pb.ImportAccessResponse{}, 0
		for add := range p.differences() {
			m := add(part)
			if size += proto.Size(m); size < partSize {
				continue
			}
			if !yield(part) {
				return
			}
			part, size = &pb.ImportAccessResponse{}, 0
		}
		if size > 0 {
			yield(part)
		}
	}
}

// differences yields functions of which each adds the next difference to a response, and
// returns it.
func (p *importPlan) differences() iter.Seq[func(*pb.ImportAccessResponse) proto.Message] {
	return func(yield func(func(*pb.ImportAccessResponse) proto.Message) bool) {
		for _, d := range p.roleDiffs {
			if !yield(func(r *pb.ImportAccessResponse) proto.Message { r.Roles = append(r.Roles, d); return d }) {
				return
			}
		}
		for _, d := range p.groupDiffs {
			if !yield(func(r *pb.ImportAccessResponse) proto.Message { r.Groups = append(r.Groups, d); return d }) {
				return
			}
		}
		for _, d := range p.userDiffs {
			if !yield(func(r *pb.ImportAccessResponse) proto.Message { r.Users = append(r.Users, d); return d }) {
				return
			}
		}
		for _, d := range p.accesses {
			if !yield(func(r *pb.ImportAccessResponse) proto.Message { r.Differences = append(r.Differences, d); return d }) {
				return
			}
		}
	}
}

// seal gives the plan its etag: a hash of all that is told of it. So what was reviewed is
// what is made, though unimportant things changed meanwhile.
func (p *importPlan) seal() error {
	h := sha256.New()
	for part := range p.parts() {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(part)
		if err != nil {
			return err
		}
		h.Write(b)
	}
	p.etag = hex.EncodeToString(h.Sum(nil))[:32]
	return nil
}

// describe tells all that the plan changes, as the file would.
func (im *importing) describe() error {
	var approvers []string
	note := func(s *pb.UserSettings) { approvers = append(approvers, s.GetInvoiceApprover()) }
	for i, r := range im.next.roles {
		note(r.GetSettings())
		note(im.wasRoles[i].GetSettings())
	}
	for i, g := range im.next.groups {
		note(g.GetSettings())
		note(im.wasGroups[i].GetSettings())
	}
	for i, u := range im.next.users {
		approvers = append(approvers, u.GetId())
		note(u.GetSettings())
		note(im.wasUsers[i].GetSettings())
	}
	slices.Sort(approvers)
	if err := im.names.learn(im.ctx, im.service, slices.Compact(approvers)); err != nil {
		return err
	}
	im.describeShared()
	at := &loader{now: im.at}
	for i, u := range im.next.users {
		im.next.userDiffs = append(im.next.userDiffs, &pb.UserDifference{
			UserId: u.GetId(), Before: im.names.userEntry(at, im.wasUsers[i]), After: im.names.userEntry(at, u),
		})
	}
	slices.SortFunc(im.next.userDiffs, func(a, b *pb.UserDifference) int { return cmp.Compare(a.GetUserId(), b.GetUserId()) })
	slices.SortFunc(im.next.accesses, func(a, b *pb.AccessDifference) int { return cmp.Compare(a.GetUserId(), b.GetUserId()) })
	return nil
}

// describeShared tells what changes of roles and groups.
func (im *importing) describeShared() {
	for i, r := range im.next.roles {
		d := &pb.RoleDifference{}
		if was := im.wasRoles[i]; was != nil {
			d.Before = im.names.roleEntry(was)
		}
		if r.GetDeleteTime() == nil {
			d.After = im.names.roleEntry(r)
		}
		im.next.roleDiffs = append(im.next.roleDiffs, d)
	}
	for i, g := range im.next.groups {
		d := &pb.GroupDifference{}
		if was := im.wasGroups[i]; was != nil {
			d.Before = im.names.groupEntry(was)
		}
		if g.GetDeleteTime() == nil {
			d.After = im.names.groupEntry(g)
		}
		im.next.groupDiffs = append(im.next.groupDiffs, d)
	}
	slices.SortFunc(im.next.roleDiffs, func(a, b *pb.RoleDifference) int {
		return cmp.Compare(nameOf(a.GetBefore(), a.GetAfter()), nameOf(b.GetBefore(), b.GetAfter()))
	})
	slices.SortFunc(im.next.groupDiffs, func(a, b *pb.GroupDifference) int {
		return cmp.Compare(nameOf(a.GetBefore(), a.GetAfter()), nameOf(b.GetBefore(), b.GetAfter()))
	})
}

// nameOf returns the name of what a difference is of.
func nameOf(before, after interface{ GetName() string }) string {
	return foldName(cmp.Or(before.GetName(), after.GetName()))
}
