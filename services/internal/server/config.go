package server

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
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
	Listen          string
	Advertise       string
	Store           string
	Blobs           string
	Counts          string
	Peers           peers
	ServiceKeyFile  string
	ServiceKey      string
	BootstrapCode   string
	TLSCert         string
	TLSKey          string
	TLSCA           string
	PeerCert        string
	PeerKey         string
	PeerCA          string
	HTTPListen      string
	Issuer          string
	PasskeyDomain   string
	PasskeyOrigins  origins
	OutsideNetworks networks
	// TrustedProxies are those before the process that say where requests come from.
	TrustedProxies networks
	SealKeyFile    string

	SMTP             string
	SMTPSender       string
	SMTPPasswordFile string
	SignInPage       string

	MetricsListen string
	TraceEndpoint string
	LogLevel      string
	LogFormat     string
	Lease         time.Duration
	Drain         time.Duration
	CallTimeout   time.Duration
	MaxStreams    uint
	MaxMessage    int
	Demo          bool
	Check         check

	connectionAge time.Duration // after which a connection is old; 0 for the usual
}

// peers are the addresses of services in other processes, by service: that of a name that
// leads to all replicas, or several.
type peers map[string][]string

// name returns the name by which a service is known, if it has one and not several.
func (p peers) name(service string) string {
	if len(p[service]) != 1 {
		return ""
	}
	address := p[service][0]
	if _, rest, ok := strings.Cut(address, ":///"); ok {
		address = rest
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return host
}

func (p peers) String() string {
	var parts []string
	for service, addresses := range p {
		for _, addr := range addresses {
			parts = append(parts, service+"="+addr)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// Set reads "identity=10.0.0.1:8480", or several with commas between. A service that is
// named more than once has several replicas. What was set of it before is forgotten.
func (p peers) Set(text string) error {
	found := peers{}
	for part := range strings.SplitSeq(text, ",") {
		service, addr, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || service == "" || addr == "" {
			return fmt.Errorf("expected SERVICE=HOST:PORT, got %q", part)
		}
		if _, _, err := net.SplitHostPort(addr); err != nil && !strings.Contains(addr, ":///") {
			return fmt.Errorf("expected SERVICE=HOST:PORT, got %q", part)
		}
		found[service] = append(found[service], addr)
	}
	maps.Copy(p, found)
	return nil
}

// parse reads the flags of a process called name, which win over the environment. It
// returns flag.ErrHelp after printing the help that was asked for.
func parse(name, runs string, args []string, env func(string) (string, bool), out io.Writer) (Config, error) {
	c := Config{Peers: peers{}}
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	c.declare(f)
	operands, err := parseFlags(f, variable, args, env)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printHelp(out, f, runs)
		return c, err
	case err != nil:
		return c, err
	case len(operands) > 0:
		return c, fmt.Errorf("unexpected argument %q (%s --help lists the flags)", operands[0], name)
	}
	if err := checkMailArguments(f); err != nil {
		return c, err
	}
	return c, c.check()
}

// parseFlags reads flags from the environment, each from the variable of its name, and
// from the arguments, which win. It returns what else is among those. Its error says what
// is wrong in one line, or is flag.ErrHelp.
func parseFlags(f *flag.FlagSet, variable func(flagName string) string, args []string, env func(string) (string, bool)) (operands []string, err error) {
	f.SetOutput(io.Discard)
	var errs []error
	f.VisitAll(func(fl *flag.Flag) {
		fl.Value = explained{fl.Value, kindOf(fl)}
		if text, ok := env(variable(fl.Name)); ok {
			if err := fl.Value.Set(text); err != nil {
				errs = append(errs, fmt.Errorf("environment variable %s is %q: %w", variable(fl.Name), text, err))
			}
		}
	})
	for {
		err := f.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		if err != nil {
			// Package flag writes flags with one dash.
			text := strings.NewReplacer("flag -", "flag --", "value -", "value --", "for -", "for --", "defined: -", "defined: --", "argument: -", "argument: --").Replace(err.Error())
			return nil, fmt.Errorf("%s (%s --help lists the flags)", text, f.Name())
		}
		if f.NArg() == 0 {
			break
		}
		operands, args = append(operands, f.Arg(0)), f.Args()[1:]
	}
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return operands, nil
}

// explained is a flag's value that says what it expected.
type explained struct {
	flag.Value
	kind string
}

// Set reads the value.
func (e explained) Set(text string) error {
	err := e.Value.Set(text)
	if want, ok := wanted[e.kind]; err != nil && ok {
		return errors.New("expected " + want)
	}
	return err
}

// IsBoolFlag tells package flag that the flag can stand alone.
func (e explained) IsBoolFlag() bool {
	b, ok := e.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// wanted is what to say where package flag says no more than "parse error".
var wanted = map[string]string{
	"duration": "a duration, for example 30s or 1m30s",
	"number":   "a number, 0 or more",
	"":         "true or false", // flags without a value
}

// kindOf returns the word for a flag's value that its text has in back quotes.
func kindOf(fl *flag.Flag) string {
	kind, _ := flag.UnquoteUsage(fl)
	return kind
}

// Defaults returns the configuration of a process without flags.
func Defaults() Config {
	c := Config{Peers: peers{}}
	c.declare(flag.NewFlagSet("", flag.ContinueOnError))
	return c
}

func (c *Config) declare(f *flag.FlagSet) {
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8480", "`host:port` to serve gRPC on; other than loopback needs --tls-cert and --tls-key")
	f.StringVar(&c.Advertise, "advertise", "", "`host:port` under which other processes of the suite reach this one, if several share a database; by default --listen, with the machine's name if that is every address")
	f.StringVar(&c.TLSCert, "tls-cert", "", "`file` with the server's certificate chain, PEM; read again when it changes")
	f.StringVar(&c.TLSKey, "tls-key", "", "`file` with the key of --tls-cert, PEM")
	f.StringVar(&c.HTTPListen, "http-listen", "", "`host:port` to serve HTTP on beside gRPC, for OAuth 2.0 and OpenID Connect, with the same certificate; off if left out; other than loopback needs --tls-cert, --tls-key and --issuer")
	f.StringVar(&c.Issuer, "issuer", "", "`URL` under which others reach --http-listen, and that tokens name as who issued them, for example https://id.example.com; by default the address itself")
	f.StringVar(&c.PasskeyDomain, "passkey-domain", "", "`domain` that passkeys are made for, for example example.com; whoever changes it makes all passkeys worthless; by default the host of --issuer")
	f.Var(&c.PasskeyOrigins, "passkey-origins", "the `origins` of the pages and apps in which people show passkeys, with commas between: https://HOST in that domain, http://localhost:PORT for a test, android:apk-key-hash:HASH; by default --issuer, or else https:// and the domain")
	f.Var(&c.TrustedProxies, "trusted-proxies", "`networks` of the proxies before the suite that say in X-Forwarded-For where requests come from, with commas between, for example 10.1.0.0/16; by default whoever connects is taken to be the one who asks")
	f.Var(&c.OutsideNetworks, "outside-networks", "private `networks` in which OpenID Connect providers may be that people sign in by, with commas between, for example 10.1.0.0/16; by default the suite asks none at a private address")
	f.StringVar(&c.SMTP, "smtp", "", "`URL` of the mail server by which the suite writes to people, smtp://USER@HOST:587 (which changes to TLS, but on loopback) or smtps://USER@HOST:465; off if left out; needs --smtp-sender; a password in it only by environment")
	f.StringVar(&c.SMTPSender, "smtp-sender", "", "`address` that messages are from, for example \"Harbour Group <no-reply@example.com>\"")
	f.StringVar(&c.SMTPPasswordFile, "smtp-password-file", "", "`file` with the password of the user of --smtp; read again for each connection")
	f.StringVar(&c.SignInPage, "sign-in-page", "", "`URL` of the page on which people sign in, for messages to lead to; without it they lead nowhere")
	f.StringVar(&c.Store, "store", "bolt:data", "`URL` of the store: bolt:FOLDER keeps one file per service in a folder, made if missing; postgres://USER@HOST/DATABASE keeps all in a database, for any number of processes (better set by environment if it has a password)")
	f.StringVar(&c.Blobs, "blobs", "", "`URL` of the blob store for photos and videos, for example file:///FOLDER; by default the folder blobs beside the store's files; needed with a database")
	f.StringVar(&c.Counts, "counts", "", "`folder`, made if missing, in which the process counts what people use, so that it loses no count if it is killed; not that of another process with the same services; by default the store's folder; with a database, without it, a process that is killed loses the counts of its last second")
	f.BoolVar(&c.Demo, "demo", false, "fill in a made-up company with one user per role, and print their passwords")
	f.StringVar(&c.BootstrapCode, "bootstrap-code", "", "one-time `code` for the first owner, instead of a random one that is printed; at least 20 characters")
	f.Var(c.Peers, "peers", "`service=host:port` of each service that runs in another process, with commas between; of one with replicas a name that leads to all (service=dns:///host:port), or each")
	f.StringVar(&c.TLSCA, "tls-ca", "", "`file` with the certificates that sign those of --peers, PEM; by default the system's")
	f.StringVar(&c.PeerCert, "peer-cert", "", "`file` with the certificate by which the suite's other processes know this one, PEM; read again when it changes; latchkey certs makes it; served to others too, if there is no --tls-cert")
	f.StringVar(&c.PeerKey, "peer-key", "", "`file` with the key of --peer-cert, PEM")
	f.StringVar(&c.PeerCA, "peer-ca", "", "`file` with the certificates of the authority that signs those of the suite's processes, PEM; read again when it changes; with it no service calls or is called that does not show its own")
	f.StringVar(&c.ServiceKeyFile, "service-key-file", "", "`file` with the secret by which the suite's processes know each other, at least 32 characters; by default service.key in the store's folder, made if missing; needed with a database, unless all services are in one process")
	f.StringVar(&c.ServiceKey, "service-key", "", "the `secret` itself, instead of a file; better set by environment, since others can read a flag")
	f.StringVar(&c.SealKeyFile, "seal-key-file", "", "`file` with the secrets that encrypt what the suite must keep and read again, as signing keys, one a line of at least 32 characters; the first one encrypts, all decrypt; by default seal.key in the store's folder, made if missing; needed with a database")
	f.DurationVar(&c.Lease, "lease", 3*time.Second, "`duration` for which a process may use what it knows of callers without news, 100ms to 1m; a revoke waits at most so long for one that hangs; the same in all processes")
	f.StringVar(&c.LogLevel, "log-level", "info", "least `level` logged: debug (every call), info (every refusal), warn or error")
	f.StringVar(&c.LogFormat, "log-format", "text", "`format` of the log on standard error: text or json")
	f.StringVar(&c.MetricsListen, "metrics-listen", "", "`host:port` to serve Prometheus metrics on, at /metrics; off if left out")
	f.StringVar(&c.TraceEndpoint, "trace-endpoint", "", "`URL` of an OpenTelemetry collector that takes OTLP over gRPC, for example http://127.0.0.1:4317; off if left out")
	f.Var(&c.Check, "check", "start nothing, but ask the process that listens on --listen whether it serves (`ready`) or is at least there (live); exit with 0 if so")
	f.DurationVar(&c.CallTimeout, "call-timeout", 30*time.Second, "longest `duration` of a unary call, whatever deadline its caller set")
	f.DurationVar(&c.Drain, "drain", 15*time.Second, "`duration` for which running calls may go on after SIGTERM")
	f.IntVar(&c.MaxMessage, "max-message", 4<<20, "longest message in bytes, a `number`, 65536 to 67108864")
	f.UintVar(&c.MaxStreams, "max-streams", 1000, "`number` of calls at once on one connection, 1 to 1000000")
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
