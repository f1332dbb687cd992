package house

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// root is the top of the repository.
const root = "../../.."

// services are the packages that are services. None imports another.
var services = []string{"identity", "permissions", "servicerequest", "scheduling", "invoicing"}

const (
	maxFile     = 500
	maxFunction = 70
)

// source is one Go file that people wrote.
type source struct {
	path string // below services/
	fset *token.FileSet
	*ast.File
	lines int
}

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) folder() string { return filepath.ToSlash(filepath.Dir(s.path)) }

func (s source) line(p token.Pos) int { return s.fset.Position(p).Line }

// parsed reads every Go file once for all tests.
var parsed = sync.OnceValues(func() ([]source, error) {
	var all []source
	top := filepath.Join(root, "services")
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		all = append(all, source{filepath.ToSlash(rel), fset, file, strings.Count(string(text), "\n")})
		return err
	})
	return all, err
})

func sources(t *testing.T) []source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("only %d Go files were found below %s/services: looked in the wrong place", len(all), root)
	}
	return all
}

func TestImports(t *testing.T) {
	const module = "latchkey.dev/services/"
	for _, s := range sources(t) {
		for _, imp := range s.Imports {
			path, ok := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
			if !ok || s.test() || !slices.Contains(services, path) {
				continue
			}
			switch folder, _, _ := strings.Cut(s.folder(), "/"); {
			case folder == "internal":
				t.Errorf("%s imports the service %s: what is in internal is written once and knows no business", s.path, path)
			case slices.Contains(services, folder):
				t.Errorf("%s imports the service %s: a service calls another and never imports it", s.path, path)
			}
		}
	}
}

// TestPrograms wants those that run the service which keeps files, and no others, to reach
// buckets: the drivers are large.
func TestPrograms(t *testing.T) {
	const module = "latchkey.dev/services/"
	found := 0
	for _, s := range sources(t) {
		if !strings.HasPrefix(s.path, "cmd/") || s.test() {
			continue
		}
		imports := func(path string) bool {
			return slices.ContainsFunc(s.Imports, func(i *ast.ImportSpec) bool { return strings.Trim(i.Path.Value, `"`) == module+path })
		}
		if keeps := imports("servicerequest"); keeps != imports("internal/bucket") {
			t.Errorf("%s runs the service that keeps files: %v, and imports internal/bucket: %v", s.path, keeps, !keeps)
		} else if keeps {
			found++
		}
	}
	if found < 2 {
		t.Errorf("%d programs keep files", found)
	}
}

func TestNames(t *testing.T) {
	for _, s := range sources(t) {
		switch name := strings.TrimSuffix(s.Name.Name, "_test"); name {
		case "common", "util", "utils", "helpers", "types", "models", "shared":
			t.Errorf("%s is in a package called %s, which says nothing: name it after what it does", s.path, name)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > maxFile {
			t.Errorf("%s has %d lines, more than %d: cut it where the subject changes", s.path, s.lines, maxFile)
		}
		for _, d := range s.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				if n := s.line(f.End()) - s.line(f.Pos()) + 1; n > maxFunction {
					t.Errorf("%s:%d: %s has %d lines, more than %d: name its parts", s.path, s.line(f.Pos()), f.Name.Name, n, maxFunction)
				}
			}
		}
	}
}

func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s:%d: func init runs behind the reader's back: call it where it is needed", s.path, s.line(f.Pos()))
			}
		}
	}
}

// clocks are the places that may ask for the time, and dice those that may throw one: the
// rest is given both, so that a test can choose them.
var (
	clocks = []string{"internal/server", "internal/servertest", "internal/trial", "internal/lease/clock.go", "internal/lease/load.go", "internal/store/postgres", "internal/store/storetest"}
	dice   = []string{"internal/server", "internal/lease/feed.go", "internal/store/postgres"}
)

func (s source) among(places []string) bool {
	return s.test() || slices.ContainsFunc(places, func(p string) bool { return strings.HasPrefix(s.path, p) })
}

func TestTimeIsGiven(t *testing.T) {
	for _, s := range sources(t) {
		if s.among(clocks) {
			continue
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Now" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s:%d: time.Now: take the time from Env.Now or from the transaction", s.path, s.line(sel.Pos()))
				}
			}
			return true
		})
	}
}

func TestChanceIsGiven(t *testing.T) {
	for _, s := range sources(t) {
		for _, imp := range s.Imports {
			if path := strings.Trim(imp.Path.Value, `"`); strings.HasPrefix(path, "math/rand") && !s.among(dice) {
				t.Errorf("%s imports %s: take ids from Env.NewID, and leave pauses between attempts to package server", s.path, path)
			}
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, d := range s.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s:%d: %s is exported and has no comment: say what a caller may assume", s.path, s.line(name.Pos()), name.Name)
			}
		}
	}
}

// undocumented returns the exported names of a declaration that have no comment. A
// method is documented by the interface that it implements if its type is not exported.
func undocumented(d ast.Decl) []*ast.Ident {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || receiver(d).IsExported()) {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		return undocumentedIn(d)
	}
	return nil
}

// receiver returns the name of a method's type.
func receiver(d *ast.FuncDecl) *ast.Ident {
	for e := d.Recv.List[0].Type; ; {
		switch t := e.(type) {
		case *ast.StarExpr:
			e = t.X
		case *ast.IndexExpr:
			e = t.X
		case *ast.IndexListExpr:
			e = t.X
		case *ast.Ident:
			return t
		default:
			panic("house: the receiver of " + d.Name.Name + " has no name")
		}
	}
}

func undocumentedIn(d *ast.GenDecl) []*ast.Ident {
	var names []*ast.Ident
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
				names = append(names, spec.Name)
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

var failures = regexp.MustCompile(`\b(Fails|fails)\s+(with|as|if|where)\b|\bNever fails\b|otherwise as \w+`)

var rpc = regexp.MustCompile(`^\s*rpc (\w+)\(`)

// TestMethodsNameTheirFailures reads the .proto files as text: the comment above each
// method must say how it fails.
func TestMethodsNameTheirFailures(t *testing.T) {
	found := 0
	err := filepath.WalkDir(filepath.Join(root, "proto"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".proto" {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		comment := ""
		for lines := bufio.NewScanner(file); lines.Scan(); {
			text := strings.TrimSpace(lines.Text())
			if c, ok := strings.CutPrefix(text, "//"); ok {
				comment += c
				continue
			}
			if m := rpc.FindStringSubmatch(lines.Text()); m != nil {
				found++
				if !failures.MatchString(comment) {
					t.Errorf("%s: the comment of %s does not name its failures: write \"Fails with CODE if ...\"", path, m[1])
				}
			}
			comment = ""
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 100 {
		t.Fatalf("only %d methods were found: looked in the wrong place", found)
	}
}
