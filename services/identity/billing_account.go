package identity

import (
	"context"
	"regexp"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// accountOf finds the billing account of an organization, empty while nothing was said.
func accountOf(tx *store.Tx, organization string) *pb.BillingAccount {
	if a, ok := billingAccounts.Get(tx, organization); ok {
		return a
	}
	return &pb.BillingAccount{Id: organization}
}

// GetBillingAccount implements pb.BillingAccountServiceServer.
func (s *service) GetBillingAccount(ctx context.Context, _ *pb.GetBillingAccountRequest) (*pb.GetBillingAccountResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetBillingAccountResponse, error) {
		return &pb.GetBillingAccountResponse{BillingAccount: accountOf(tx, authz.Caller(ctx).Organization)}, nil
	})
}

// UpdateBillingAccount implements pb.BillingAccountServiceServer.
func (s *service) UpdateBillingAccount(ctx context.Context, req *pb.UpdateBillingAccountRequest) (*pb.UpdateBillingAccountResponse, error) {
	organization, wanted := authz.Caller(ctx).Organization, req.GetBillingAccount()
	if id := wanted.GetId(); id != "" && id != organization {
		return nil, fault.NotFound("billing_account", id)
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateBillingAccountResponse, error) {
		a := accountOf(tx, organization)
		if err := billingAccounts.Match(a, wanted.GetEtag()); err != nil {
			return nil, err
		}
		err := mask.Apply(a, wanted, req.GetUpdateMask(), "legal_name", "email", "address", "tax_id",
			"purchase_order_number", "payment_method", "payment_reference")
		if err != nil {
			return nil, err
		}
		if err := checkAccount(a); err != nil {
			return nil, err
		}
		return &pb.UpdateBillingAccountResponse{BillingAccount: a}, billingAccounts.Put(tx, a)
	})
}

// accountNumber is what a card or a bank account has: not a name that a processor gives.
//
// SECURITY: such numbers must not come onto this disk at all.
var accountNumber = regexp.MustCompile(`^([0-9-]{12,}|[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30})$`)

// checkAccount says what of a billing account will not do.
func checkAccount(a *pb.BillingAccount) (err error) {
	if a.Email, err = emailOrNone("billing_account.email", a.GetEmail()); err != nil {
		return err
	}
	kept := a.GetPaymentMethod() == pb.PaymentMethod_PAYMENT_METHOD_CARD || a.GetPaymentMethod() == pb.PaymentMethod_PAYMENT_METHOD_DIRECT_DEBIT
	switch reference := a.GetPaymentReference(); {
	case kept && reference == "":
		return fault.Invalid("billing_account.payment_reference", "must say under which name the processor keeps the card or the mandate")
	case !kept && reference != "":
		return fault.Invalid("billing_account.payment_reference", "must be left out but for CARD and DIRECT_DEBIT")
	case accountNumber.MatchString(reference):
		return fault.Invalid("billing_account.payment_reference", "must be the processor's name for it, never the number of a card or an account")
	}
	return nil
}
