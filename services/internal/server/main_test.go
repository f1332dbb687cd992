package server_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// asProcess names the environment variable by which the test's own program runs as a
// process of the suite; "hangs" is one whose LookupParts never returns.
const asProcess = "LATCHKEY_TEST_PROCESS"

func TestMain(m *testing.M) {
	if kind := os.Getenv(asProcess); kind != "" {
		s := newSuite()
		if kind == "hangs" {
			s.lookupParts = func(context.Context, *invoicingpb.LookupPartsRequest) (*invoicingpb.LookupPartsResponse, error) {
				fmt.Fprintln(os.Stderr, "hanging")
				select {}
			}
		}
		server.Main(nil, s.parts()...)
	}
	goleak.VerifyTestMain(stopped{m})
}

// stopped is the tests, and after them the end of the database that they share.
type stopped struct{ *testing.M }

// Run runs them.
func (s stopped) Run() int {
	defer postgrestest.Stop()
	return s.M.Run()
}
