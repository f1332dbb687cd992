package server

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
)

// command is what the program does when its first argument names it, instead of running
// the services.
type command struct {
	name     string
	operands string   // what follows, "FILE"; empty if nothing may
	summary  string   // one line
	about    string   // paragraphs, with empty lines between
	shared   []string // flags of Config that it has too, with the same variables
	// declare declares the command's own flags and returns what to do with them. The
	// variable of --every of backup is LATCHKEY_BACKUP_EVERY.
	declare func(*flag.FlagSet) action
}

// action does the work of a command. It returns what it has done, for the last lines on
// standard output, also beside an error; nil if there is nothing to say.
type action func(ctx context.Context, in *invocation) (report, error)

// report is the outcome of a command: its text, or with --format=json its fields.
type report interface{ String() string }

// invocation is one call of a command.
type invocation struct {
	program  string
	parts    []Part
	engines  Engines
	config   Config // as far as its flags are shared
	operands []string
	out      io.Writer // what was asked for
	errOut   io.Writer // everything else

	recipients []age.Recipient // for whom what it writes is encrypted
	identities []age.Identity  // with which it opens what it reads

	said time.Time // when progress was told last
}

// usageError is the error of an action that was called wrongly.
type usageError string

func (e usageError) Error() string { return string(e) }

// commands are all, in the order of the help.
func commands() []command {
	return []command{backupCommand(), restoreCommand(), verifyCommand(), copyCommand(), compactCommand(), exportCommand(), importCommand(), keygenCommand(), certsCommand(), helpCommand()}
}

// runCommand runs the command that the first argument names, and returns the exit code.
func runCommand(in *invocation, args []string, env func(string) (string, bool)) int {
	fail := func(code int, err error) int {
		fmt.Fprintf(in.errOut, "%s: %v\n", in.program, err)
		return code
	}
	c, ok := findCommand(args[0])
	if !ok {
		return fail(2, fmt.Errorf("there is no command %q (%s help lists them)", args[0], in.program))
	}
	f, format, do := c.flags(in)
	operands, err := parseFlags(f, c.variable, args[1:], env)
	switch {
	case errors.Is(err, flag.ErrHelp):
		c.printHelp(in.out, in.program)
		return 0
	case err != nil:
		return fail(2, err)
	case *format != "text" && *format != "json":
		return fail(2, fmt.Errorf("--format %q: expected text or json", *format))
	case c.operands == "" && len(operands) > 0:
		return fail(2, fmt.Errorf("unexpected argument %q (%s --help says how to call it)", operands[0], f.Name()))
	}
	if err := in.config.check(); err != nil {
		return fail(2, err)
	}
	in.operands = operands
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	done, err := do(ctx, in)
	if done != nil {
		err = errors.Join(err, in.tell(done, *format))
	}
	wrong, badly := errors.AsType[usageError](err)
	switch {
	case badly:
		return fail(2, fmt.Errorf("%w (%s --help says how to call it)", wrong, f.Name()))
	case err != nil && ctx.Err() != nil:
		return fail(1, fmt.Errorf("%s was stopped before it was done", c.name))
	case err != nil:
		return fail(1, err)
	}
	return 0
}

func findCommand(name string) (command, bool) {
	for _, c := range commands() {
		if c.name == name {
			return c, true
		}
	}
	return command{}, false
}

// flags declares all flags of the command.
func (c *command) flags(in *invocation) (f *flag.FlagSet, format *string, do action) {
	f = flag.NewFlagSet(in.program+" "+c.name, flag.ContinueOnError)
	in.config = Config{Peers: peers{}}
	all := flag.NewFlagSet("", flag.ContinueOnError)
	in.config.declare(all)
	for _, name := range c.shared {
		fl := all.Lookup(name)
		f.Var(fl.Value, name, fl.Usage)
	}
	do = c.declare(f)
	format = f.String("format", "text", "`format` of the summary on standard output: text or json")
	return f, format, do
}

// variable is the environment variable of one of the command's flags.
func (c *command) variable(flagName string) string {
	for _, name := range c.shared {
		if name == flagName {
			return variable(name)
		}
	}
	return variable(c.name + "-" + flagName)
}

// tell prints the outcome.
func (in *invocation) tell(r report, format string) error {
	text := r.String()
	if format == "json" {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		text = string(b)
	}
	_, err := fmt.Fprintln(in.out, strings.TrimSuffix(text, "\n"))
	return err
}

// progressEvery is how often progress is told at most.
const progressEvery = 2 * time.Second

// progress tells how far the command is, unless it did so just now.
func (in *invocation) progress(format string, args ...any) {
	if now := time.Now(); now.Sub(in.said) >= progressEvery {
		in.said = now
		in.note(format, args...)
	}
}

// note tells something that whoever called the command should know.
func (in *invocation) note(format string, args ...any) {
	fmt.Fprintf(in.errOut, format+"\n", args...)
}

func helpCommand() command {
	return command{
		name: "help", operands: "[COMMAND]", summary: "explain the program, or one command",
		about: "Prints what `--help` prints, of the program or of a command.",
		declare: func(*flag.FlagSet) action {
			return func(_ context.Context, in *invocation) (report, error) {
				switch len(in.operands) {
				case 0:
					f := flag.NewFlagSet(in.program, flag.ContinueOnError)
					(&Config{Peers: peers{}}).declare(f)
					printHelp(in.out, f, description(&Process{parts: in.parts}))
					return nil, nil
				case 1:
					c, ok := findCommand(in.operands[0])
					if !ok {
						return nil, usageError(fmt.Sprintf("there is no command %q", in.operands[0]))
					}
					c.printHelp(in.out, in.program)
					return nil, nil
				}
				return nil, usageError("expected one command")
			}
		},
	}
}

// printCommands lists the commands.
func printCommands(out io.Writer) {
	fmt.Fprintf(out, "\nCommands:\n\n")
	for _, c := range commands() {
		fmt.Fprintf(out, "  %-10s %s\n", c.name, c.summary)
	}
}

// printHelp prints the help of the command.
func (c *command) printHelp(out io.Writer, program string) {
	in := &invocation{program: program}
	f, _, _ := c.flags(in)
	usage := strings.TrimSpace(program + " " + c.name + " [flags] " + c.operands)
	fmt.Fprintf(out, "%s: %s.\n\nUsage:\n\n\t%s\n", f.Name(), c.summary, usage)
	for paragraph := range strings.SplitSeq(c.about, "\n\n") {
		fmt.Fprintf(out, "\n%s\n", wrap(paragraph, columns, "\n"))
	}
	fmt.Fprintf(out, "\nIt exits with 0 if it has done what was asked, 1 if not, and 2 if it was called\nwrongly.\n\nFlags:\n\n")
	f.VisitAll(func(fl *flag.Flag) { printFlag(out, fl, c.variable) })
}
