package storetest_test

import (
	"testing"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) func() store.Engine {
		m := storetest.NewMemory()
		return func() store.Engine {
			m.Reopen()
			return m
		}
	})
}
