package identity_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
)

func (s *suite) classes() pb.AccountingClassServiceClient {
	return pb.NewAccountingClassServiceClient(s.conn)
}

func (c *caller) createClass(name, code string) (*pb.AccountingClass, error) {
	resp, err := c.classes().CreateAccountingClass(c.ctx(), &pb.CreateAccountingClassRequest{AccountingClass: &pb.AccountingClass{Name: name, Code: code}})
	return resp.GetAccountingClass(), err
}

// classNames are those that the caller chooses from.
func (c *caller) classNames(deleted bool) (names []string) {
	c.t.Helper()
	resp, err := c.classes().ListAccountingClasses(c.ctx(), &pb.ListAccountingClassesRequest{ShowDeleted: deleted})
	mustNot(c.t, err)
	for _, class := range resp.GetAccountingClasses() {
		names = append(names, class.GetName())
	}
	return names
}

// What the brand says of accounting classes holds in each of its organizations, and nobody
// else says it.
func TestAccountingClasses(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes").hire("uma", "US")
	admin := owner.hire("admin", "OA")
	_, err := admin.createClass("Turns", "")
	check(t, "without Branding", err, codes.PermissionDenied, "GRANT_MISSING")
	turns, err := owner.createClass("Turns", "4100")
	mustNot(t, err)
	repairs, err := owner.createClass("Repairs", "")
	mustNot(t, err)
	_, err = owner.createClass("turns", "")
	check(t, "the name once more", err, codes.AlreadyExists, "RECORD_EXISTS")
	_, err = owner.createClass("Other", "4100")
	check(t, "the code once more", err, codes.AlreadyExists, "RECORD_EXISTS")
	_, err = owner.createClass(" ", "")
	check(t, "no name", err, codes.InvalidArgument, "FIELD_INVALID")
	if got := there.classNames(false); !slices.Equal(got, []string{"Repairs", "Turns"}) {
		t.Errorf("another organization of the brand chooses from %q", got)
	}

	renamed, err := owner.classes().UpdateAccountingClass(owner.ctx(), &pb.UpdateAccountingClassRequest{
		AccountingClass: &pb.AccountingClass{Id: turns.GetId(), Etag: turns.GetEtag(), Name: "Unit turns", Position: -1},
	})
	mustNot(t, err)
	got, err := there.classes().GetAccountingClass(there.ctx(), &pb.GetAccountingClassRequest{Id: turns.GetId()})
	mustNot(t, err)
	same(t, "in another organization", got.GetAccountingClass(), renamed.GetAccountingClass())
	_, err = owner.classes().UpdateAccountingClass(owner.ctx(), &pb.UpdateAccountingClassRequest{
		AccountingClass: &pb.AccountingClass{Id: turns.GetId(), Etag: turns.GetEtag(), Name: "X"},
	})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = there.classes().DeleteAccountingClass(there.ctx(), &pb.DeleteAccountingClassRequest{Id: turns.GetId()})
	check(t, "to delete it without Branding", err, codes.PermissionDenied, "GRANT_MISSING")

	deleted, err := owner.classes().DeleteAccountingClass(owner.ctx(), &pb.DeleteAccountingClassRequest{Id: repairs.GetId()})
	mustNot(t, err)
	if c := deleted.GetAccountingClass(); c.GetPurgeTime().AsTime().Sub(c.GetDeleteTime().AsTime()) != 28*24*time.Hour {
		t.Errorf("got %v, want it to be kept for 28 days", c)
	}
	if now, all := there.classNames(false), there.classNames(true); !slices.Equal(now, []string{"Unit turns"}) || !slices.Equal(all, []string{"Unit turns", "Repairs"}) {
		t.Errorf("after a deletion: got %q, and with deleted ones %q", now, all)
	}
	_, err = owner.createClass("Repairs", "")
	mustNot(t, err)
	undelete := &pb.UndeleteAccountingClassRequest{Id: repairs.GetId()}
	_, err = owner.classes().UndeleteAccountingClass(owner.ctx(), undelete)
	check(t, "to bring it back after another took its name", err, codes.AlreadyExists, "RECORD_EXISTS")
}

func TestAccountingClassesComeBackFor28Days(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	class, err := owner.createClass("Turns", "4100")
	mustNot(t, err)
	move := func(days int) *caller {
		offset.Store(int64(days) * int64(24*time.Hour))
		return owner.signIn("")
	}
	owner.deleteClass(class.GetId())
	owner = move(27)
	back, err := owner.classes().UndeleteAccountingClass(owner.ctx(), &pb.UndeleteAccountingClassRequest{Id: class.GetId()})
	mustNot(t, err)
	if c := back.GetAccountingClass(); c.GetDeleteTime() != nil || c.GetCode() != "4100" {
		t.Errorf("got %v, want it as it was", c)
	}
	owner.deleteClass(class.GetId())
	owner = move(27 + 28)
	_, err = owner.classes().UndeleteAccountingClass(owner.ctx(), &pb.UndeleteAccountingClassRequest{Id: class.GetId()})
	check(t, "after 28 days", err, codes.NotFound, "RECORD_NOT_FOUND")
	if n, err := identity.PurgeClasses(t.Context()); n != 1 || err != nil {
		t.Errorf("%d classes were erased, %v, want one", n, err)
	}
}

func (c *caller) deleteClass(id string) {
	c.t.Helper()
	_, err := c.classes().DeleteAccountingClass(c.ctx(), &pb.DeleteAccountingClassRequest{Id: id})
	mustNot(c.t, err)
}
