package server_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"latchkey.dev/services/internal/server"
)

// called calls the program and returns its exit code and what it printed.
func called(args []string, vars map[string]string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = server.Run(nil, newSuite().parts(), args, env(vars), &o, &e)
	return code, o.String(), e.String()
}

// Each command is in the help, and explains itself with all of its flags.
func TestEachCommandHasHelp(t *testing.T) {
	_, help, _ := called([]string{"help"}, nil)
	if _, other, _ := called([]string{"--help"}, nil); help != other {
		t.Errorf("help prints %q, and --help %q", help, other)
	}
	for name, flags := range server.CommandFlags() {
		if !strings.Contains(help, "\n  "+name+" ") {
			t.Errorf("the help does not list %s", name)
		}
		code, own, errOut := called([]string{"help", name}, nil)
		if code != 0 || errOut != "" {
			t.Errorf("help %s: got exit code %d and %q", name, code, errOut)
		}
		if code, other, _ := called([]string{name, "--help"}, nil); code != 0 || other != own {
			t.Errorf("help %s prints %q, and %s --help %q with exit code %d", name, own, name, other, code)
		}
		if want := "latchkey " + name + ": "; !strings.HasPrefix(own, want) {
			t.Errorf("help %s begins with %.60q, want %q", name, own, want)
		}
		for flag, variable := range flags {
			if strings.Count(own, "\n  --"+flag+" ") != 1 || !strings.Contains(own, variable+"\n") {
				t.Errorf("help %s does not tell of --%s and %s", name, flag, variable)
			}
		}
		for line := range strings.Lines(own) {
			if len(line) > 84 || strings.HasSuffix(line, " \n") {
				t.Errorf("help %s: a line of %d bytes: %q", name, len(line), line)
			}
		}
	}
}

// A flag that the services have too is set by the same variable, and no two others share
// one.
func TestVariablesOfCommands(t *testing.T) {
	of := map[string]string{}
	for _, name := range server.FlagNames() {
		of[server.Variable(name)] = name
	}
	for command, flags := range server.CommandFlags() {
		for flag, variable := range flags {
			if other, taken := of[variable]; taken && (other != flag || !slices.Contains(server.FlagNames(), flag)) {
				t.Errorf("--%s of %s is set by %s, which is another's", flag, command, variable)
			}
			of[variable] = flag
		}
	}
}

// A command that was called wrongly says so in one line, with exit code 2.
func TestWrongCommands(t *testing.T) {
	for _, c := range []struct {
		args []string
		vars map[string]string
		want string
	}{
		{[]string{"help", "--bogus"}, nil, "flag provided but not defined: --bogus (latchkey help --help lists the flags)"},
		{[]string{"help", "bogus"}, nil, `there is no command "bogus" (latchkey help --help says how to call it)`},
		{[]string{"help", "help", "help"}, nil, "expected one command (latchkey help --help says how to call it)"},
		{[]string{"help", "--format=xml"}, nil, `--format "xml": expected text or json`},
		{[]string{"help"}, map[string]string{"LATCHKEY_HELP_FORMAT": "xml"}, `--format "xml": expected text or json`},
	} {
		code, out, errOut := called(c.args, c.vars)
		if want := "latchkey: " + c.want + "\n"; code != 2 || errOut != want || out != "" {
			t.Errorf("%q %v:\n got %d %swant 2 %sand on standard output: %q", c.args, c.vars, code, errOut, want, out)
		}
	}
}
