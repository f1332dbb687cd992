package server

import (
	"flag"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc/credentials"
)

// Run is Main without the end of the process.
var Run = run

// AgeConnections has connections grow old sooner than they do.
func (c *Config) AgeConnections(age time.Duration) { c.connectionAge = age }

// Variable is the environment variable of a flag.
var Variable = variable

// Parse reads the flags.
func Parse(args []string, env func(string) (string, bool)) (Config, error) {
	return parse("latchkey", "", args, env, io.Discard)
}

// FlagNames returns all flags.
func FlagNames() []string {
	var names []string
	f := flag.NewFlagSet("", flag.ContinueOnError)
	(&Config{Peers: peers{}}).declare(f)
	f.VisitAll(func(fl *flag.Flag) { names = append(names, fl.Name) })
	return names
}

// CommandFlags returns the flags of each command, with the variable of each flag.
func CommandFlags() map[string]map[string]string {
	all := map[string]map[string]string{}
	for _, c := range commands() {
		f, _, _ := c.flags(&invocation{program: "latchkey"})
		all[c.name] = map[string]string{}
		f.VisitAll(func(fl *flag.Flag) { all[c.name][fl.Name] = c.variable(fl.Name) })
	}
	return all
}

// Description says what the parts are, together.
func Description(parts []Part) string { return description(&Process{parts: parts}) }

// MakeServiceKey returns the key of a process with its data in the folder.
func (c *Config) MakeServiceKey(folder string) (string, error) {
	return c.serviceKey(folder, randomSecret)
}

// SelfCredentials are those by which the process with a certificate calls itself.
func SelfCredentials(certFile, keyFile string) (credentials.TransportCredentials, error) {
	c, err := readCertificate("TLS certificate", "tls-cert", certFile, keyFile, slog.New(slog.DiscardHandler))
	return selfCredentials(certificates{c}), err
}

// NewLog returns the log of a process.
var NewLog = newLog

// RequestLog adds the id of the call to what is logged.
func RequestLog(h slog.Handler) slog.Handler { return requestLog{h} }

// WithRequest returns the context of a call.
var WithRequest = withRequest

// ReceiveRevision returns the events of the next revision.
var ReceiveRevision = receiveRevision

// Growing is the pause after failures in a row.
var Growing = growing

// EnvOf returns what a part gets of a process.
func EnvOf(p *Process, part Part) *Env { return p.env(part) }

// Running returns how many calls run that a drain waits for.
func (p *Process) Running() int {
	p.edge.calls.mu.Lock()
	defer p.edge.calls.mu.Unlock()
	return p.edge.calls.n
}

// Feeds are the streams for which a process that drains does not wait.
var Feeds = feeds

// Outdated returns the files of a continuous backup that an instant and later ones do not need.
var Outdated = outdated

// FilesAt returns the files by which a continuous backup goes to an instant, and the backup
// that follows them.
func FilesAt(names []string, at time.Time) (files []string, next string) {
	one, other := pick(seriesOf(names), at)
	if one != nil {
		files = one.files()
	}
	if other != nil {
		next = other.backup
	}
	return files, next
}
