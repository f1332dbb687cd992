package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"latchkey.dev/services/internal/server"
)

func readDeploy(t *testing.T, name ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "deploy", filepath.Join(name...)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// documents reads YAML into structs by way of JSON, which does not mind the case of names.
func documents[T any](t *testing.T, text string) []T {
	t.Helper()
	var found []T
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var (
			v   any
			doc T
		)
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return found
		}
		var data []byte
		if err == nil {
			data, err = json.Marshal(v)
		}
		if err == nil {
			err = json.Unmarshal(data, &doc)
		}
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, doc)
	}
}

// accepts runs the program as a deployment does, asking only how a process is that is
// not there, and tells what it does not like about its configuration.
func accepts(t *testing.T, parts []string, env map[string]string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Dir = t.TempDir()
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LATCHKEY_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, partsEnv+"="+strings.Join(parts, ","))
	known, err := variables()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
		if strings.HasPrefix(name, "LATCHKEY_") && !slices.Contains(known, name) {
			t.Errorf("%s is no variable of the program", name)
		}
	}
	const refused = 2
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == refused {
		t.Errorf("%q with %v: %v: %s", args, env, err, out)
	}
}

// variables returns the environment variables that the program knows, as its help says.
var variables = sync.OnceValues(func() ([]string, error) {
	cmd := exec.Command(os.Args[0], "--help")
	cmd.Env = append(os.Environ(), partsEnv+"="+strings.Join(names, ","))
	help, err := cmd.Output()
	found := regexp.MustCompile(`LATCHKEY_\w+`).FindAllString(string(help), -1)
	if err == nil && !slices.Contains(found, "LATCHKEY_LISTEN") {
		err = fmt.Errorf("the help names no variables:\n%s", help)
	}
	return found, err
})

// manifest is as much of a Service, StatefulSet, Deployment and so on as is checked.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Selector                 any // a Service's has labels, others have matchLabels
		Ports                    []port
		PublishNotReadyAddresses bool
		Replicas                 int
		ServiceName              string
		Template                 template
		VolumeClaimTemplates     []struct{ Metadata struct{ Name string } }
		AccessModes              []string
		MaxUnavailable           int // of a PodDisruptionBudget
		Strategy                 struct {
			RollingUpdate struct{ MaxSurge, MaxUnavailable int }
		}
		PodSelector     labels // of a NetworkPolicy
		PolicyTypes     []string
		Ingress, Egress []struct{ Ports []port }
	}
}

type labels struct{ MatchLabels map[string]string }

type template struct {
	Metadata struct{ Labels, Annotations map[string]string }
	Spec     struct {
		TerminationGracePeriodSeconds int
		AutomountServiceAccountToken  *bool
		SecurityContext               struct{ RunAsNonRoot bool }
		Affinity                      struct {
			PodAntiAffinity struct {
				PreferredDuringSchedulingIgnoredDuringExecution []struct {
					PodAffinityTerm struct {
						TopologyKey   string
						LabelSelector labels
					}
				}
			}
		}
		Containers []container
		Volumes    []struct {
			Name                  string
			Secret                struct{ SecretName string }
			PersistentVolumeClaim struct{ ClaimName string }
			EmptyDir              *struct{ Medium, SizeLimit string }
		}
	}
}

type port struct {
	Name                string
	Port, ContainerPort int
	TargetPort          string
}

type container struct {
	Args []string
	Env  []struct {
		Name, Value string
		ValueFrom   struct {
			SecretKeyRef struct {
				Name, Key string
				Optional  bool
			}
			FieldRef struct{ FieldPath string }
		}
	}
	Ports                                       []port
	StartupProbe, LivenessProbe, ReadinessProbe struct{ Exec struct{ Command []string } }
	VolumeMounts                                []struct{ Name, MountPath string }
	SecurityContext                             struct {
		AllowPrivilegeEscalation *bool
		ReadOnlyRootFilesystem   bool
		Capabilities             struct{ Drop []string }
	}
}

