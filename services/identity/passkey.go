package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

const (
	// maxPasskeys is how many one person can have.
	maxPasskeys = 20
	// maxCredentialID is how long the id of a credential may be (Web Authentication Level 3, 4).
	maxCredentialID = 1023
)

// transports are how a passkey can be reached. What else a browser tells is left out.
var transports = []protocol.AuthenticatorTransport{
	protocol.USB, protocol.NFC, protocol.BLE, protocol.SmartCard, protocol.Hybrid, protocol.Internal,
}

// passkeysOf returns all passkeys of a person.
func passkeysOf(tx *store.Tx, user string) []*pb.Passkey {
	return slices.Collect(passkeysByUser.Scan(tx, passkeysByUser.Range(user)))
}

// usablePasskeys returns those that prove something: of which nobody has a copy.
func usablePasskeys(tx *store.Tx, user string) []*pb.Passkey {
	return slices.DeleteFunc(passkeysOf(tx, user), func(p *pb.Passkey) bool { return p.GetCloneTime() != nil })
}

// keyOf returns what a passkey is verified by.
func keyOf(tx *store.Tx, p *pb.Passkey) (*identitystorepb.PasskeyKey, bool) {
	return passkeyKeyByUser.First(tx, p.GetUserId(), p.GetId())
}

// credentialKey is what a credential id is found by.
func credentialKey(id []byte) string {
	sum := sha256.Sum256(id)
	return tokenID(sum[:])
}

// myPasskey finds a passkey of the caller.
func myPasskey(tx *store.Tx, caller *authz.Principal, id, etag string) (*pb.Passkey, error) {
	p, ok := passkeys.Get(tx, id)
	if !ok || p.GetUserId() != caller.ID {
		return nil, fault.NotFound("passkey", id)
	}
	return p, passkeys.Match(p, etag)
}

// BeginPasskey implements pb.FactorServiceServer.
func (s *service) BeginPasskey(ctx context.Context, _ *pb.BeginPasskeyRequest) (*pb.BeginPasskeyResponse, error) {
	caller := authz.Caller(ctx)
	h, err := read(ctx, s, func(tx *store.Tx) (*holder, error) {
		if err := admit(tx, callerAsSubject(caller), pathFactor); err != nil {
			return nil, err
		}
		return holderOf(tx, caller.ID), checkRoom(tx, caller.ID)
	})
	if err != nil {
		return nil, err
	}
	c := s.newChallenge(caller.ID)
	c.SessionId, c.PasskeySetup = caller.SessionID, true
	options, err := s.creationOptions(h, c)
	if err != nil {
		return nil, err
	}
	setup, err := s.sealChallenge(c)
	return &pb.BeginPasskeyResponse{CreationOptions: options, Setup: setup}, err
}

// checkRoom says that a person has as many passkeys as one can have.
func checkRoom(tx *store.Tx, user string) error {
	if len(passkeysOf(tx, user)) >= maxPasskeys {
		return fault.Limit(fmt.Sprintf("passkeys of one person: %d", maxPasskeys), 0)
	}
	return nil
}

// CreatePasskey implements pb.FactorServiceServer.
func (s *service) CreatePasskey(ctx context.Context, req *pb.CreatePasskeyRequest) (*pb.CreatePasskeyResponse, error) {
	caller := authz.Caller(ctx)
	c, err := s.openChallenge(req.GetSetup())
	if err != nil {
		return nil, err
	}
	if c.GetSessionId() != caller.SessionID || !c.GetPasskeySetup() {
		return nil, challengeOver()
	}
	h, err := read(ctx, s, func(tx *store.Tx) (*holder, error) { return holderOf(tx, caller.ID), nil })
	if err != nil {
		return nil, err
	}
	made, err := s.madePasskey(h, c, req.GetResponse())
	if err != nil {
		return nil, err
	}
	who := callerAsSubject(caller)
	who.challenge = c.GetId()
	id, codes, kept := s.newID(), s.newRecoveryCodes(), false
	resp, err := changeFactors(ctx, s, req, who, pathConfirm, func(tx *store.Tx) (_ *pb.CreatePasskeyResponse, err error) {
		if err := spendChallenge(tx, c); err != nil {
			return nil, err
		}
		p, err := keepPasskey(tx, id, caller.ID, req.GetName(), made)
		if err != nil {
			return nil, err
		}
		kept, err = keepFirstRecoveryCodes(tx, caller.ID, codes)
		return &pb.CreatePasskeyResponse{Passkey: p}, err
	})
	if err == nil && kept && !req.GetValidateOnly() && resp.GetPasskey().GetId() == id {
		resp.RecoveryCodes = codes
	}
	return resp, err
}

