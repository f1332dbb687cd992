package postgres

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
	"latchkey.dev/services/internal/store/storetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	postgrestest.Stop()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var services atomic.Int64

// newService returns the name of a service that nobody has used.
func newService() string { return fmt.Sprintf("test%d", services.Add(1)) }

func TestPostgres(t *testing.T) {
	url := postgrestest.URL(t)
	storetest.Run(t, func(t *testing.T) func() store.Engine {
		if testing.Short() && strings.Contains(t.Name(), "/twice/") {
			t.Skip("it takes as long as the suite without it")
		}
		service := newService()
		return func() store.Engine {
			e, _, err := Open(context.Background(), url, service, store.MakeMissing)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
	})
}
