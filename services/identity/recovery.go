package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	// recoveryCount is how many codes a person gets at a time.
	recoveryCount = 10
	// codeSize is how many random bytes a code that a person types has. 120 bits need no
	// slow hash.
	codeSize = 15
)

// typed is the alphabet of codes that a person types: without the letters that look
// like digits.
var typed = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newCode returns a code that a person types: 24 characters in groups of four.
func (s *service) newCode() string {
	text := typed.EncodeToString(s.hasher.bytes(codeSize))
	var groups []string
	for group := range slices.Chunk([]byte(text), 4) {
		groups = append(groups, string(group))
	}
	return strings.Join(groups, "-")
}

func (s *service) newRecoveryCodes() []string {
	codes := make([]string, recoveryCount)
	for i := range codes {
		codes[i] = s.newCode()
	}
	return codes
}

// plainCode returns a code in the one form in which it is hashed, whatever a person
// has made of it.
func plainCode(code string) string {
	return strings.NewReplacer("-", "", " ", "", "o", "0", "i", "1", "l", "1").Replace(strings.ToLower(code))
}

// typedHash is what a code of a person's that is typed is kept as.
func typedHash(user, code string) []byte {
	sum := sha256.Sum256([]byte(user + "/" + plainCode(code)))
	return sum[:]
}

func keepRecoveryCodes(tx *store.Tx, user string, codes []string) error {
	kept := &identitystorepb.RecoveryCodes{UserId: user, CreateTime: timestamppb.New(tx.Now())}
	for _, code := range codes {
		kept.Hashes = append(kept.Hashes, typedHash(user, code))
	}
	clearFailures(tx, recoveryFailures(user))
	return recoveryCodes.Put(tx, kept)
}

// keepFirstRecoveryCodes keeps codes for somebody who has none left, and reports whether
// it did.
func keepFirstRecoveryCodes(tx *store.Tx, user string, codes []string) (bool, error) {
	if kept, _ := recoveryCodes.Get(tx, user); len(kept.GetHashes()) > 0 {
		return false, nil
	}
	return true, keepRecoveryCodes(tx, user, codes)
}

// useRecoveryCode takes one of a person's codes, which is worth nothing afterwards.
func useRecoveryCode(tx *store.Tx, user string, hash []byte) error {
	kept, _ := recoveryCodes.Get(tx, user)
	i := slices.IndexFunc(kept.GetHashes(), func(h []byte) bool { return subtle.ConstantTimeCompare(h, hash) == 1 })
	if i < 0 {
		return proofWrong()
	}
	kept.Hashes = slices.Delete(kept.Hashes, i, i+1)
	return recoveryCodes.Put(tx, kept)
}

// RenewRecoveryCodes implements pb.FactorServiceServer.
func (s *service) RenewRecoveryCodes(ctx context.Context, req *pb.RenewRecoveryCodesRequest) (*pb.RenewRecoveryCodesResponse, error) {
	caller := authz.Caller(ctx)
	codes, kept := s.newRecoveryCodes(), false
	resp, err := changeFactors(ctx, s, req, callerAsSubject(caller), pathFactor, func(tx *store.Tx) (*pb.RenewRecoveryCodesResponse, error) {
		if !hasSecondFactor(tx, caller.ID) {
			return nil, fault.Refused("set up a second factor first: recovery codes stand in for one")
		}
		kept = true
		tellFactorAdded(tx, caller.ID, factorRecovery)
		return &pb.RenewRecoveryCodesResponse{}, keepRecoveryCodes(tx, caller.ID, codes)
	})
	if err == nil && kept && !req.GetValidateOnly() {
		resp.RecoveryCodes = codes
	}
	return resp, err
}
