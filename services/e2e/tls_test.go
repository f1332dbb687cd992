package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc/credentials"
)

// TestFiveWithTLS runs the commands of the page on TLS as they stand, but for the ports: five
// processes that know each other by their certificates.
func TestFiveWithTLS(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash to run the commands with")
	}
	shell := newShell(t, bash)
	programs := t.TempDir()
	for name, parts := range map[string][]string{"latchkey": names, "identity": nil, "permissions": nil, "servicerequest": nil, "scheduling": nil, "invoicing": nil} {
		if parts == nil {
			parts = []string{name}
		}
		text := "#!" + bash + "\n" + partsEnv + "=" + strings.Join(parts, ",") + " exec " + os.Args[0] + ` "$@"` + "\n"
		if err := os.WriteFile(filepath.Join(programs, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	shell.run(block{text: `trap 'kill $(jobs -p)' EXIT; set -e; PATH=` + programs + `:$PATH
curl=$(go -C tools tool -n grpcurl); grpcurl() { "$curl" "$@"; }
cd ` + t.TempDir()})
	ports := strings.NewReplacer(freePorts(t, "127.0.0.1:8481", "127.0.0.1:8482", "127.0.0.1:8483", "127.0.0.1:8484", "127.0.0.1:8485")...)
	for _, b := range commandsOf(t, "docs/tls.md") {
		if out, status := shell.run(block{line: b.line, text: ports.Replace(b.text)}); status != "0" || strings.Contains(out, "ERROR") {
			t.Fatalf("docs/tls.md:%d: the commands end with %s and print\n%s", b.line, status, out)
		}
	}
}

// freePorts returns addresses and what to replace each by: one that nothing listens on.
func freePorts(t *testing.T, addresses ...string) (pairs []string) {
	for _, address := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		pairs = append(pairs, address, l.Addr().String())
	}
	return pairs
}

// TestRenewUnderLoad renews the certificates of three replicas of each service in every way
// there is while all are called, and restarts one replica after each, which others then
// have to know again: no call fails.
func TestRenewUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts six processes, and some again")
	}
	folder := t.TempDir()
	certs := func(args ...string) {
		t.Helper()
		cmd := exec.Command(os.Args[0], slices.Concat([]string{"certs", folder, "latchkey"}, args)...)
		cmd.Env = append(os.Environ(), partsEnv+"="+strings.Join(names, ","))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("certs %q: %v\n%s", args, err, out)
		}
	}
	certs()
	d := &doubled{suite: newSuite(t, append(inDatabase(t), "LATCHKEY_PEER_CA="+folder+"/ca.pem",
		"LATCHKEY_PEER_CERT="+folder+"/latchkey.pem", "LATCHKEY_PEER_KEY="+folder+"/latchkey-key.pem"))}
	// The test calls as people do, who show no certificate. Theirs is not what is renewed here.
	d.creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	groups := [][]string{{"identity", "permissions"}, {"servicerequest", "scheduling", "invoicing"}}
	d.run(3, groups)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var l traffic
	var callers sync.WaitGroup
	for n := range 3 {
		callers.Go(func() { l.run(ctx, d, rand.New(rand.NewPCG(2, uint64(n)))) })
	}
	for i, args := range []string{"--renew", "--new-keys", "--new-ca", "--renew", "--forget-ca"} {
		certs(args)
		p := d.replicas[groups[i%2][0]][i/2]
		before := l.calls.Load()
		p.signal(syscall.SIGTERM)
		<-p.done
		d.start(p)
		d.serves(p)
		t.Logf("%s, and %s restarted: %d calls meanwhile", args, p.parts, l.calls.Load()-before)
	}
	stop()
	callers.Wait()
	t.Logf("%d calls, %d failed", l.calls.Load(), len(l.failed))
	if l.calls.Load() == 0 {
		t.Error("nothing was called")
	}
	for _, f := range l.failed[:min(10, len(l.failed))] {
		t.Error(f)
	}
	for _, group := range groups {
		for _, p := range d.replicas[group[0]] {
			if alarms := p.log.alarms(); len(alarms) > 0 {
				t.Error(fmt.Sprint(p.parts, slices.Compact(alarms)))
			}
		}
	}
}
