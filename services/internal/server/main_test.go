package server_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"latchkey.dev/services/internal/server"
)

// asProcess names the environment variable by which the test's own program runs as a
// process of the suite.
const asProcess = "LATCHKEY_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		server.Main(newSuite().parts()...)
	}
	goleak.VerifyTestMain(m)
}
