package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// followCall is a call of backup --follow.
type followCall struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *bytes.Buffer
	ended chan error
}

func (s *suite) followInto(t *testing.T, args ...string) *followCall {
	t.Helper()
	c := &followCall{t, s.command(append([]string{"backup", "--follow", "--every=50ms"}, args...)...), &bytes.Buffer{}, make(chan error, 1)}
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.ended <- c.cmd.Wait() }()
	t.Cleanup(c.kill)
	return c
}

// await waits for something that it does.
func (c *followCall) await(what string, is func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !is(); {
		select {
		case err := <-c.ended:
			c.t.Fatalf("backup --follow has ended before %s: %v\n%s", what, err, c.out)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			c.kill()
			c.t.Fatalf("no %s; backup --follow has printed\n%s", what, c.out)
		}
	}
}

func (c *followCall) kill() {
	c.cmd.Process.Kill()
	if c.cmd.ProcessState == nil {
		err := <-c.ended
		c.ended <- err
	}
}

func (c *followCall) stop() (out string) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		c.t.Fatal(err)
	}
	err := <-c.ended
	c.ended <- err
	if err != nil {
		c.t.Fatalf("backup --follow ends with %v and prints\n%s", err, c.out)
	}
	return c.out.String()
}

// renames gives the first property of a company a name.
func (s *suite) renames(c *demo.Company, name string) {
	s.t.Helper()
	_, err := servicerequestpb.NewPropertyServiceClient(s).UpdateProperty(c.As(s.t.Context(), "PM"), &servicerequestpb.UpdatePropertyRequest{
		Property:   &servicerequestpb.Property{Id: c.Properties[0].GetId(), Name: &name},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// restoredName restores, and returns the name of the first property.
func (s *suite) restoredName(c *demo.Company, args ...string) (name string) {
	s.t.Helper()
	folder := filepath.Join(s.t.TempDir(), "restored")
	s.must(append([]string{"restore", "--store=bolt:" + folder}, args...)...)
	e, err := bolt.Open(filepath.Join(folder, "servicerequest.db"), bolt.Options{NoSync: true})
	if err != nil {
		s.t.Fatal(err)
	}
	properties := store.NewCollection("property", (*servicerequestpb.Property).GetId)
	db, err := store.Open(s.t.Context(), e, store.NewSchema(properties), store.Config{Now: time.Now})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	err = db.View(store.WithOrigin(context.Background(), store.Origin{Tenant: c.Organization}), func(tx *store.Tx) error {
		p, _ := properties.Get(tx, c.Properties[0].GetId())
		name = p.GetName()
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return name
}

// named returns how many of the names end so.
func named(names []string, suffix string) (n int) {
	for _, name := range names {
		if strings.HasSuffix(name, suffix) {
			n++
		}
	}
	return n
}

// TestFollowInBucket has a continuous backup, encrypted, in a bucket of each kind. It is killed, and
// called anew; a segment is refused, and one is taken without saying so. Whatever was committed
// can be restored, also as it was while nobody followed.
func TestFollowInBucket(t *testing.T) {
	s := one(t)
	c := s.fill()
	key := filepath.Join(t.TempDir(), "key")
	recipient := "--recipient=" + strings.TrimSpace(s.must("keygen", key))
	for _, kind := range bucketKinds {
		t.Run(kind.name, func(t *testing.T) {
			b := newObjectServer(t, kind)
			has := func(suffix string, n int) func() bool {
				return func() bool { return named(b.names("all/of it/"), suffix) >= n }
			}
			first := s.followInto(t, recipient, b.url("all/of it"))
			first.await("backup", has(".backup", 1))
			s.renames(c, "House of the first segment")
			first.await("segment", has(".segment", 1))
			first.kill()

			s.renames(c, "House that nobody followed")
			unfollowed := time.Now()
			s.renames(c, "House that everybody followed")
			second := s.followInto(t, recipient, b.url("all/of it"))
			second.await("second backup", has(".backup", 2))

			for _, f := range []fate{isLost, passesLast} {
				var met atomic.Bool
				b.will(func(name string) fate {
					if strings.HasSuffix(name, ".segment") && met.CompareAndSwap(false, true) {
						return f
					}
					return passes
				})
				before := b.names("all/of it/")
				s.renames(c, "House of fate "+string(rune('0'+f)))
				second.await("segment of a second try", func() bool {
					return slices.ContainsFunc(b.names("all/of it/"), func(name string) bool {
						return strings.HasSuffix(name, "-2.segment") && !slices.Contains(before, name)
					})
				})
			}
			s.renames(c, "House of the last segment")
			if out := second.stop(); !strings.Contains(out, "no segment now, trying again") {
				t.Errorf("backup --follow does not tell of what was refused:\n%s", out)
			}

			if code, out := s.does("verify", b.url("all/of it")); code != 1 || !strings.Contains(out, "says how to open it") {
				t.Errorf("verifying it without the key ends with %d and prints %s", code, out)
			}
			opens := "--identity-file=" + key
			if out := s.must("verify", opens, b.url("all/of it/")); strings.Contains(out, "SDK") {
				t.Errorf("verifying it prints what a driver says: %s", out)
			}
			if got := s.restoredName(c, opens, b.url("all/of it")); got != "House of the last segment" {
				t.Errorf("the property has the name %q", got)
			}
			at := "--at=" + unfollowed.UTC().Format(time.RFC3339Nano)
			if got := s.restoredName(c, opens, at, b.url("all/of it")); got != "House that nobody followed" {
				t.Errorf("at the instant at which nobody followed the property has the name %q", got)
			}
		})
	}
}

// TestFollowRenews has a continuous backup begin again and again, and remove what is old, in a
// folder and in a bucket. What is left is whole, and a segment that is missing is missed.
func TestFollowRenews(t *testing.T) {
	s := one(t)
	c := s.fill()
	b := newObjectServer(t, bucketKinds[0])
	folder := filepath.Join(t.TempDir(), "continuous")
	for place, names := range map[string]func() []string{
		folder:       func() []string { return namesIn(t, folder) },
		b.url("all"): func() []string { return b.names("all/") },
	} {
		call := s.followInto(t, "--renew=200ms", "--keep=1ms", place)
		var first string
		call.await("backup", func() bool {
			for _, name := range names() { // also segments, and a part of the next backup
				if series, is := strings.CutSuffix(name, ".backup"); is && first == "" {
					first = series
				}
			}
			return first != ""
		})
		if place == folder {
			left := filepath.Join(folder, "."+first+".000000009.segment.part-1")
			if err := os.WriteFile(left, nil, 0o600); err != nil { // as who is killed leaves it
				t.Fatal(err)
			}
		}
		s.renames(c, "House before")
		call.await("removal of the first backup", func() bool {
			return !slices.ContainsFunc(names(), func(name string) bool { return strings.Contains(name, first) })
		})
		s.renames(c, "House after")
		if out := call.stop(); !strings.Contains(out, "that nothing of the last 1ms needs") {
			t.Errorf("backup --follow does not tell what it removes:\n%s", out)
		}
		if got := s.restoredName(c, place); got != "House after" {
			t.Errorf("the property has the name %q", got)
		}
	}
	one := s.followInto(t, "--renew=0s", folder)
	one.await("segments", func() bool {
		s.renames(c, "House of "+time.Now().String())
		return named(namesIn(t, folder), ".000000002.segment") > 0
	})
	one.stop()
	for _, name := range namesIn(t, folder) {
		if strings.HasSuffix(name, ".000000001.segment") {
			if err := os.Remove(filepath.Join(folder, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if code, out := s.does("restore", folder, "--store=bolt:"+filepath.Join(t.TempDir(), "none")); code != 1 || !strings.Contains(out, "000000001.segment is missing") {
		t.Errorf("restoring without a segment ends with %d and prints %s", code, out)
	}
}

// namesIn returns the names of what is in a folder, which may not be there yet.
func namesIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
