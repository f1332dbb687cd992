package e2e

import (
	"debug/elf"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.dev/services/internal/server"
)

// TestDeployCompose holds the compose file against the program and the repository.
func TestDeployCompose(t *testing.T) {
	type compose struct {
		Services map[string]struct {
			Build           struct{ Context, Dockerfile string }
			Environment     map[string]string
			Ports, Volumes  []string
			Healthcheck     struct{ Test []string }
			StopGracePeriod string `json:"stop_grace_period"`
		}
		Volumes map[string]any
	}
	c := documents[compose](t, readDeploy(t, "compose.yaml"))[0]
	s, ok := c.Services["latchkey"]
	if !ok || len(c.Services) != 1 {
		t.Fatalf("got %v, want one service latchkey", c.Services)
	}
	s.Environment = filledIn(t, s.Environment, nil)
	accepts(t, names, s.Environment)
	if test := s.Healthcheck.Test; len(test) < 3 || test[0] != "CMD" || test[1] != "/service" {
		t.Errorf("the health check is %q, want CMD /service --check", test)
	} else {
		accepts(t, names, s.Environment, test[2:]...)
	}
	if _, err := os.Stat(filepath.Join(root, s.Build.Context, s.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
	longerThanDrain(t, s.StopGracePeriod)
	for _, p := range s.Ports {
		inside := p[strings.LastIndex(p, ":"):]
		if !strings.HasSuffix(s.Environment["LATCHKEY_LISTEN"], inside) && !strings.HasSuffix(s.Environment["LATCHKEY_METRICS_LISTEN"], inside) {
			t.Errorf("nothing listens on the port of %s", p)
		}
	}
	for _, v := range s.Volumes {
		name, _, _ := strings.Cut(v, ":")
		if _, ok := c.Volumes[name]; !ok && !strings.HasPrefix(name, "./") {
			t.Errorf("there is no volume %s", name)
		}
	}
}

// longerThanDrain wants time for running calls to finish before the process is killed.
func longerThanDrain(t *testing.T, grace string) {
	t.Helper()
	if d, err := time.ParseDuration(grace); err != nil || d <= server.Defaults().Drain {
		t.Errorf("is killed after %q, and drains for %s", grace, server.Defaults().Drain)
	}
}

// systemdUnit returns the settings of a unit, and its environment.
func systemdUnit(t *testing.T, file string) (unit, env map[string]string) {
	t.Helper()
	unit, env = map[string]string{}, map[string]string{}
	for line := range strings.Lines(readDeploy(t, "systemd", file)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			unit[name] = value
		}
	}
	for word := range strings.FieldsSeq(unit["Environment"]) {
		name, value, _ := strings.Cut(word, "=")
		env[name] = value
	}
	return unit, env
}

func TestDeploySystemd(t *testing.T) {
	unit, env := systemdUnit(t, "latchkey.service")
	start := strings.Fields(unit["ExecStart"])
	if len(start) == 0 || filepath.Base(start[0]) != "latchkey" {
		t.Fatalf("it starts %q, want latchkey", start)
	}
	accepts(t, names, env, append(start[1:], "--check")...)
	longerThanDrain(t, unit["TimeoutStopSec"]+"s")
	if want := "bolt:/var/lib/" + unit["StateDirectory"]; env["LATCHKEY_STORE"] != want {
		t.Errorf("the store is %s, want %s, the only folder that it may write", env["LATCHKEY_STORE"], want)
	}
}

// TestDeploySystemdBackup looks at the unit beside that one: it reads the same store as the same
// user, and calls a command as the program knows it.
func TestDeploySystemdBackup(t *testing.T) {
	const file = "latchkey-backup.service"
	unit, env := systemdUnit(t, file)
	suite, suiteEnv := systemdUnit(t, "latchkey.service")
	if env["LATCHKEY_STORE"] != suiteEnv["LATCHKEY_STORE"] || unit["StateDirectory"] != suite["StateDirectory"] || unit["User"] != "latchkey" {
		t.Errorf("it reads %s in %s as %s", env["LATCHKEY_STORE"], unit["StateDirectory"], unit["User"])
	}
	if got, want := unit["ExecStart"], suite["ExecStart"]+" backup --follow ${TARGET}"; got != want {
		t.Errorf("it starts %q, want %q", got, want)
	}
	cmd := exec.Command(os.Args[0], "help", "backup")
	cmd.Env = append(os.Environ(), partsEnv+"="+strings.Join(names, ","))
	help, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	told := regexp.MustCompile(`LATCHKEY_BACKUP_\w+`).FindAllString(readDeploy(t, "systemd", file), -1)
	for _, name := range told {
		if !strings.Contains(string(help), name+"\n") {
			t.Errorf("it tells of %s, which the command does not know", name)
		}
	}
	if len(told) < 2 {
		t.Errorf("it tells of %q", told)
	}
}

// TestDeployImage does what building the image does: copy what it copies, and build
// each program as it does. They must need nothing else to run.
func TestDeployImage(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles everything without cgo")
	}
	text := strings.ReplaceAll(readDeploy(t, "Dockerfile"), "\\\n", " ")
	src, out := t.TempDir(), t.TempDir()
	build := ""
	env := map[string]string{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) > 2 && words[0] == "COPY" && !strings.HasPrefix(words[1], "--"):
			copyAll(t, src, words[len(words)-1], words[1:len(words)-1])
		case len(words) > 1 && words[0] == "RUN":
			build, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "RUN"), "&&")
		case len(words) > 1 && words[0] == "ENV":
			for _, word := range words[1:] {
				name, value, _ := strings.Cut(word, "=")
				env[name] = value
			}
		}
	}
	accepts(t, names, env, "--check")
	if !strings.Contains(text, `ENTRYPOINT ["/service"]`) || !strings.Contains(text, "EXPOSE 8480\n") {
		t.Error("the image does not start /service or does not expose the default port")
	}
	build = strings.NewReplacer("/out/service", out+string(filepath.Separator), "./services/cmd/${SERVICE}", "./services/cmd/...").Replace(build)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", build)
	cmd.Dir = src
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, text)
	}
	for _, name := range append(slices.Clone(names), "latchkey") {
		mustBeStatic(t, filepath.Join(out, name))
	}
}