// keepPasskey keeps a passkey that was made, and what it is verified by.
func keepPasskey(tx *store.Tx, id, user, name string, made *webauthn.Credential) (*pb.Passkey, error) {
	if err := checkRoom(tx, user); err != nil {
		return nil, err
	}
	if passkeyKeys.Has(tx, credentialKey(made.ID)) {
		return nil, fault.Exists("passkey", "response")
	}
	if len(made.ID) > maxCredentialID {
		return nil, passkeyUnfit(errors.New("the id of the credential is too long"))
	}
	p := &pb.Passkey{
		Id: id, UserId: user, Name: name, CreateTime: timestamppb.New(tx.Now()),
		BackupEligible: made.Flags.BackupEligible, BackedUp: made.Flags.BackupState, Discoverable: made.Extensions.RK,
	}
	if model, err := uuid.FromBytes(made.Authenticator.AAGUID); err == nil {
		p.Aaguid = model.String()
	}
	for _, t := range transports {
		if slices.Contains(made.Transport, t) {
			p.Transports = append(p.Transports, string(t))
		}
	}
	tellFactorAdded(tx, user, factorPasskey)
	err := passkeyKeys.Put(tx, &identitystorepb.PasskeyKey{
		Id: credentialKey(made.ID), PasskeyId: id, UserId: user,
		CredentialId: made.ID, PublicKey: made.PublicKey, SignCount: made.Authenticator.SignCount,
	})
	return p, errors.Join(err, passkeys.Put(tx, p))
}

// ListPasskeys implements pb.FactorServiceServer.
func (s *service) ListPasskeys(ctx context.Context, req *pb.ListPasskeysRequest) (*pb.ListPasskeysResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListPasskeysResponse, error) {
		page, next, err := store.Page(tx, req, nil, passkeysByUser.Range(authz.Caller(ctx).ID))
		for _, p := range page {
			withLastUse(tx, p)
		}
		return &pb.ListPasskeysResponse{Passkeys: page, NextPageToken: next}, err
	})
}

// UpdatePasskey implements pb.FactorServiceServer.
func (s *service) UpdatePasskey(ctx context.Context, req *pb.UpdatePasskeyRequest) (*pb.UpdatePasskeyResponse, error) {
	caller, in := authz.Caller(ctx), req.GetPasskey()
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdatePasskeyResponse, error) {
		if err := admit(tx, callerAsSubject(caller), pathFactor); err != nil {
			return nil, err
		}
		p, err := myPasskey(tx, caller, in.GetId(), in.GetEtag())
		if err != nil {
			return nil, err
		}
		if err := mask.Apply(p, in, req.GetUpdateMask(), "name"); err != nil {
			return nil, err
		}
		if err := checkName("passkey.name", p.GetName()); err != nil {
			return nil, err
		}
		return &pb.UpdatePasskeyResponse{Passkey: p}, passkeys.Put(tx, p)
	})
}

// DeletePasskey implements pb.FactorServiceServer.
func (s *service) DeletePasskey(ctx context.Context, req *pb.DeletePasskeyRequest) (*pb.DeletePasskeyResponse, error) {
	caller := authz.Caller(ctx)
	return changeFactors(ctx, s, req, callerAsSubject(caller), pathFactor, func(tx *store.Tx) (*pb.DeletePasskeyResponse, error) {
		p, err := myPasskey(tx, caller, req.GetId(), req.GetEtag())
		if err != nil {
			return nil, err
		}
		deletePasskey(tx, p)
		tellFactorRemoved(tx, caller.ID, factorPasskey)
		return &pb.DeletePasskeyResponse{}, checkFactorsLeft(tx, caller.ID)
	})
}

// deletePasskey removes a passkey and what it is verified by.
func deletePasskey(tx *store.Tx, p *pb.Passkey) {
	if k, ok := keyOf(tx, p); ok {
		passkeyKeys.Delete(tx, k.GetId())
	}
	passkeys.Delete(tx, p.GetId())
}

// withLastUse adds to a passkey when it last proved something.
func withLastUse(tx *store.Tx, p *pb.Passkey) *pb.Passkey {
	k, _ := keyOf(tx, p)
	p.LastUseTime = k.GetLastUseTime()
	return p
}

// passkeyUnfit says to whoever registers a passkey, who is signed in, why its answer does
// not do.
func passkeyUnfit(err error) error {
	text := err.Error()
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.Details != "" {
		text = e.Details
	}
	text = string([]rune(text)[:min(len([]rune(text)), 200)])
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_PROOF_WRONG,
		"this is no answer of a passkey to the setup: "+text, nil)
}
