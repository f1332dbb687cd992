package identity

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// maxClasses is how many accounting classes a brand can have.
const maxClasses = 1000

// accountingClass finds a class of the caller's brand, deleted ones as long as they can be
// brought back.
func accountingClass(ctx context.Context, tx *store.Tx, id, etag string) (*pb.AccountingClass, error) {
	b, err := brandOf(tx, authz.Caller(ctx).Organization)
	if err != nil {
		return nil, err
	}
	c, ok := accountingClasses.Get(tx, id)
	if !ok || c.GetBrandId() != b.GetId() || purgeDue(tx, c) {
		return nil, fault.NotFound("accounting_class", id)
	}
	return c, accountingClasses.Match(c, etag)
}

// CreateAccountingClass implements pb.AccountingClassServiceServer.
func (s *service) CreateAccountingClass(ctx context.Context, req *pb.CreateAccountingClassRequest) (*pb.CreateAccountingClassResponse, error) {
	w := req.GetAccountingClass()
	fresh := &pb.AccountingClass{Id: s.newID(), Name: w.GetName(), Code: w.GetCode(), Position: w.GetPosition()}
	if err := checkName("accounting_class.name", fresh.GetName()); err != nil {
		return nil, err
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.CreateAccountingClassResponse, error) {
		b, err := brandOf(tx, authz.Caller(ctx).Organization)
		if err != nil {
			return nil, err
		}
		fresh.BrandId = b.GetId()
		return &pb.CreateAccountingClassResponse{AccountingClass: fresh}, addClass(tx, fresh)
	})
}

// addClass puts one more class among those of its brand.
func addClass(tx *store.Tx, c *pb.AccountingClass) error {
	if classesInOrder.Count(tx, classesInOrder.Range(c.GetBrandId())) >= maxClasses {
		return fault.Limit("accounting classes of a brand", 0)
	}
	return accountingClasses.Put(tx, c)
}

// GetAccountingClass implements pb.AccountingClassServiceServer.
func (s *service) GetAccountingClass(ctx context.Context, req *pb.GetAccountingClassRequest) (*pb.GetAccountingClassResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetAccountingClassResponse, error) {
		c, err := accountingClass(ctx, tx, req.GetId(), "")
		return &pb.GetAccountingClassResponse{AccountingClass: c}, err
	})
}

// ListAccountingClasses implements pb.AccountingClassServiceServer.
func (s *service) ListAccountingClasses(ctx context.Context, req *pb.ListAccountingClassesRequest) (*pb.ListAccountingClassesResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListAccountingClassesResponse, error) {
		b, err := brandOf(tx, authz.Caller(ctx).Organization)
		if err != nil {
			return nil, err
		}
		ranges := []store.Range[*pb.AccountingClass]{classesInOrder.Range(b.GetId())}
		if req.GetShowDeleted() {
			ranges = append(ranges, deletedClasses.Range(b.GetId()))
		}
		page, next, err := store.Page(tx, req, func(c *pb.AccountingClass) bool { return !purgeDue(tx, c) }, ranges...)
		return &pb.ListAccountingClassesResponse{AccountingClasses: page, NextPageToken: next}, err
	})
}

// UpdateAccountingClass implements pb.AccountingClassServiceServer.
func (s *service) UpdateAccountingClass(ctx context.Context, req *pb.UpdateAccountingClassRequest) (*pb.UpdateAccountingClassResponse, error) {
	w := req.GetAccountingClass()
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateAccountingClassResponse, error) {
		c, err := accountingClass(ctx, tx, w.GetId(), w.GetEtag())
		if err != nil {
			return nil, err
		}
		if c.GetDeleteTime() != nil {
			return nil, fault.NotFound("accounting_class", w.GetId())
		}
		if err := mask.Apply(c, w, req.GetUpdateMask(), "name", "code", "position"); err != nil {
			return nil, err
		}
		if err := checkName("accounting_class.name", c.GetName()); err != nil {
			return nil, err
		}
		return &pb.UpdateAccountingClassResponse{AccountingClass: c}, accountingClasses.Put(tx, c)
	})
}

// DeleteAccountingClass implements pb.AccountingClassServiceServer.
func (s *service) DeleteAccountingClass(ctx context.Context, req *pb.DeleteAccountingClassRequest) (*pb.DeleteAccountingClassResponse, error) {
	return do(ctx, s, req, func(tx *store.Tx) (*pb.DeleteAccountingClassResponse, error) {
		c, err := accountingClass(ctx, tx, req.GetId(), req.GetEtag())
		if err != nil || c.GetDeleteTime() != nil {
			return &pb.DeleteAccountingClassResponse{AccountingClass: c}, err
		}
		c.DeleteTime, c.PurgeTime = endNow(tx)
		return &pb.DeleteAccountingClassResponse{AccountingClass: c}, accountingClasses.Put(tx, c)
	})
}

// UndeleteAccountingClass implements pb.AccountingClassServiceServer.
func (s *service) UndeleteAccountingClass(ctx context.Context, req *pb.UndeleteAccountingClassRequest) (*pb.UndeleteAccountingClassResponse, error) {
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UndeleteAccountingClassResponse, error) {
		c, err := accountingClass(ctx, tx, req.GetId(), req.GetEtag())
		if err != nil || c.GetDeleteTime() == nil {
			return &pb.UndeleteAccountingClassResponse{AccountingClass: c}, err
		}
		c.DeleteTime, c.PurgeTime = nil, nil
		return &pb.UndeleteAccountingClassResponse{AccountingClass: c}, addClass(tx, c)
	})
}

// purgeClasses erases accounting classes that were deleted long enough ago.
func purgeClasses(tx *store.Tx) int { return deleteDue(tx, accountingClasses, classesByPurge) }

// eraseClasses removes the accounting classes of a brand.
func eraseClasses(tx *store.Tx, brand string) {
	for c := range classesInOrder.Scan(tx, classesInOrder.Range(brand)) {
		accountingClasses.Delete(tx, c.GetId())
	}
	for c := range deletedClasses.Scan(tx, deletedClasses.Range(brand)) {
		accountingClasses.Delete(tx, c.GetId())
	}
}
