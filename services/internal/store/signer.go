package store

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"slices"
)

// Signer returns the key with which the store's checkpoints are signed. It is made once,
// and then that of everybody who opens the data.
func (db *DB) Signer(ctx context.Context) (ed25519.PrivateKey, error) {
	var seed []byte
	err := db.engine.View(ctx, func(s Snapshot) (err error) {
		found, err := s.Get(signerKey)
		seed = slices.Clone(found)
		return err
	})
	if err == nil && seed == nil {
		seed, err = db.makeSigner(ctx)
	}
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// makeSigner makes the key unless somebody else just did.
func (db *DB) makeSigner(ctx context.Context) (seed []byte, err error) {
	err = db.engine.Update(ctx, func(s Snapshot) ([]Write, error) {
		found, err := s.Get(signerKey)
		if err != nil || found != nil {
			seed = slices.Clone(found)
			return nil, err
		}
		seed = make([]byte, ed25519.SeedSize)
		if _, err := rand.Read(seed); err != nil {
			return nil, err
		}
		return []Write{{signerKey, seed}}, nil
	})
	return seed, err
}
