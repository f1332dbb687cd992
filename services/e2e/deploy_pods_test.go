package e2e

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.dev/services/internal/server"
)

const podsFolder = "replicas"

// pods are the manifests of replicas, and the secrets that the commands for them make.
type pods struct {
	t       *testing.T
	kinds   map[string]map[string]manifest // by kind and name
	secrets string                         // folder with a folder for each
}

// readPods reads the manifests that kustomization.yaml names, which are all there are.
func readPods(t *testing.T) *pods {
	t.Helper()
	custom := documents[struct {
		Resources []string
		Replicas  []struct {
			Name  string
			Count int
		}
	}](t, readDeploy(t, "kubernetes", podsFolder, "kustomization.yaml"))[0]
	files, err := filepath.Glob(filepath.Join(root, "deploy", "kubernetes", podsFolder, "*.yaml"))
	if err != nil || len(files) != len(custom.Resources)+1 {
		t.Fatalf("there are %q, and kustomization.yaml names %q (%v)", files, custom.Resources, err)
	}
	p := &pods{t: t, kinds: map[string]map[string]manifest{}, secrets: secretsOfPods(t)}
	for _, file := range custom.Resources {
		for _, m := range documents[manifest](t, readDeploy(t, "kubernetes", podsFolder, file)) {
			if p.kinds[m.Kind] == nil {
				p.kinds[m.Kind] = map[string]manifest{}
			}
			p.kinds[m.Kind][m.Metadata.Name] = m
		}
	}
	for _, r := range custom.Replicas {
		if _, ok := p.kinds["Deployment"][r.Name]; !ok || r.Count < 2 {
			t.Errorf("kustomization.yaml has %d times %s", r.Count, r.Name)
		}
	}
	return p
}

// secretsOfPods runs the commands of the page on replicas, and returns the folder in which
// they have made secrets.
func secretsOfPods(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs", "replicas.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## On Kubernetes\n")
	_, after, _ := strings.Cut(section, "```sh\n")
	script, _, ok := strings.Cut(after, "```\n")
	if !ok {
		t.Fatal("docs/replicas.md has no commands for Kubernetes")
	}
	folder := t.TempDir()
	bash(t, folder, fakes(t, map[string]string{"kubectl": `[ "$1 $2" = "create secret" ] || exit 0
folder=secrets/$4
mkdir -p "$folder"
for word; do
	key=${word#--from-*=}; value=${key#*=}; key=${key%%=*}
	case $word in
	--from-file=*) cp "$value" "$folder/$key" ;;
	--from-literal=*) printf %s "$value" >"$folder/$key" ;;
	esac
done`}), script)
	return filepath.Join(folder, "secrets")
}

// keys returns the secrets that were made, and what is in each.
func (p *pods) keys() map[string][]string {
	found := map[string][]string{}
	files, _ := filepath.Glob(filepath.Join(p.secrets, "*", "*")) // the pattern is well-formed
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		found[name] = append(found[name], filepath.Base(f))
	}
	return found
}

// TestDeployReplicasKubernetes holds the manifests of replicas against the program, against
// each other, and against the secrets that the commands for them make.
func TestDeployReplicasKubernetes(t *testing.T) {
	p := readPods(t)
	for kind, want := range map[string][]string{
		"Service": names, "Deployment": names, "PodDisruptionBudget": names, "NetworkPolicy": {"latchkey"}, "PersistentVolumeClaim": {"latchkey-blobs"},
	} {
		if got := slices.Sorted(maps.Keys(p.kinds[kind])); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", kind, got, want)
		}
	}
	if len(p.kinds) != 5 {
		t.Errorf("got kinds %q: add to this test what holds of the others", slices.Sorted(maps.Keys(p.kinds)))
	}
	if got := p.kinds["PersistentVolumeClaim"]["latchkey-blobs"].Spec.AccessModes; !slices.Equal(got, []string{"ReadWriteMany"}) {
		t.Errorf("the volume of all pods is %q", got)
	}
	p.checkPolicy(p.kinds["NetworkPolicy"]["latchkey"])
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p := &pods{t, p.kinds, p.secrets}
			p.checkDeployment(name, p.kinds["Deployment"][name])
		})
	}
}

// checkPolicy wants what listens to be reached, and what is called, and nothing else.
func (p *pods) checkPolicy(m manifest) {
	p.t.Helper()
	ports := func(rules []struct{ Ports []port }) (found []int) {
		for _, r := range rules {
			if len(r.Ports) == 0 {
				p.t.Error("a rule opens every port")
			}
			for _, to := range r.Ports {
				found = append(found, to.Port)
			}
		}
		slices.Sort(found)
		return slices.Compact(found)
	}
	if !slices.Equal(m.Spec.PolicyTypes, []string{"Ingress", "Egress"}) {
		p.t.Errorf("the policy is of %q", m.Spec.PolicyTypes)
	}
	if got := ports(m.Spec.Ingress); !slices.Equal(got, []int{8480, 9464}) {
		p.t.Errorf("pods are reached at %d", got)
	}
	if got := ports(m.Spec.Egress); !slices.Equal(got, []int{53, 5432, 8480}) {
		p.t.Errorf("pods reach %d", got)
	}
	for _, name := range names {
		for label, value := range m.Spec.PodSelector.MatchLabels {
			if p.kinds["Deployment"][name].Spec.Template.Metadata.Labels[label] != value {
				p.t.Errorf("the policy is not for the pods of %s", name)
			}
		}
	}
}

