package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"latchkey.dev/services/demo"
)

var update = flag.Bool("update", false, "write the answers that the suite gives into the scripts, to be reviewed")

// A script is a story in steps. A step is a line
//
//	WHO METHOD [as NAME]
//
// the request in JSON, and after "=>" the whole answer, or after "!!" the error: its code,
// its reason, and what its metadata must say. WHO is the code of a role in the
// demonstration company, or nobody; "eventually" before it waits for the answer, which
// comes by an event. "as NAME" keeps the id of the record that was answered, which
// later steps write $NAME. A file is written as its lines: see script_file_test.go. In answers <time>, <duration>, <id> and so on stand for values that
// differ from run to run, and "may" for the available actions that are allowed.
// A line with # is for the reader.
type script struct {
	name  string
	parts []part
}

// part is a step, or text between steps.
type part struct {
	text string
	step *step
}

type step struct {
	line    int
	wait    bool
	who     string
	method  string
	as      string
	request string
	fails   bool
	answer  string
}

var heads = regexp.MustCompile(`^(eventually )?([A-Z]{2}\+?|nobody) (\S+)(?: as (\w+))?$`)

func readScript(t *testing.T, name string) *script {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("scripts", name))
	if err != nil {
		t.Fatal(err)
	}
	s := &script{name: name}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		if lines[i] == "" || strings.HasPrefix(lines[i], "#") {
			s.parts = append(s.parts, part{text: lines[i]})
			continue
		}
		end := i
		for end < len(lines) && lines[end] != "" {
			end++
		}
		st, err := readStep(lines[i:end])
		if err != nil {
			t.Fatalf("%s:%d: %v", name, i+1, err)
		}
		st.line = i + 1
		s.parts = append(s.parts, part{step: st})
		i = end - 1
	}
	return s
}

func readStep(lines []string) (*step, error) {
	m := heads.FindStringSubmatch(lines[0])
	if m == nil {
		return nil, fmt.Errorf("expected WHO METHOD [as NAME], got %q", lines[0])
	}
	st := &step{wait: m[1] != "", who: m[2], method: m[3], as: m[4]}
	text := strings.Join(lines[1:], "\n") + "\n"
	for sep, fails := range map[string]bool{"=>": false, "!!": true} {
		if before, after, ok := strings.Cut("\n"+text, "\n"+sep); ok {
			st.request, st.answer, st.fails = strings.TrimSpace(before), strings.TrimSpace(after), fails
			return st, nil
		}
	}
	st.request = strings.TrimSpace(text)
	return st, nil
}

func (st *step) String() string {
	var b strings.Builder
	if st.wait {
		b.WriteString("eventually ")
	}
	fmt.Fprintf(&b, "%s %s", st.who, st.method)
	if st.as != "" {
		b.WriteString(" as " + st.as)
	}
	if st.request != "" {
		b.WriteString("\n" + st.request)
	}
	sign := "=>"
	if st.fails {
		sign = "!!"
	}
	return b.String() + "\n" + sign + " " + st.answer
}

// teller runs a script in a suite.
type teller struct {
	t       *testing.T
	suite   *suite
	company *demo.Company
	over    caller
	vars    map[string]string // by name, without the dollar
	calls   []made
}

// patience is how long a test waits for what must happen. Only one that fails waits so long.
const patience = time.Minute

// made is a call that the story made.
type made struct {
	who    string
	method method
	req    proto.Message
}

func newTeller(t *testing.T, s *suite) *teller { return newTellerOver(t, s, s) }

// caller makes the calls of a story.
type caller interface {
	grpc.ClientConnInterface
	call(ctx context.Context, m method, req proto.Message) (proto.Message, error)
}

func newTellerOver(t *testing.T, s *suite, over caller) *teller {
	c, err := demo.Fill(t.Context(), over, code)
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"organization": c.Organization, "agent": c.Agent.GetId()}
	for _, p := range c.People {
		vars[strings.ReplaceAll(p.Role, "+", "plus")] = p.ID
	}
	for i, p := range c.Properties {
		vars[fmt.Sprintf("property%d", i+1)] = p.GetId()
	}
	for i, u := range c.Units {
		vars[fmt.Sprintf("unit%d", i+1)] = u.GetId()
	}
	for i, p := range c.Parts {
		vars[fmt.Sprintf("part%d", i+1)] = p.GetId()
	}
	return &teller{t: t, suite: s, over: over, company: c, vars: vars}
}

// tell runs the steps and compares each answer whole.
func (tl *teller) tell(name string) {
	tl.t.Helper()
	s := readScript(tl.t, name)
	for _, p := range s.parts {
		if p.step != nil {
			tl.step(s.name, p.step)
		}
	}
	if *update {
		s.write(tl.t)
	}
}

