package server

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is how a process runs. Each field is a flag, and each flag an environment
// variable: --metrics-listen is LATCHKEY_METRICS_LISTEN.
type Config struct {
	Listen         string
	Store          string
	Blobs          string
	Peers          peers
	ServiceKeyFile string
	ServiceKey     string
	BootstrapCode  string
	TLSCert        string
	TLSKey         string
	TLSCA          string
	MetricsListen  string
	TraceEndpoint  string
	LogLevel       string
	LogFormat      string
	Lease          time.Duration
	Drain          time.Duration
	CallTimeout    time.Duration
	MaxStreams     uint
	MaxMessage     int
	Demo           bool
	Check          check
}

// peers are the addresses of services in other processes, by service.
type peers map[string]string

func (p peers) String() string {
	var parts []string
	for service, addr := range p {
		parts = append(parts, service+"="+addr)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// Set reads "identity=10.0.0.1:8480", or several with commas between.
func (p peers) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		service, addr, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || service == "" || addr == "" {
			return fmt.Errorf("expected SERVICE=HOST:PORT, got %q", part)
		}
		if _, _, err := net.SplitHostPort(addr); err != nil && !strings.Contains(addr, ":///") {
			return fmt.Errorf("expected SERVICE=HOST:PORT, got %q", part)
		}
		p[service] = addr
	}
	return nil
}

const usage = `%[1]s runs %[2]s.

Usage:

	%[1]s [flags]

With no flags it keeps its data in the folder data, listens on loopback without
TLS, and prints a one-time code with which the first owner signs up.

Flags; each can also be set by the environment variable named beside it:

`

// parse reads the flags of a process called name. It returns flag.ErrHelp after
// printing the help that was asked for.
func parse(name, runs string, args []string, env func(string) (string, bool), out io.Writer) (Config, error) {
	c := Defaults()
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	c.declare(f)
	var errs []error
	f.VisitAll(func(fl *flag.Flag) {
		if text, ok := env(variable(fl.Name)); ok {
			if err := fl.Value.Set(text); err != nil {
				errs = append(errs, fmt.Errorf("environment variable %s: %w", variable(fl.Name), err))
			}
		}
	})
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(out, usage, name, runs)
		f.VisitAll(func(fl *flag.Flag) { printFlag(out, fl) })
		return c, err
	}
	if err != nil {
		return c, fmt.Errorf("%w; %s --help lists the flags", err, name)
	}
	if len(errs) > 0 {
		return c, errs[0]
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q; %s --help lists the flags", f.Arg(0), name)
	}
	return c, c.check()
}

// Defaults returns the configuration of a process without flags.
func Defaults() Config {
	c := Config{Peers: peers{}}
	c.declare(flag.NewFlagSet("", flag.ContinueOnError))
	return c
}

func (c *Config) declare(f *flag.FlagSet) {
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8480", "`host:port` to serve gRPC on; other than loopback needs --tls-cert and --tls-key")
	f.StringVar(&c.Store, "store", "bolt:data", "`URL` of the store: bolt:FOLDER keeps one file per service in a folder, made if missing")
	f.StringVar(&c.Blobs, "blobs", "", "`URL` of the blob store for photos and videos, file:///FOLDER; by default the folder blobs beside the store's files")
	f.Var(c.Peers, "peers", "`service=host:port`, with commas between, of each service that runs in another process")
	f.StringVar(&c.ServiceKeyFile, "service-key-file", "", "`file` with the secret by which the suite's processes know each other, at least 32 characters; by default service.key in the store's folder, made if missing")
	f.StringVar(&c.ServiceKey, "service-key", "", "that `secret` itself; better set by environment than by flag")
	f.StringVar(&c.BootstrapCode, "bootstrap-code", "", "one-time `code` for the first owner, instead of a random one that is printed; at least 20 characters")
	f.StringVar(&c.TLSCert, "tls-cert", "", "`file` with the server's certificate chain, PEM; read again when it changes")
	f.StringVar(&c.TLSKey, "tls-key", "", "`file` with the key of --tls-cert, PEM")
	f.StringVar(&c.TLSCA, "tls-ca", "", "`file` with the certificates that sign those of --peers, PEM; by default the system's")
	f.StringVar(&c.MetricsListen, "metrics-listen", "", "`host:port` to serve Prometheus metrics on, at /metrics; off if empty")
	f.StringVar(&c.TraceEndpoint, "trace-endpoint", "", "`URL` of an OpenTelemetry collector for traces by OTLP over gRPC, http://127.0.0.1:4317; off if empty")
	f.StringVar(&c.LogLevel, "log-level", "info", "least `level` logged: debug (every call), info (every refusal), warn, error")
	f.StringVar(&c.LogFormat, "log-format", "text", "`text` or json, on standard error")
	f.DurationVar(&c.Lease, "lease", 3*time.Second, "how long what is known of callers may be used without news; a revoke waits at most this `duration` for a process that hangs; the same in all processes")
	f.DurationVar(&c.Drain, "drain", 15*time.Second, "how long running calls may go on after SIGTERM, as a `duration`")
	f.DurationVar(&c.CallTimeout, "call-timeout", 30*time.Second, "longest `duration` of a unary call, whatever deadline its caller set")
	f.UintVar(&c.MaxStreams, "max-streams", 1000, "calls at once on one connection, a `number`")
	f.IntVar(&c.MaxMessage, "max-message", 4<<20, "longest message in `bytes`")
	f.Var(&c.Check, "check", "start nothing, but ask the process that listens on --listen whether it serves (`ready`) or is at least there (live); exit with 0 if so")
	f.BoolVar(&c.Demo, "demo", false, "on first start, fill in a made-up company with one user per role and print their passwords")
}

