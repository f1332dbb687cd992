package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	testFunc  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
)

// TestAssurance keeps docs/assurance.md from promising what nothing shows.
func TestAssurance(t *testing.T) {
	there := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, "services"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			there[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "assurance.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasSuffix(line, "| Shown by |") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		shown := cells[len(cells)-1]
		named := namedTest.FindAllStringSubmatch(shown, -1)
		if len(cells) != 3 || len(named) == 0 && !strings.HasPrefix(shown, "Not ") {
			t.Errorf("the row %q names no test, and does not say why not", line)
		}
		for _, m := range named {
			if !there[m[1]] {
				t.Errorf("there is no test %s, which the row of %s names", m[1], strings.TrimSpace(cells[0]))
			}
		}
	}
	if rows < 50 {
		t.Errorf("%d rows were read", rows)
	}
}