func (s *script) write(t *testing.T) {
	var b strings.Builder
	for _, p := range s.parts {
		if p.step != nil {
			b.WriteString(p.step.String() + "\n")
		} else {
			b.WriteString(p.text + "\n")
		}
	}
	if err := os.WriteFile(filepath.Join("scripts", s.name), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (tl *teller) step(name string, st *step) {
	tl.t.Helper()
	where := fmt.Sprintf("%s:%d: %s %s", name, st.line, st.who, st.method)
	m := methodByName(tl.t, st.method)
	req := newMessage(m.Input())
	if st.request != "" {
		if err := (protojson.UnmarshalOptions{}).Unmarshal([]byte(tl.expand(where, tl.withFile(where, st.request))), req); err != nil {
			tl.t.Fatalf("%s: the request: %v", where, err)
		}
	}
	ctx := tl.suite.t.Context()
	if st.who != "nobody" {
		ctx = tl.company.As(ctx, st.who)
	}
	deadline := time.Now().Add(patience)
	for {
		resp, err := tl.over.call(ctx, m, req)
		got := tl.show(st, resp, err)
		switch {
		case *update && (!st.wait || same(got, st.answer) || time.Now().After(deadline)):
			st.answer, st.fails = got, err != nil
		case same(got, st.answer) && st.fails == (err != nil):
		case st.wait && time.Now().Before(deadline):
			time.Sleep(10 * time.Millisecond)
			continue
		default:
			tl.t.Fatalf("%s\ngot  %s\nwant %s", where, got, st.answer)
		}
		tl.calls = append(tl.calls, made{st.who, m, req})
		return
	}
}

// same compares answers: as JSON, or if they are errors as text.
func same(got, want string) bool {
	var a, b any
	if json.Unmarshal([]byte(got), &a) != nil || json.Unmarshal([]byte(want), &b) != nil {
		return got == want
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

var variable = regexp.MustCompile(`\$(\w+)`)

func (tl *teller) expand(where, text string) string {
	return variable.ReplaceAllStringFunc(text, func(name string) string {
		if v, ok := tl.vars[name[1:]]; ok {
			return v
		}
		tl.t.Fatalf("%s: nothing is called %s", where, name)
		return ""
	})
}

// call calls a method as a script has it.
func (s *suite) call(ctx context.Context, m method, req proto.Message) (proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if m.Name() == "UploadAttachment" {
		return upload(ctx, s, req)
	}
	if resp, ok, err := callAccessFile(ctx, s, req); ok {
		return resp, err
	}
	return m.call(ctx, s, req)
}

// show writes an answer as a script has it.
func (tl *teller) show(st *step, resp proto.Message, err error) string {
	if err != nil {
		return showError(err, tl)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(resp)
	if err != nil {
		tl.t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		tl.t.Fatal(err)
	}
	if st.as != "" {
		tl.keep(st.as, v)
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(tl.plain("", v)); err != nil {
		tl.t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

// keep remembers the id of the record in an answer: its own, or the first listed. Of a file
// it remembers the file, and of the summary of an import the etag.
func (tl *teller) keep(name string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if id, ok := v["id"].(string); ok {
			tl.vars[name] = id
			return
		}
		if data, ok := v["data"].(string); ok {
			tl.vars[name], _ = fileIn(data)
			return
		}
		if summary, ok := v["summary"].(map[string]any); ok {
			tl.vars[name], _ = summary["etag"].(string)
			return
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			tl.keep(name, v[k])
		}
	case []any:
		if len(v) > 0 {
			tl.keep(name, v[0])
		}
	}
}

var (
	timeForm     = regexp.MustCompile(`^\d{4}-\d\d-\d\dT[\d:.]+Z$`)
	durationForm = regexp.MustCompile(`^[\d.]+s$`)
	idForm       = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// plain replaces what differs from run to run.
func (tl *teller) plain(name string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, inner := range v {
			if k == "available_actions" {
				out["may"] = may(inner)
				continue
			}
			out[k] = tl.plain(k, inner)
			if data, ok := inner.(string); ok && k == "data" {
				out[k] = tl.plainFile(data)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = tl.plain(name, v[i])
		}
		return out
	case string:
		return tl.plainText(name, v)
	}
	return v
}

func (tl *teller) plainText(name, v string) string {
	switch {
	case name == "etag" || name == "next_page_token" || name == "token" || name == "revision":
		return "<" + name + ">"
	case timeForm.MatchString(v) && !strings.HasPrefix(v, "2030-"):
		return "<time>"
	case durationForm.MatchString(v) && name != "duration":
		return "<duration>"
	case !idForm.MatchString(v):
		return v
	}
	for _, k := range slices.Sorted(maps.Keys(tl.vars)) {
		if tl.vars[k] == v {
			return "$" + k
		}
	}
	return "<id>"
}

// may returns the names of the actions that are allowed.
func may(v any) []string {
	names := []string{}
	actions, _ := v.([]any)
	for _, a := range actions {
		a, _ := a.(map[string]any)
		if a["allowed"] == true {
			name, _ := a["method"].(string)
			names = append(names, name[strings.LastIndex(name, "/")+1:])
		}
	}
	return names
}

// showError writes an error as code, reason and metadata in the order of its keys.
func showError(err error, tl *teller) string {
	st := status.Convert(err)
	words := []string{codeName(st.Code())}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			words = append(words, info.GetReason())
			for _, k := range slices.Sorted(maps.Keys(info.GetMetadata())) {
				words = append(words, fmt.Sprintf("%s=%q", k, tl.plainText(k, info.GetMetadata()[k])))
			}
		}
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				words = append(words, fmt.Sprintf("%s: %q", v.GetField(), tl.named(v.GetDescription())))
			}
		}
	}
	return strings.Join(words, " ")
}

// named writes the ids in a sentence by their names.
func (tl *teller) named(text string) string {
	for _, k := range slices.Sorted(maps.Keys(tl.vars)) {
		if tl.vars[k] != "" {
			text = strings.ReplaceAll(text, tl.vars[k], "$"+k)
		}
	}
	return text
}

// codeName returns PERMISSION_DENIED for codes.PermissionDenied.
func codeName(c codes.Code) string { return rpccode.Code(c).String() }
