package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"latchkey.dev/services/internal/seal"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// Engines are the kinds of databases that a program can keep its stores in, by the scheme
// of their URLs. Each function opens the store of one service, and tells whether this call
// made it.
type Engines map[string]func(ctx context.Context, url, service string, how store.Opening) (e store.Engine, made bool, err error)

const wantStore = "expected bolt:FOLDER, or postgres://USER@HOST/DATABASE"

// database returns the scheme of the database that the stores are in, or false if they are
// in a folder.
func (c *Config) database() (scheme string, ok bool) {
	scheme, _, ok = strings.Cut(c.Store, "://")
	if scheme == "postgresql" {
		scheme = "postgres"
	}
	return scheme, ok && scheme != "bolt"
}

// folder returns the folder of a bolt store.
func (c *Config) folder() (string, error) {
	path, ok := strings.CutPrefix(c.Store, "bolt:")
	path = strings.TrimPrefix(path, "//")
	if !ok || path == "" {
		return "", fmt.Errorf("--store %q: %s", c.Store, wantStore)
	}
	return filepath.Abs(path)
}

// checkStore says what is wrong with --store.
//
// SECURITY: the URL of a database may have a password in it, so no error shows it.
func (c *Config) checkStore() error {
	scheme, ok := c.database()
	switch {
	case ok && scheme != "postgres":
		return fmt.Errorf("--store %s://...: %s", scheme, wantStore)
	case ok:
		return nil
	}
	_, err := c.folder()
	return err
}

// openStores opens the store of each part.
func (p *Process) openStores(ctx context.Context, o Options) error {
	open, err := p.opener(o)
	if err != nil {
		return err
	}
	for _, part := range p.parts {
		if part.Schema == nil {
			continue
		}
		engine, made, err := open(ctx, part.Name)
		if err != nil {
			return err
		}
		db, err := store.Open(ctx, engine, part.Schema, store.Config{
			Now: p.now, Log: p.log.With("service", part.Name), Fatal: p.fail,
		})
		if err != nil {
			return fmt.Errorf("open the store of %s: %w", part.Name, err)
		}
		p.stores[part.Name], p.first[part.Name] = db, made
	}
	return nil
}

// opener returns what opens the engine of a service, and tells whether it was made.
func (p *Process) opener(o Options) (func(ctx context.Context, service string) (store.Engine, bool, error), error) {
	if scheme, ok := p.config.database(); ok {
		open := o.Engines[scheme]
		if open == nil {
			return nil, fmt.Errorf("--store %s://...: this program cannot keep its data there", scheme)
		}
		return func(ctx context.Context, service string) (store.Engine, bool, error) {
			return open(ctx, p.config.Store, service, store.MakeMissing)
		}, nil
	}
	folder, err := p.config.folder()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the store: %w", err)
	}
	return func(_ context.Context, service string) (store.Engine, bool, error) {
		path := filepath.Join(folder, service+".db")
		_, err := os.Stat(path)
		made := errors.Is(err, os.ErrNotExist)
		engine, err := bolt.Open(path, bolt.Options{MaxBytes: o.MaxBytes})
		if err != nil {
			return nil, false, err
		}
		return engine, made, nil
	}, nil
}

// key returns the secret that the processes of the suite share. It is made if nobody
// gave one: in the folder of the stores, or if they are in a database and no other
// process takes part, for this run.
func (p *Process) key() (string, error) {
	c := &p.config
	if _, ok := c.database(); !ok {
		folder, err := c.folder()
		if err != nil {
			return "", err
		}
		return c.serviceKey(folder, randomSecret)
	}
	switch {
	case c.ServiceKey != "" || c.ServiceKeyFile != "":
		return c.serviceKey("", randomSecret)
	case len(c.Peers) > 0 || len(p.parts) == 1:
		return "", errors.New("--service-key-file is missing: with a database as the store, services in several processes " +
			"need one secret of at least 32 characters that all are given, by --service-key-file or LATCHKEY_SERVICE_KEY")
	}
	return randomSecret(), nil
}

// openSeal opens the box that seals secrets. Its file is made if the stores are in a
// folder and nobody named one.
func (p *Process) openSeal() (*seal.Box, error) {
	name := p.config.SealKeyFile
	if name == "" {
		if _, ok := p.config.database(); ok {
			return nil, errors.New("--seal-key-file is missing: with a database as the store, secrets in it are encrypted with " +
				"one of at least 32 characters that all processes are given as a file")
		}
		folder, err := p.config.folder()
		if err != nil {
			return nil, err
		}
		name = filepath.Join(folder, "seal.key")
		if err := createOnce(name, randomSecret()+"\n"); err != nil {
			return nil, fmt.Errorf("make the key that seals secrets: %w", err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the key that seals secrets: %w", err)
	}
	box, err := seal.Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("--seal-key-file %s: %w", name, err)
	}
	return box, nil
}

// countsFolder returns where the files are that what is used is counted in, "" if nowhere.
// It is made if it is missing.
func (c *Config) countsFolder() (string, error) {
	if c.Counts == "" {
		if _, ok := c.database(); ok {
			return "", nil
		}
		return c.folder()
	}
	if err := os.MkdirAll(c.Counts, 0o700); err != nil {
		return "", fmt.Errorf("make the folder --counts: %w", err)
	}
	return c.Counts, nil
}

// blobsFolder returns where blobs are if --blobs does not say.
func (c *Config) blobsFolder() (string, error) {
	if _, ok := c.database(); ok {
		return "", errors.New("--blobs is missing: with a database as the store, photos and videos need a place " +
			"that all processes reach, for example --blobs=file:///FOLDER")
	}
	folder, err := c.folder()
	return filepath.Join(folder, "blobs"), err
}
