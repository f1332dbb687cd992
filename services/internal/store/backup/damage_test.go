package backup_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"latchkey.dev/services/internal/store/backup"
	"latchkey.dev/services/internal/trial"
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

// TestEveryByte changes each byte of a small backup, one at a time, in one of its bits, or
// in a long run in each of them: all are found.
func TestEveryByte(t *testing.T) {
	tr := trial.New(t, "a flipped bit in a backup", "bolt")
	file := taken(t)
	if err := readAll(file); err != nil {
		t.Fatal(err)
	}
	for i := range file {
		for _, n := range rand.Perm(8)[:trial.Times(1, 8)] {
			bit := byte(1) << n
			file[i] ^= bit
			if _, ok := errors.AsType[*backup.Damage](readAll(file)); !ok {
				tr.Wrong("byte %d of %d differs by %#x, and nobody noticed: %v", i, len(file), bit, readAll(file))
			}
			file[i] ^= bit
			tr.Tried()
		}
	}
}

// TestEveryLength cuts a small backup off, after each of its first bytes and some of the
// others, and adds one.
func TestEveryLength(t *testing.T) {
	tr := trial.New(t, "a backup that was cut off", "bolt")
	file := taken(t)
	for n := 0; n < len(file); n += 1 + n/512 {
		tr.Tried()
		if _, ok := errors.AsType[*backup.Damage](readAll(file[:n])); !ok {
			tr.Wrong("only %d bytes of %d are there, and nobody noticed", n, len(file))
		}
	}
	if _, ok := errors.AsType[*backup.Damage](readAll(append(file, 0))); !ok {
		tr.Wrong("a byte follows the end, and nobody noticed")
	}
}
