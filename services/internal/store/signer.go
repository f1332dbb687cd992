package store

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"slices"
)

// Signer returns the key with which the store's checkpoints are signed. It is made once,
// and then that of everybody who opens the data.
func (db *DB) Signer(ctx context.Context) (ed25519.PrivateKey, error) {
	seed, err := db.madeOnce(ctx, signerKey, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// ID names the store. One that was restored or copied from it is another.
func (db *DB) ID(ctx context.Context) (string, error) {
	id, err := db.madeOnce(ctx, idKey, 16)
	return hex.EncodeToString(id), err
}

// madeOnce returns random bytes that are the same for everybody who opens the data.
func (db *DB) madeOnce(ctx context.Context, key []byte, size int) (made []byte, err error) {
	err = db.engine.View(ctx, func(s Snapshot) error {
		found, err := s.Get(key)
		made = slices.Clone(found)
		return err
	})
	if err != nil || made != nil {
		return made, err
	}
	err = db.engine.Update(ctx, func(s Snapshot) ([]Write, error) {
		found, err := s.Get(key)
		if err != nil || found != nil { // somebody else just made them
			made = slices.Clone(found)
			return nil, err
		}
		made = make([]byte, size)
		if _, err := rand.Read(made); err != nil {
			return nil, err
		}
		return []Write{{key, made}}, nil
	})
	return made, err
}
