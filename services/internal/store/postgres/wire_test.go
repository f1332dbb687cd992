package postgres

import (
	"bytes"
	"testing"

	"latchkey.dev/services/internal/store"
)

// TestRows keeps what it is given in memory of its own, and an empty value as such.
func TestRows(t *testing.T) {
	var got rows
	want := []store.Pair{
		{Key: bytes.Repeat([]byte("k"), 2*roomSize), Value: []byte{}},
		{Key: []byte("a"), Value: bytes.Repeat([]byte("v"), roomSize/8)},
	}
	for range 100 {
		want = append(want, store.Pair{Key: bytes.Repeat([]byte("k"), 70), Value: bytes.Repeat([]byte("v"), 200)})
	}
	scratch := make([]byte, 3*roomSize)
	for _, p := range want {
		key := scratch[:copy(scratch, p.Key)]
		value := scratch[len(key) : len(key)+copy(scratch[len(key):], p.Value)]
		got.add([][]byte{key, value})
	}
	for i, p := range got.pairs {
		if !bytes.Equal(p.Key, want[i].Key) || !bytes.Equal(p.Value, want[i].Value) || p.Value == nil {
			t.Errorf("pair %d: got %.20q=%.20q, want %.20q=%.20q", i, p.Key, p.Value, want[i].Key, want[i].Value)
		}
	}
}
