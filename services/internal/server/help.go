package server

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// sections are the flags as the help shows them.
var sections = []struct {
	title string
	flags []string
}{
	{"What it serves", []string{"listen", "tls-cert", "tls-key", "http-listen", "issuer", "passkey-domain", "passkey-origins", "trusted-proxies", "outside-networks"}},
	{"Mail", []string{"smtp", "smtp-sender", "smtp-password-file", "sign-in-page"}},
	{"Where it keeps data", []string{"store", "blobs", "seal-key-file", "counts"}},
	{"First start", []string{"demo", "bootstrap-code"}},
	{"Services in other processes", []string{"peers", "peer-cert", "peer-key", "peer-ca", "tls-ca", "service-key-file", "service-key", "lease", "advertise"}},
	{"How it is doing", []string{"log-level", "log-format", "metrics-listen", "trace-endpoint", "check"}},
	{"Bounds", []string{"call-timeout", "drain", "max-message", "max-streams"}},
}

const usage = `%[1]s runs %[2]s.

Usage:

	%[1]s [flags]
	%[1]s COMMAND [flags] [arguments]

With no flags it keeps its data in the folder data, listens on loopback without
TLS, and prints a one-time code with which the first owner signs up. Each flag can
also be set by the environment variable beside it; the flag wins.
`

// columns is how wide the help is at most.
const columns = 80

func printHelp(out io.Writer, f *flag.FlagSet, runs string) {
	fmt.Fprintf(out, usage, f.Name(), wrap(runs, columns-10, "\n"))
	for _, s := range sections {
		fmt.Fprintf(out, "\n%s:\n\n", s.title)
		for _, name := range s.flags {
			printFlag(out, f.Lookup(name), variable)
		}
	}
	printCommands(out)
}

func printFlag(out io.Writer, f *flag.Flag, variable func(string) string) {
	kind, text := flag.UnquoteUsage(f)
	if f.DefValue != "" && f.DefValue != "false" {
		text += " (default " + f.DefValue + ")"
	}
	const indent = "      "
	fmt.Fprintf(out, "  --%-34s %s\n%s%s\n", strings.TrimSpace(f.Name+" "+kind), variable(f.Name), indent, wrap(text, columns-len(indent), "\n"+indent))
}

// wrap breaks a text between words into lines of at most so many bytes, as far as its
// words allow.
func wrap(text string, width int, newline string) string {
	var b strings.Builder
	line := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case line+1+len(word) > width:
			b.WriteString(newline)
			line = 0
		default:
			b.WriteByte(' ')
			line++
		}
		b.WriteString(word)
		line += len(word)
	}
	return b.String()
}

// variable is the environment variable of a flag: LATCHKEY_METRICS_LISTEN for
// metrics-listen.
func variable(flagName string) string {
	return "LATCHKEY_" + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}
