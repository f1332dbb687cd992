package backup_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"latchkey.dev/services/internal/store/backup"
)

// taken returns a small backup.
func taken(t *testing.T) []byte {
	t.Helper()
	m, e := newModel(), engines["bolt"](t)
	db := openDB(t, e)
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 8 {
		if err := m.write(t.Context(), db, random, "acme", n); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: db.Pages()}}, Now: time.Now}
	if _, err := taking.Take(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// readAll reads a backup to its end.
func readAll(file []byte) error {
	r, err := backup.NewReader(bytes.NewReader(file))
	for err == nil {
		_, err = r.Next()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// TestEveryByte changes each byte of a small backup, one at a time, in one of its bits:
// each is found.
func TestEveryByte(t *testing.T) {
	file := taken(t)
	if err := readAll(file); err != nil {
		t.Fatal(err)
	}
	for i := range file {
		bit := byte(1) << rand.IntN(8)
		file[i] ^= bit
		if _, ok := errors.AsType[*backup.Damage](readAll(file)); !ok {
			t.Fatalf("byte %d of %d differs by %#x, and nobody noticed: %v", i, len(file), bit, readAll(file))
		}
		file[i] ^= bit
	}
}

// TestEveryLength cuts a small backup off, after each of its first bytes and some of the
// others, and adds one.
func TestEveryLength(t *testing.T) {
	file := taken(t)
	for n := 0; n < len(file); n += 1 + n/512 {
		if _, ok := errors.AsType[*backup.Damage](readAll(file[:n])); !ok {
			t.Fatalf("only %d bytes of %d are there, and nobody noticed", n, len(file))
		}
	}
	if _, ok := errors.AsType[*backup.Damage](readAll(append(file, 0))); !ok {
		t.Error("a byte follows the end, and nobody noticed")
	}
}
