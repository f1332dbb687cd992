package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials"

	"latchkey.dev/services/internal/certify"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// composition is as much of a compose file as is checked.
type composition struct {
	Services map[string]composed
	Secrets  map[string]struct{ File string }
	Volumes  map[string]any
}

type composed struct {
	Build                   struct{ Args map[string]string }
	Command                 []string
	Environment             map[string]string
	Deploy                  struct{ Replicas int }
	Ports, Volumes, Secrets []string
	Healthcheck             struct{ Test []string }
	StopGracePeriod         string   `json:"stop_grace_period"`
	ReadOnly                bool     `json:"read_only"`
	Cap                     []string `json:"cap_drop"`
	Security                []string `json:"security_opt"`
}

// prepared is a compose file of replicas, and a folder in which its commands were run.
type prepared struct {
	t      *testing.T
	file   composition
	folder string
	values map[string]string // of what the file takes from outside
}

const replicasFile = "replicas.compose.yaml"

// prepare does what the top of the compose file of replicas says, but for the containers.
func prepare(t *testing.T) *prepared {
	t.Helper()
	text := readDeploy(t, replicasFile)
	p := &prepared{t: t, file: documents[composition](t, text)[0], folder: t.TempDir(), values: map[string]string{}}
	certs := strings.ReplaceAll(strings.Join(p.file.Services["certs"].Command, " "), "/certs", "replicas/certs")
	programs := fakes(t, map[string]string{
		"docker": `case "$*" in *" run --rm certs") exec latchkey ` + certs + " ;; esac",
		"chown":  "", // not everybody may
	})
	head, _, _ := strings.Cut(text, "\nx-environment")
	var script string
	for _, m := range regexp.MustCompile(`(?m)^#   (.*)`).FindAllStringSubmatch(head, -1) {
		script += m[1] + "\n"
	}
	bash(t, p.folder, programs, script)
	values, err := os.ReadFile(filepath.Join(p.folder, "replicas", "env"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(values)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		p.values[name] = value
	}
	return p
}

// fakes makes a folder of programs: the suite's own, and scripts that do as much of other
// programs as a test needs.
func fakes(t *testing.T, scripts map[string]string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	scripts["latchkey"] = partsEnv + "=" + strings.Join(names, ",") + " exec " + os.Args[0] + ` "$@"`
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("#!/usr/bin/env bash\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// bash runs a script in a folder, with some programs in place of others.
func bash(t *testing.T, folder, programs, script string) {
	t.Helper()
	for _, needed := range []string{"bash", "openssl"} {
		if _, err := exec.LookPath(needed); err != nil {
			t.Skipf("there is no %s to run the commands with", needed)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euc", script)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s\n%s", err, script, out)
	}
}

var variableIn = regexp.MustCompile(`\$\{(\w+)(:-)?[^}]*\}`)

// filledIn returns the variables of a container as compose fills them in from others, those
// that have a default with none of these.
func filledIn(t *testing.T, variables, values map[string]string) map[string]string {
	t.Helper()
	env := map[string]string{}
	for name, value := range variables {
		env[name] = variableIn.ReplaceAllStringFunc(value, func(v string) string {
			m := variableIn.FindStringSubmatch(v)
			known, ok := values[m[1]]
			if !ok && m[2] == "" {
				t.Errorf("%s: nobody says how to set %s", name, v)
			}
			return known
		})
	}
	return env
}

// environment returns the variables of a service's container.
func (p *prepared) environment(service string) map[string]string {
	return filledIn(p.t, p.file.Services[service].Environment, p.values)
}

// local returns where on this machine a path of a container is: in a folder that is mounted
// there, or a secret.
func (p *prepared) local(service, path string) string {
	s := p.file.Services[service]
	for _, v := range s.Volumes {
		from, to, ok := strings.Cut(strings.TrimSuffix(v, ":ro"), ":")
		if !ok {
			continue // of the container alone
		}
		if _, named := p.file.Volumes[from]; named {
			from = "volume-" + from
		}
		if rest, ok := strings.CutPrefix(path, to); ok {
			return filepath.Join(p.folder, from) + rest
		}
	}
	if name, ok := strings.CutPrefix(path, "/run/secrets/"); ok && slices.Contains(s.Secrets, name) {
		return filepath.Join(p.folder, p.file.Secrets[name].File)
	}
	p.t.Errorf("%s has no %s", service, path)
	return ""
}

// TestDeployReplicasCompose holds the compose file of replicas against the program, against
// itself, and against the certificates that its commands make.
func TestDeployReplicasCompose(t *testing.T) {
	p := prepare(t)
	if got, want := slices.Sorted(maps.Keys(p.file.Services)), slices.Sorted(slices.Values(append([]string{"certs", "database"}, names...))); !slices.Equal(got, want) {
		t.Fatalf("got services %q, want %q", got, want)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p := &prepared{t, p.file, p.folder, p.values}
			s, env := p.file.Services[name], p.environment(name)
			if s.Build.Args["SERVICE"] != name || s.Deploy.Replicas < 2 {
				t.Errorf("it is %d times the program %q", s.Deploy.Replicas, s.Build.Args["SERVICE"])
			}
			if !s.ReadOnly || !slices.Equal(s.Cap, []string{"ALL"}) || !slices.Equal(s.Security, []string{"no-new-privileges:true"}) {
				t.Error("it may do more than it needs")
			}
			if test := s.Healthcheck.Test; len(test) < 3 || test[0] != "CMD" || test[1] != "/service" {
				t.Errorf("the health check is %q, want CMD /service --check", test)
			} else {
				accepts(t, []string{name}, env, test[2:]...)
			}
			longerThanDrain(t, s.StopGracePeriod)
			if !strings.HasSuffix(s.Ports[0], env["LATCHKEY_LISTEN"][len("0.0.0.0"):]) {
				t.Errorf("nothing listens on the port of %s", s.Ports[0])
			}
			if !slices.Contains(s.Volumes, env["LATCHKEY_COUNTS"]) {
				t.Errorf("it counts in %s, which is no volume of the container's own: %q", env["LATCHKEY_COUNTS"], s.Volumes)
			}
			p.checkDatabase(env["LATCHKEY_STORE"])
			checkReplicaPeers(t, env)
			file := func(variable string) string { return p.local(name, env[variable]) }
			mustProve(t, name, file("LATCHKEY_PEER_CA"), file("LATCHKEY_PEER_CERT"), file("LATCHKEY_PEER_KEY"))
			for _, variable := range []string{"LATCHKEY_SERVICE_KEY_FILE", "LATCHKEY_SEAL_KEY_FILE"} {
				if text, err := os.ReadFile(file(variable)); err != nil || len(text) < 32 {
					t.Errorf("%s: %d bytes, %v", variable, len(text), err)
				}
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file("LATCHKEY_PEER_CA")), "ca-key.pem")); err == nil {
				t.Error("it is given the key of the authority")
			}
		})
	}
}

