package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mailVariables are the settings by which a deployment writes to people.
var mailVariables = []string{"LATCHKEY_SIGN_IN_PAGE", "LATCHKEY_SMTP", "LATCHKEY_SMTP_SENDER"}

// TestDeployMail gives each deployment a mail server in the way that is written down for it.
// Other tests see that it starts without.
func TestDeployMail(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "mail.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(string(page), "kubectl create secret generic latchkey-mail ")
	secret, _, _ = strings.Cut(secret, "```")
	keys := map[string]string{}
	for _, m := range regexp.MustCompile(`--from-literal=(\w+)=(?:'([^']*)'|(\S+))`).FindAllStringSubmatch(secret, -1) {
		keys[m[1]] = m[2] + m[3]
	}
	for file, parts := range map[string][]string{"one.yaml": names, "five.yaml": {"identity"}, podsFolder + "/identity.yaml": {"identity"}} {
		t.Run(file, func(t *testing.T) {
			found := map[string]string{}
			for _, m := range documents[manifest](t, readDeploy(t, "kubernetes", filepath.FromSlash(file))) {
				for _, c := range m.Spec.Template.Spec.Containers {
					for _, v := range c.Env {
						if ref := v.ValueFrom.SecretKeyRef; ref.Name == "latchkey-mail" && ref.Optional {
							found[v.Name] = keys[ref.Key]
						}
					}
				}
			}
			takesMail(t, parts, found)
		})
	}
	settings := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#   (LATCHKEY_\w+)=(.*)$`).FindAllStringSubmatch(readDeploy(t, "compose.yaml"), -1) {
		settings[m[1]] = m[2]
	}
	for file, service := range map[string]string{"compose.yaml": "latchkey", replicasFile: "identity"} {
		t.Run(file, func(t *testing.T) {
			variables := documents[composition](t, readDeploy(t, file))[0].Services[service].Environment
			maps.DeleteFunc(variables, func(name, _ string) bool { return !slices.Contains(mailVariables, name) })
			takesMail(t, []string{"identity"}, filledIn(t, variables, settings))
		})
	}
}

// takesMail wants every setting to have a value, and the program to take them.
func takesMail(t *testing.T, parts []string, env map[string]string) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(env)); !slices.Equal(got, mailVariables) || slices.Contains(slices.Collect(maps.Values(env)), "") {
		t.Errorf("got the settings %v, want values of %q", env, mailVariables)
	}
	accepts(t, parts, env, "--check")
}