func (c *Config) check() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("--listen %q: expected HOST:PORT", c.Listen)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if ip := net.ParseIP(host); c.TLSCert == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--listen %s is not a loopback address, and without TLS passwords would cross the network readable: "+
			"set --tls-cert and --tls-key (a certificate for a test: openssl req -x509 -newkey ed25519 -nodes -days 30 "+
			"-subj /CN=latchkey -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem)", c.Listen)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return fmt.Errorf("--log-level %q: expected debug, info, warn or error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("--log-format %q: expected text or json", c.LogFormat)
	}
	if c.Lease < 100*time.Millisecond || c.Lease > time.Minute {
		return fmt.Errorf("--lease %s: expected 100ms to 1m", c.Lease)
	}
	if c.MaxMessage < 64<<10 || c.MaxMessage > 64<<20 {
		return fmt.Errorf("--max-message %d: expected 65536 to 67108864", c.MaxMessage)
	}
	if c.BootstrapCode != "" && len(c.BootstrapCode) < 20 {
		return errors.New("--bootstrap-code: expected at least 20 characters")
	}
	return nil
}

// folder returns the folder of a bolt store.
func (c *Config) folder() (string, error) {
	path, ok := strings.CutPrefix(c.Store, "bolt:")
	path = strings.TrimPrefix(path, "//")
	if !ok || path == "" {
		return "", fmt.Errorf("--store %q: expected bolt:FOLDER", c.Store)
	}
	return filepath.Abs(path)
}

func variable(flagName string) string {
	return "LATCHKEY_" + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

func printFlag(out io.Writer, f *flag.Flag) {
	kind, text := flag.UnquoteUsage(f)
	if f.DefValue != "" && f.DefValue != "false" {
		text += " (default " + f.DefValue + ")"
	}
	fmt.Fprintf(out, "  --%s %s  [%s]\n\t%s\n", f.Name, kind, variable(f.Name), text)
}

// serviceKey returns the secret that the processes of the suite share: as given, or
// from the file, which is made if missing and nobody else serves it.
func (c *Config) serviceKey(folder string, random func() string) (string, error) {
	if c.ServiceKey != "" {
		return checkKey(c.ServiceKey, "--service-key")
	}
	name := c.ServiceKeyFile
	if name == "" {
		name = filepath.Join(folder, "service.key")
		err := createOnce(name, random()+"\n")
		if err != nil {
			return "", fmt.Errorf("make the service key: %w", err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("read the service key: %w", err)
	}
	return checkKey(strings.TrimSpace(string(text)), name)
}

func checkKey(key, where string) (string, error) {
	if len(key) < 32 {
		return "", fmt.Errorf("the service key in %s is too short: expected at least 32 characters", where)
	}
	return key, nil
}

// createOnce makes a file with the text, whole, unless it is there; of processes
// that do so at once one wins.
func createOnce(name, text string) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), name); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}
