package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
)

// Main runs the parts as a process until it is told to stop. It is all of a main. The
// program can keep its stores in files, and in databases for which it has engines.
func Main(engines Engines, parts ...Part) {
	out := os.Stdout
	if isCommand(os.Args[1:]) {
		os.Stdout = os.Stderr // drivers of buckets print warnings, and a backup may be what the command writes
	}
	os.Exit(run(engines, parts, os.Args[1:], os.LookupEnv, out, os.Stderr))
}

// isCommand tells whether a program is called to do something, and not to serve.
func isCommand(args []string) bool { return len(args) > 0 && !strings.HasPrefix(args[0], "-") }

// garbage is how much of it may gather before it is collected, in percent of what is
// in use. That is little beside what calls leave behind, which at Go's 100 would be
// collected dozens of times a second. GOMEMLIMIT bounds both together.
const garbage = 400

// run returns the exit code: 0 after a stop that was asked for, 1 if the process
// cannot start or go on, 2 if it was called wrongly. Those of a command are the same: 0 if
// it has done what was asked, 1 if it has not, or has found damage.
func run(engines Engines, parts []Part, args []string, env func(string) (string, bool), out, errOut io.Writer) int {
	probe := &Process{parts: parts}
	if isCommand(args) {
		return runCommand(&invocation{program: probe.Name(), parts: parts, engines: engines, out: out, errOut: errOut}, args, env)
	}
	config, err := parse(probe.Name(), description(probe), args, env, out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(errOut, "%s: %v\n", probe.Name(), err)
		return 2
	}
	if config.Check != noCheck {
		return checked(&config, probe.Name(), errOut)
	}
	if config.Demo && config.BootstrapCode == "" {
		config.BootstrapCode = randomSecret()
	}
	if _, set := env("GOGC"); !set {
		debug.SetGCPercent(garbage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := Start(ctx, config, parts, Options{Log: newLog(&config, errOut), Engines: engines})
	if err != nil {
		fmt.Fprintf(errOut, "%s: %v\n", probe.Name(), err)
		return 1
	}
	p.log.Info("listening", "address", p.Addr(), "services", p.services())
	select {
	case <-ctx.Done():
		stop() // a second signal ends the process at once
		p.log.Info("draining", "at_most", config.Drain)
	case <-p.Done():
	}
	p.Stop()
	if err := p.Err(); err != nil {
		fmt.Fprintf(errOut, "%s: %v\n", probe.Name(), err)
		return 1
	}
	return 0
}

func checked(config *Config, name string, errOut io.Writer) int {
	if err := ask(context.Background(), config); err != nil {
		fmt.Fprintf(errOut, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

func description(p *Process) string {
	if len(p.parts) == 1 {
		return "the " + p.parts[0].Name + " service of Latchkey"
	}
	names := p.services()
	if i := strings.LastIndex(names, ", "); i >= 0 {
		names = names[:i] + " and" + names[i+1:]
	}
	return "Latchkey's services in one process: " + names
}
