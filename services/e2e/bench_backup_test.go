package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// stored returns a suite that is stopped, with n service requests.
func (b *bench) stored(n int) *suite {
	s := one(b.t)
	company := s.fill()
	s.stop()
	requests := store.NewCollection("service_request", (*servicerequestpb.ServiceRequest).GetId)
	newID, start := server.NewIDs(time.Now), time.Now().Add(-365*24*time.Hour)
	b.fill(s, "servicerequest", company.Organization, n, store.NewSchema(requests), func(tx *store.Tx, i int) error {
		return requests.Put(tx, someRequest(company, newID(), i, start.Add(time.Duration(i)*time.Second)))
	})
	return s
}

// seconds returns how long something takes.
func seconds(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}

// copied returns a measurement of how long it takes to copy the files of the stores, each
// synced.
func (b *bench) copied(s *suite) func() float64 {
	return func() float64 {
		folder := b.t.TempDir()
		return seconds(func() {
			for _, name := range names {
				if err := copyFile(filepath.Join(s.folder, name+".db"), filepath.Join(folder, name+".db")); err != nil {
					b.t.Fatal(err)
				}
			}
		})
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	// Through a writer of its own, so that the kernel does not share the blocks.
	_, err = io.Copy(struct{ io.Writer }{out}, struct{ io.Reader }{in})
	return errors.Join(err, out.Sync(), out.Close())
}

const backupRounds = 5

// backups measures the command backup with n service requests.
func (b *bench) backups(n int) finding {
	s := b.stored(n)
	var size int64
	took, ratio := beside(backupRounds, func() float64 {
		file := filepath.Join(b.t.TempDir(), "backup")
		defer os.Remove(file)
		took := seconds(func() { s.must("backup", file) })
		if info, err := os.Stat(file); err == nil {
			size = info.Size()
		}
		return took
	}, b.copied(s))
	return finding{rate(size, took), ratio, "the time to copy the stores' files, each synced"}
}

// restores measures the command restore, which verifies what it restores.
func (b *bench) restores(n int) finding {
	s := b.stored(n)
	file := filepath.Join(b.t.TempDir(), "backup")
	s.must("backup", file)
	info, err := os.Stat(file)
	if err != nil {
		b.t.Fatal(err)
	}
	took, ratio := beside(backupRounds, func() float64 {
		folder := filepath.Join(b.t.TempDir(), "restored")
		defer os.RemoveAll(folder)
		return seconds(func() { s.must("restore", file, "--store=bolt:"+folder) })
	}, b.copied(s))
	return finding{rate(info.Size(), took) + ", verified", ratio, "the time to copy the stores' files, each synced"}
}

func rate(size int64, took float64) string {
	return fmt.Sprintf("%.1f MiB/s", float64(size)/took/(1<<20))
}

// churn measures the file of a store in which the same rows are written again and again,
// and which then may be compacted.
func (b *bench) churn(compact bool) finding {
	path := filepath.Join(b.t.TempDir(), "churn.db")
	e, err := bolt.Open(path, bolt.Options{NoSync: true})
	if err != nil {
		b.t.Fatal(err)
	}
	defer e.Close()
	const rows, rewrites = 10_000, 20
	write := func() {
		for from := 0; from < rows; from += 100 {
			err := e.Update(b.t.Context(), func(store.Snapshot) (writes []store.Write, err error) {
				for i := range 100 {
					row := (from + i) * 7919 % rows
					writes = append(writes, store.Write{Key: fmt.Appendf(nil, "row%08d", row), Value: make([]byte, 1000)})
				}
				return writes, nil
			})
			if err != nil {
				b.t.Fatal(err)
			}
		}
	}
	size := func() float64 {
		info, err := os.Stat(path)
		if err != nil {
			b.t.Fatal(err)
		}
		return float64(info.Size())
	}
	write()
	before := size()
	for range rewrites {
		write()
	}
	if compact {
		if _, err := e.Compact(b.t.Context(), nil); err != nil {
			b.t.Fatal(err)
		}
	}
	return finding{fmt.Sprintf("%.0f MiB", size()/(1<<20)), size() / before, fmt.Sprintf("the file before %d rows were rewritten %d times", rows, rewrites)}
}