func (p *pods) checkDeployment(name string, m manifest) {
	spec := m.Spec.Template.Spec
	if len(spec.Containers) != 1 || m.Spec.Replicas < 2 {
		p.t.Fatalf("%d containers, %d replicas", len(spec.Containers), m.Spec.Replicas)
	}
	c := &cluster{t: p.t, services: p.kinds["Service"], secrets: p.keys()}
	box := spec.Containers[0]
	env := c.environment(box)
	if !strings.HasPrefix(env["LATCHKEY_STORE"], "00") {
		p.t.Errorf("the store is %s, and no secret", env["LATCHKEY_STORE"])
	}
	env["LATCHKEY_STORE"] = p.value("latchkey-database", "url")
	c.checkProbes([]string{name}, box, env)
	if grace := time.Duration(spec.TerminationGracePeriodSeconds) * time.Second; grace <= 2*server.Defaults().Drain {
		p.t.Errorf("is killed after %s, and drains for %s and then leaves the others", grace, server.Defaults().Drain)
	}
	c.checkPorts(m, c.services[name], env)
	checkReplicaPeers(p.t, env)
	if want := "10.0.0.7:8480"; env["LATCHKEY_ADVERTISE"] != want {
		p.t.Errorf("a pod says that it is at %s, want its own address and port, %s", env["LATCHKEY_ADVERTISE"], want)
	}
	if !c.services[name].Spec.PublishNotReadyAddresses {
		p.t.Error("the services do not find each other before they serve")
	}
	p.checkRollout(name, m)
	p.checkHarmless(m)
	p.checkMounts(name, m, env)
}

// checkRollout wants one pod to go at a time, and pods of one service on different machines.
func (p *pods) checkRollout(name string, m manifest) {
	p.t.Helper()
	if u := m.Spec.Strategy.RollingUpdate; u.MaxSurge != 1 || u.MaxUnavailable != 0 {
		p.t.Errorf("a rolling update is %+v", u)
	}
	pod := m.Spec.Template.Metadata.Labels
	own := pod["app.kubernetes.io/name"]
	budget := p.kinds["PodDisruptionBudget"][name].Spec
	selected, _ := budget.Selector.(map[string]any)["matchLabels"].(map[string]any)
	if own != name || budget.MaxUnavailable != 1 || len(selected) != 1 || selected["app.kubernetes.io/name"] != own {
		p.t.Errorf("the budget takes %d of %v, and the pods are %v", budget.MaxUnavailable, selected, pod)
	}
	apart := m.Spec.Template.Spec.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	if len(apart) != 1 || apart[0].PodAffinityTerm.TopologyKey != "kubernetes.io/hostname" ||
		apart[0].PodAffinityTerm.LabelSelector.MatchLabels["app.kubernetes.io/name"] != own {
		p.t.Errorf("its pods are kept apart by %+v", apart)
	}
}

// checkHarmless wants a pod that may do nothing beside what it is for.
func (p *pods) checkHarmless(m manifest) {
	p.t.Helper()
	spec := m.Spec.Template.Spec
	s := spec.Containers[0].SecurityContext
	switch {
	case !spec.SecurityContext.RunAsNonRoot:
		p.t.Error("it may be root")
	case spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken:
		p.t.Error("it may call the cluster")
	case !s.ReadOnlyRootFilesystem, s.AllowPrivilegeEscalation == nil, *s.AllowPrivilegeEscalation, !slices.Equal(s.Capabilities.Drop, []string{"ALL"}):
		p.t.Errorf("it may do %+v", s)
	}
}

// checkMounts wants each file that is named in a secret that was made, and the certificate to
// be that of the service.
func (p *pods) checkMounts(name string, m manifest, env map[string]string) {
	p.t.Helper()
	spec := m.Spec.Template.Spec
	secrets, claims, own := map[string]string{}, map[string]string{}, map[string]bool{} // by folder
	for _, mount := range spec.Containers[0].VolumeMounts {
		for _, v := range spec.Volumes {
			if v.Name == mount.Name {
				secrets[mount.MountPath], claims[mount.MountPath] = v.Secret.SecretName, v.PersistentVolumeClaim.ClaimName
				own[mount.MountPath] = v.EmptyDir != nil
			}
		}
	}
	if folder := strings.TrimPrefix(env["LATCHKEY_BLOBS"], "file://"); claims[folder] != "latchkey-blobs" {
		p.t.Errorf("photos are in %s, and there is %v", folder, claims)
	}
	if folder := env["LATCHKEY_COUNTS"]; !own[folder] {
		p.t.Errorf("it counts in %s, which is not the pod's own", folder)
	}
	file := func(variable string) string {
		return filepath.Join(p.secrets, secrets[path.Dir(env[variable])], path.Base(env[variable]))
	}
	mustProve(p.t, name, file("LATCHKEY_PEER_CA"), file("LATCHKEY_PEER_CERT"), file("LATCHKEY_PEER_KEY"))
	for _, variable := range []string{"LATCHKEY_SERVICE_KEY_FILE", "LATCHKEY_SEAL_KEY_FILE"} {
		if text, err := os.ReadFile(file(variable)); err != nil || len(text) < 32 {
			p.t.Errorf("%s: %d bytes, %v", variable, len(text), err)
		}
	}
}

// value returns what is in a secret.
func (p *pods) value(secret, key string) string {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.secrets, secret, key))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}
