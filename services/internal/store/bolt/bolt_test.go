package bolt_test

import (
	"path/filepath"
	"testing"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
	"latchkey.dev/services/internal/store/storetest"
)

func TestBolt(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() store.Engine {
		path := filepath.Join(t.TempDir(), "test.db")
		return func() store.Engine {
			e, err := bolt.Open(path, bolt.Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
	})
}