// TestDeployKubernetes holds the manifests against the program and against each other.
func TestDeployKubernetes(t *testing.T) {
	for file, want := range map[string][]string{"one.yaml": {"latchkey"}, "five.yaml": names} {
		t.Run(file, func(t *testing.T) {
			text := readDeploy(t, "kubernetes", file)
			c := &cluster{t: t, services: map[string]manifest{}, secrets: secretsIn(t, text)}
			sets := map[string]manifest{}
			for _, m := range documents[manifest](t, text) {
				switch m.Kind {
				case "Service":
					c.services[m.Metadata.Name] = m
				case "StatefulSet":
					sets[m.Metadata.Name] = m
				default:
					t.Errorf("%s %s: add to this test what holds of it", m.Kind, m.Metadata.Name)
				}
			}
			if got := slices.Sorted(maps.Keys(sets)); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			for _, name := range slices.Sorted(maps.Keys(sets)) {
				t.Run(name, func(t *testing.T) {
					c := &cluster{t: t, services: c.services, secrets: c.secrets}
					c.checkSet(sets[name])
				})
			}
		})
	}
}

// cluster is what a file of manifests makes.
type cluster struct {
	t        *testing.T
	services map[string]manifest
	secrets  map[string][]string // the keys of each
}

// secretsIn returns the secrets that the commands at the top of a file make.
func secretsIn(t *testing.T, text string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, m := range regexp.MustCompile(`kubectl create secret (generic|tls) (\S+)(.*)`).FindAllStringSubmatch(text, -1) {
		if m[1] == "tls" {
			found[m[2]] = []string{"tls.crt", "tls.key"}
			continue
		}
		for _, from := range regexp.MustCompile(`--from-(?:literal|file)=([^=]+)=`).FindAllStringSubmatch(m[3], -1) {
			found[m[2]] = append(found[m[2]], from[1])
		}
	}
	return found
}

func (c *cluster) checkSet(m manifest) {
	spec := m.Spec.Template.Spec
	if len(spec.Containers) != 1 || m.Spec.Replicas != 1 {
		c.t.Fatalf("%d containers, %d replicas, want 1 of each: a file of data has one process", len(spec.Containers), m.Spec.Replicas)
	}
	box := spec.Containers[0]
	env := c.environment(box)
	parts := names
	if slices.Contains(names, m.Metadata.Name) {
		parts = []string{m.Metadata.Name}
	}
	accepts(c.t, parts, env, box.Args...)
	c.checkProbes(parts, box, env)
	if grace := time.Duration(spec.TerminationGracePeriodSeconds) * time.Second; grace <= server.Defaults().Drain {
		c.t.Errorf("is killed after %s, and drains for %s", grace, server.Defaults().Drain)
	}
	c.checkPorts(m, c.services[m.Spec.ServiceName], env)
	c.checkPeers(parts, env)
	c.checkFiles(m, env)
}

// checkProbes wants each probe to ask the program itself.
func (c *cluster) checkProbes(parts []string, box container, env map[string]string) {
	for kind, p := range map[string][]string{
		"startup": box.StartupProbe.Exec.Command, "liveness": box.LivenessProbe.Exec.Command, "readiness": box.ReadinessProbe.Exec.Command,
	} {
		if len(p) < 2 || p[0] != "/service" || !strings.HasPrefix(p[1], "--check") {
			c.t.Errorf("%s probe: got %q, want /service --check", kind, p)
			continue
		}
		accepts(c.t, parts, env, p[1:]...)
	}
}

// environment returns the variables of a container, and those of secrets with some value.
func (c *cluster) environment(box container) map[string]string {
	env := map[string]string{}
	for _, v := range box.Env {
		ref := v.ValueFrom.SecretKeyRef
		if ref.Optional {
			continue
		}
		if env[v.Name] = v.Value; ref.Name != "" {
			env[v.Name] = strings.Repeat("0", 64)
			if !slices.Contains(c.secrets[ref.Name], ref.Key) {
				c.t.Errorf("%s: nobody says how to make the key %s of the secret %s", v.Name, ref.Key, ref.Name)
			}
		}
		if field := v.ValueFrom.FieldRef.FieldPath; field != "" {
			env[v.Name] = map[string]string{"status.podIP": "10.0.0.7"}[field]
		}
		for before, value := range env {
			env[v.Name] = strings.ReplaceAll(env[v.Name], "$("+before+")", value)
		}
	}
	return env
}

