package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// notShared is what one of the three databases has and another lacks, or does otherwise.
var notShared = regexp.MustCompile(`(?i)\b(LISTEN|NOTIFY|UNLISTEN|pg_\w+|advisory|serial|bigserial|smallserial|identity|sequence|nextval|` +
	`SKIP LOCKED|FOR (NO KEY )?UPDATE|FOR KEY SHARE|UPSERT|MERGE|LOCK TABLE|CURSOR|FETCH|COPY|VACUUM|ANALYZE|CLUSTER|TRIGGER|FUNCTION|` +
	`LANGUAGE|EXTENSION|PARTITION|INHERITS|TABLESPACE|UNLOGGED|TEMP(ORARY)?|CONCURRENTLY|USING|COLLATE|DOMAIN|xmin|ctid|txid_\w+|` +
	`SAVEPOINT|PREPARE TRANSACTION|DEFERRABLE|AS OF|RULE|EXCLUDE|MATERIALIZED|WITH|TRUNCATE|ALTER)\b`)

// TestOnlySharedSQL finds every statement of the package in the list of its
// documentation, and nothing in it that the databases do not share.
func TestOnlySharedSQL(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	_, list, _ := strings.Cut(string(doc), "# Statements")
	for line := range strings.Lines(list) {
		if text, ok := strings.CutPrefix(line, "//\t"); ok {
			listed[strings.TrimSpace(text)] = true
		}
	}
	used := map[string]bool{}
	for _, statement := range allStatements(t) {
		if found := notShared.FindString(statement); found != "" {
			t.Errorf("%q is not in all databases: %s", found, statement)
		}
		statement = strings.NewReplacer(`"x_`, "", `_v1"`, "").Replace(statement)
		if used[statement] = true; !listed[statement] {
			t.Errorf("doc.go does not list: %s", statement)
		}
	}
	for statement := range listed {
		if !used[statement] {
			t.Errorf("doc.go lists what is not used: %s", statement)
		}
	}
}

// allStatements returns every statement for a service x.
func allStatements(t *testing.T) []string {
	t.Helper()
	s, err := statementsFor("x")
	if err != nil {
		t.Fatal(err)
	}
	all := []string{createVersions, readVersion, firstVersion, nextVersion, s.turns, s.resolve, s.forget, s.sweep}
	all = append(all, s.prepared[:]...)
	for _, s := range settings {
		all = append(all, s)
	}
	for _, layout := range layouts {
		all = append(all, layout("x")...)
	}
	return all
}

// TestSQLIsInItsFiles finds no statements in other files than those of allStatements.
func TestSQLIsInItsFiles(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	statement := regexp.MustCompile("[\"`](SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|BEGIN|ROLLBACK|SET|WITH) ?[^\"`]*[\"`]")
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || slices.Contains([]string{"sql.go", "schema.go"}, name) {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := statement.Find(text); found != nil {
			t.Errorf("%s has a statement: %s", name, found)
		}
	}
}

// TestPlans asks PostgreSQL how it finds the rows of each statement: never by reading a
// whole table, also when it knows nothing of it.
func TestPlans(t *testing.T) {
	e := mustOpen(t, postgrestest.URL(t), newService())
	conn, err := e.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	p := e.sql.prepared
	for i, c := range []struct{ statement, arguments string }{
		{p[getSQL], `('k')`}, {p[getAllSQL], `('{k}')`}, {p[scanSQL], `('a', 'b', 10)`}, {p[scanBackSQL], `('a', 'b', 10)`},
		{p[dropSQL], `('{k}')`}, {p[fenceSQL], `('k')`}, {e.sql.forget, `('{k}')`},
	} {
		name := fmt.Sprint("plan", i)
		if _, err := conn.Exec(t.Context(), "PREPARE "+name+" AS "+c.statement); err != nil {
			t.Fatal(err)
		}
		rows, _ := conn.Query(t.Context(), "EXPLAIN EXECUTE "+name+c.arguments)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		plan := strings.Join(lines, "\n")
		if err != nil || !strings.Contains(plan, "Index Scan") || strings.Contains(plan, "Sort") {
			t.Errorf("%s\n%s, %v", c.statement, plan, err)
		}
	}
}