// copyAll copies what is named of the repository, as COPY does.
func copyAll(t *testing.T, top, to string, from []string) {
	t.Helper()
	for _, name := range from {
		info, err := os.Stat(filepath.Join(root, name))
		if err == nil && info.IsDir() {
			err = os.CopyFS(filepath.Join(top, to), os.DirFS(filepath.Join(root, name)))
		} else if err == nil {
			var data []byte
			if data, err = os.ReadFile(filepath.Join(root, name)); err == nil {
				err = os.WriteFile(filepath.Join(top, to, name), data, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func mustBeStatic(t *testing.T, program string) {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s needs a loader, which an empty image does not have", filepath.Base(program))
		}
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("%s needs %q (%v)", filepath.Base(program), libraries, err)
	}
}

// TestDeployDashboard asks a running suite, that could write to people, for each metric that
// the dashboard shows.
func TestDeployDashboard(t *testing.T) {
	addr := freeAddr(t)
	one(t, "LATCHKEY_METRICS_LISTEN="+addr, "LATCHKEY_SMTP=smtp://"+freeAddr(t), "LATCHKEY_SMTP_SENDER=no-reply@example.com")
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	exported, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readDeploy(t, "dashboards", "latchkey.json")), &board); err != nil {
		t.Fatal(err)
	}
	if len(board.Panels) == 0 {
		t.Fatal("the dashboard shows nothing")
	}
	metric := regexp.MustCompile(`\b(grpc_server|latchkey|process|go)_\w+`)
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			found := metric.FindAllString(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("%s: no metric in %s", p.Title, target.Expr)
			}
			for _, name := range found {
				if !regexp.MustCompile(`(?m)^` + name + `[ {]`).Match(exported) {
					t.Errorf("%s: the suite exports no %s", p.Title, name)
				}
			}
		}
	}
}
