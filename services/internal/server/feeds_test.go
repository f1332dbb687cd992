package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"latchkey.dev/services/internal/server"
)

// TestNoWatchHoldsUpTheEnd looks for a stream that never ends by itself, and for which a
// process would wait that is told to stop.
func TestNoWatchHoldsUpTheEnd(t *testing.T) {
	seen := 0
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				if !m.IsStreamingServer() || !strings.HasPrefix(string(m.Name()), "Watch") {
					continue
				}
				seen++
				if full := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()); !slices.Contains(server.Feeds, full) {
					t.Errorf("%s holds up a process that is to stop", full)
				}
			}
		}
		return true
	})
	if seen < 4 {
		t.Errorf("%d watches were found", seen)
	}
}
