package lease

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(frozenEnv) != "" {
		os.Exit(beSubscriber())
	}
	goleak.VerifyTestMain(m)
}