// checkDatabase wants the store to be the database of the file.
func (p *prepared) checkDatabase(store string) {
	p.t.Helper()
	u, err := url.Parse(store)
	database := p.environment("database")
	if err != nil {
		p.t.Fatal(err)
	}
	password, _ := u.User.Password()
	if u.Hostname() != "database" || u.User.Username() != database["POSTGRES_USER"] || password == "" || password != database["POSTGRES_PASSWORD"] {
		p.t.Errorf("the store is %s, and the database has %v", store, database)
	}
}

// checkReplicaPeers wants a name for each service that leads to all its replicas.
func checkReplicaPeers(t *testing.T, env map[string]string) {
	t.Helper()
	_, port, err := net.SplitHostPort(env["LATCHKEY_LISTEN"])
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range names {
		want = append(want, name+"=dns:///"+name+":"+port)
	}
	if got := slices.Sorted(strings.SplitSeq(env["LATCHKEY_PEERS"], ",")); !slices.Equal(got, want) {
		t.Errorf("got peers %q, want %q", got, want)
	}
}

// mustProve wants a certificate that proves a service to the others, both as who calls and as
// who is called.
func mustProve(t *testing.T, service, ca, cert, key string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: authorities(t, ca), DNSName: certify.Name(service), KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			t.Error(err)
		}
	}
	for _, other := range names {
		if other != service && pair.Leaf.VerifyHostname(certify.Name(other)) == nil {
			t.Errorf("its certificate proves %s too", other)
		}
	}
}

func authorities(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if text, err := os.ReadFile(file); err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatalf("%s has no certificates (%v)", file, err)
	}
	return pool
}

// compose starts what the compose file of replicas says as processes of this machine: the
// same environment, but for addresses, folders and the database.
func compose(t *testing.T) *doubled {
	t.Helper()
	p := prepare(t)
	database := postgrestest.Database(t)
	d := &doubled{suite: newSuite(t, nil)}
	d.creds = credentials.NewTLS(&tls.Config{RootCAs: authorities(t, filepath.Join(p.folder, "replicas", "certs", "ca.pem")), ServerName: "localhost"})
	for _, name := range names {
		d.plan(p.file.Services[name].Deploy.Replicas, [][]string{{name}})
	}
	for _, process := range d.all {
		name := process.parts[0]
		for variable, value := range p.environment(name) {
			switch path, isURL := strings.CutPrefix(value, "file://"); {
			case variable == "LATCHKEY_LISTEN":
				value = process.addr
			case variable == "LATCHKEY_METRICS_LISTEN":
				value = freeAddr(t)
			case variable == "LATCHKEY_COUNTS":
				value = t.TempDir()
			case variable == "LATCHKEY_STORE":
				value = database
			case variable == "LATCHKEY_PEERS":
				value = d.resolve(value)
			case isURL:
				value = "file://" + p.local(name, path)
			case strings.HasPrefix(value, "/"):
				value = p.local(name, value)
			}
			process.env = append(process.env, variable+"="+value)
		}
	}
	d.begin()
	return d
}

// resolve puts the addresses of all replicas in place of each name in a list of peers.
func (d *doubled) resolve(peers string) string {
	var all []string
	for pair := range strings.SplitSeq(peers, ",") {
		name, target, _ := strings.Cut(pair, "=")
		host, _, _ := net.SplitHostPort(strings.TrimPrefix(target, "dns:///"))
		for _, p := range d.replicas[host] {
			all = append(all, fmt.Sprint(name, "=", p.addr))
		}
	}
	return strings.Join(all, ",")
}
