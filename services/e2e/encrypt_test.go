package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// TestEncryption encrypts what export and backup write, and opens it with the key or the
// passphrase, and not with another or after a byte was changed.
func TestEncryption(t *testing.T) {
	s := one(t)
	c := s.fill()
	want := s.properties(c)
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	recipient := strings.TrimSpace(s.must("keygen", in("key")))
	s.must("keygen", in("other"))
	if info, err := os.Stat(in("key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v (%v), want 0600", info.Mode(), err)
	}
	if code, out := s.does("keygen", in("key")); code != 1 || !strings.Contains(out, "never overwritten") || strings.Contains(out, "age1") {
		t.Errorf("a key over another ends with %d and prints %s", code, out)
	}
	if out := s.must("export", "--recipient="+recipient, c.Organization, in("export")); !strings.Contains(out, "encrypted") {
		t.Errorf("the export prints %s", out)
	}
	opensByKeyOnly(t, in("export"), in("key"))
	refusals(t, s, in)

	key := "--identity-file=" + in("key")
	s.must("verify", key, in("export"))
	s.must("verify", "--quick", key, in("export"))
	there := one(t)
	there.claim()
	there.must("import", "--brand=Tamarisk", key, in("export"))
	if !there.nobodyOrAll(c, want) {
		t.Error("nobody can sign in after the import")
	}

	if err := os.WriteFile(in("passphrase"), []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.must("backup", "--passphrase-file="+in("passphrase"), in("backup"))
	if code, out := s.does("restore", key, in("backup"), "--store=bolt:"+in("wrong")); code != 1 || !strings.Contains(out, "another passphrase") {
		t.Errorf("restoring with a key what has a passphrase ends with %d and prints %s", code, out)
	}
	s.must("restore", "--passphrase-file="+in("passphrase"), in("backup"), "--store=bolt:"+in("restored"))
	if code, out := s.does("backup", "--follow", "--passphrase-file="+in("passphrase"), in("followed")); code != 2 {
		t.Errorf("following with a passphrase ends with %d and prints %s", code, out)
	}
}

// opensByKeyOnly wants nothing in a file to be in the open, and any tool for such files to open it.
func opensByKeyOnly(t *testing.T, file, key string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("latchkey backup")) || bytes.Contains(data, []byte("harbour-lane")) {
		t.Error("the file shows what is in it")
	}
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := age.Decrypt(bytes.NewReader(data), keys...)
	start := make([]byte, 16)
	if err == nil {
		_, err = plain.Read(start)
	}
	if err != nil || string(start) != "latchkey backup\n" {
		t.Errorf("what is in the file begins with %q (%v)", start, err)
	}
}

// refusals are what no command takes for an export.
func refusals(t *testing.T, s *suite, in func(string) string) {
	t.Helper()
	data, err := os.ReadFile(in("export"))
	if err != nil {
		t.Fatal(err)
	}
	changed := func(name string, change func(b []byte) []byte) string {
		if err := os.WriteFile(in(name), change(bytes.Clone(data)), 0o600); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	flipped := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			b[at] ^= 0x10
			return b
		}
	}
	const damaged = "damaged"
	for _, c := range []struct{ what, key, file, says string }{
		{"no key", "", in("export"), "says how to open it"},
		{"another key", in("other"), in("export"), "another key"},
		{"a key, and what is not encrypted", in("key"), changed("plain", func([]byte) []byte { return []byte("latchkey backup\n and so on") }), "is not encrypted"},
		{"its middle changed", in("key"), changed("middle", flipped(len(data)/2)), damaged},
		{"its end changed", in("key"), changed("end", flipped(len(data)-1)), damaged},
		{"its header changed", in("key"), changed("header", flipped(bytes.Index(data, []byte("\n--- "))+6)), damaged},
		{"cut off", in("key"), changed("half", func(b []byte) []byte { return b[:len(b)/2] }), damaged},
		{"cut off between two chunks", in("key"), changed("chunk", func(b []byte) []byte { return b[:afterChunk(b)] }), damaged},
	} {
		for _, args := range [][]string{{"verify", "--quick"}, {"import", "--brand=Harbour Lane"}} {
			if c.key != "" {
				args = append(args, "--identity-file="+c.key)
			}
			if code, out := s.does(append(args, c.file)...); code != 1 || !strings.Contains(out, c.says) {
				t.Errorf("%s: %s ends with %d and prints %s", c.what, args[0], code, out)
			}
		}
	}
	for _, args := range [][]string{
		{"backup", "--recipient=age1nobody", in("none")},
		{"backup", "--recipient=" + strings.TrimSpace(string(data[:10])), "--passphrase-file=" + in("key"), in("none")},
	} {
		if code, out := s.does(args...); code != 2 {
			t.Errorf("%q ends with %d and prints %s", args, code, out)
		}
	}
}

// afterChunk returns where the first chunk of what age has encrypted ends.
func afterChunk(b []byte) int {
	mac := bytes.Index(b, []byte("\n--- "))
	line := mac + 1 + bytes.IndexByte(b[mac+1:], '\n') + 1
	return line + 16 + 64<<10 + 16 // the nonce, and a chunk with its tag
}