// checkPorts follows the way from the Service to the listener.
func (c *cluster) checkPorts(m, s manifest, env map[string]string) {
	ports := map[string]string{}
	for _, p := range m.Spec.Template.Spec.Containers[0].Ports {
		ports[p.Name] = fmt.Sprint(p.ContainerPort)
	}
	for name, variable := range map[string]string{"grpc": "LATCHKEY_LISTEN", "metrics": "LATCHKEY_METRICS_LISTEN"} {
		if _, listens, err := net.SplitHostPort(env[variable]); err != nil || listens != ports[name] {
			c.t.Errorf("%s is %q, and the port %s is %s", variable, env[variable], name, ports[name])
		}
	}
	if got := m.Spec.Template.Metadata.Annotations["prometheus.io/port"]; got != ports["metrics"] {
		c.t.Errorf("Prometheus is sent to port %s, and metrics are at %s", got, ports["metrics"])
	}
	if s.Kind != "Service" {
		c.t.Fatalf("%s has no Service", m.Metadata.Name)
	}
	for name, value := range s.Spec.Selector.(map[string]any) {
		if m.Spec.Template.Metadata.Labels[name] != value {
			c.t.Errorf("the Service selects %s=%v, and the pod has %v", name, value, m.Spec.Template.Metadata.Labels)
		}
	}
	for _, p := range s.Spec.Ports {
		if ports[p.TargetPort] == "" {
			c.t.Errorf("the Service leads to the port %s, which the pod lacks", p.TargetPort)
		}
	}
}

// checkPeers wants every other service among the peers, at its Service's port.
func (c *cluster) checkPeers(parts []string, env map[string]string) {
	var others []string
	for pair := range strings.SplitSeq(env["LATCHKEY_PEERS"], ",") {
		name, addr, ok := strings.Cut(pair, "=")
		if !ok {
			continue
		}
		others = append(others, name)
		host, at, err := net.SplitHostPort(strings.TrimPrefix(addr, "dns:///"))
		s := c.services[host]
		if err != nil || host != name || len(s.Spec.Ports) != 1 || fmt.Sprint(s.Spec.Ports[0].Port) != at {
			c.t.Errorf("the peer %s is said to be at %s, and its Service has %v", name, addr, s.Spec.Ports)
		}
	}
	want := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(parts, name) })
	if got := slices.Sorted(slices.Values(others)); !slices.Equal(got, want) {
		c.t.Errorf("got peers %q, want %q", got, want)
	}
}

// checkFiles wants each file that is named on a volume, and each volume there.
func (c *cluster) checkFiles(m manifest, env map[string]string) {
	volumes := map[string][]string{} // the files of each; nil for a folder of its own
	for _, v := range m.Spec.VolumeClaimTemplates {
		volumes[v.Metadata.Name] = nil
	}
	for _, v := range m.Spec.Template.Spec.Volumes {
		keys, ok := c.secrets[v.Secret.SecretName]
		if !ok {
			c.t.Errorf("nobody says how to make the secret %q", v.Secret.SecretName)
		}
		volumes[v.Name] = keys
	}
	files := map[string][]string{}
	for _, mount := range m.Spec.Template.Spec.Containers[0].VolumeMounts {
		keys, ok := volumes[mount.Name]
		if !ok {
			c.t.Errorf("%s is mounted, and there is no volume %s", mount.MountPath, mount.Name)
		}
		files[mount.MountPath] = keys
	}
	if folder := strings.TrimPrefix(env["LATCHKEY_STORE"], "bolt:"); len(files[folder]) > 0 || !slices.Contains(slices.Collect(maps.Keys(files)), folder) {
		c.t.Errorf("the store %s is on no volume of its own", env["LATCHKEY_STORE"])
	}
	for _, variable := range []string{"LATCHKEY_TLS_CERT", "LATCHKEY_TLS_KEY", "LATCHKEY_TLS_CA"} {
		file, ok := env[variable]
		if ok && !slices.Contains(files[path.Dir(file)], path.Base(file)) {
			c.t.Errorf("%s is %s, and the secret there has %q", variable, file, files[path.Dir(file)])
		}
	}
}
