package e2e

import (
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

var newGolden = flag.String("golden", "", "`name` of a new folder of golden data to write: see .ci/golden")

// golden is where data of each version of the format stays, to be opened by all later ones:
// in a folder per version the stores in files, a backup, an export, a database as SQL text, and how
// much is in each.
const golden = "testdata/golden"

// goldenParts are the files of a version beside those of the stores.
const (
	goldenBackup = "backup.gz"
	goldenExport = "export.gz"
	goldenDump   = "postgres.sql.gz"
	goldenCounts = "counts.json"
)

// TestGolden opens the data of every version in each of its forms. Nothing of it is
// damaged, and nothing is missing.
func TestGolden(t *testing.T) {
	if *newGolden != "" {
		writeGolden(t, filepath.Join(golden, *newGolden))
	}
	versions, err := os.ReadDir(golden)
	if err != nil || len(versions) == 0 {
		t.Fatalf("there is no golden data: %v", err)
	}
	for _, v := range versions {
		folder := filepath.Join(golden, v.Name())
		t.Run(v.Name()+" files", func(t *testing.T) {
			s := oneStopped(t, nil)
			for _, name := range names {
				unzip(t, filepath.Join(folder, name+".db.gz"), filepath.Join(s.folder, name+".db"))
			}
			s.mustHold(folder)
			s.again() // and it serves
		})
		t.Run(v.Name()+" backup", func(t *testing.T) {
			s := oneStopped(t, nil)
			file := filepath.Join(t.TempDir(), "golden.backup")
			unzip(t, filepath.Join(folder, goldenBackup), file)
			s.must("restore", file)
			s.mustHold(folder)
		})
		t.Run(v.Name()+" export", func(t *testing.T) {
			s := one(t)
			s.claim()
			file := filepath.Join(t.TempDir(), "golden.export")
			unzip(t, filepath.Join(folder, goldenExport), file)
			s.must("verify", file)
			if out := s.must("import", "--brand=Tamarisk", file); strings.Contains(out, " 0 people who are new") {
				t.Errorf("nobody has come along: %s", out)
			}
			s.must("verify")
		})
		t.Run(v.Name()+" database", func(t *testing.T) {
			s := oneStopped(t, nil)
			database, file := postgrestest.Database(t), filepath.Join(t.TempDir(), "golden.sql")
			unzip(t, filepath.Join(folder, goldenDump), file)
			program(t, "psql", "--quiet", "--set=ON_ERROR_STOP=1", "--file="+file, database)
			s.mustHold(folder, "--store="+database)
		})
	}
}

// mustHold fails the test unless the stores are whole and hold as much as the golden data.
// Rows of indexes may come and go with the version.
func (s *suite) mustHold(folder string, flags ...string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, goldenCounts))
	if err != nil {
		s.t.Fatal(err)
	}
	var want store.Verified
	if err := json.Unmarshal(text, &want); err != nil {
		s.t.Fatal(err)
	}
	got := s.counts(flags...)
	if got.Tenants != want.Tenants || got.Entries != want.Entries || got.Problems > 0 {
		s.t.Errorf("got %+v, want %+v", got, want)
	}
}

// counts verifies the stores and returns how much is in them.
func (s *suite) counts(flags ...string) (v store.Verified) {
	s.t.Helper()
	cmd := s.command(append([]string{"verify", "--format=json"}, flags...)...)
	cmd.Stderr = s.t.Output()
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &v)
	}
	if err != nil {
		s.t.Fatalf("verify: %v\n%s", err, out)
	}
	return v
}

// writeGolden writes the data of today's version.
func writeGolden(t *testing.T, folder string) {
	t.Helper()
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := one(t)
	c := s.fill()
	s.stop()
	for _, name := range names {
		zip(t, filepath.Join(s.folder, name+".db"), filepath.Join(folder, name+".db.gz"))
	}
	file, database := filepath.Join(t.TempDir(), "golden"), postgrestest.Database(t)
	s.must("backup", file)
	zip(t, file, filepath.Join(folder, goldenBackup))
	exported := filepath.Join(t.TempDir(), "export")
	s.must("export", c.Organization, exported)
	zip(t, exported, filepath.Join(folder, goldenExport))
	s.must("copy", "--to="+database)
	program(t, "pg_dump", "--no-owner", "--file="+file, database)
	zip(t, file, filepath.Join(folder, goldenDump))
	text, err := json.Marshal(s.counts())
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, goldenCounts), append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// program runs one of PostgreSQL's programs.
func program(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(filepath.Join(postgrestest.Programs(t), name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func zip(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = os.WriteFile(to, []byte(b.String()), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func unzip(t *testing.T, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
