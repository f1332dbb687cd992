package server_test

import (
	"bytes"
	"testing"

	"latchkey.dev/services/internal/server"
)

// What is wrong with the flags of mail is told before anything starts, and without the
// password.
func TestWrongMailFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		vars map[string]string
		want string
	}{
		{[]string{"--smtp", "mail.example.com", "--smtp-sender", "a@example.com"}, nil, "--smtp: expected smtp://USER@HOST:PORT or smtps://USER@HOST:PORT, for example smtp://latchkey@mail.example.com:587"},
		{[]string{"--smtp", "smtp://mail.example.com"}, nil, `--smtp: sender "": expected an address, for example no-reply@example.com or Harbour Group <no-reply@example.com>`},
		{[]string{"--smtp", "smtp://ada:secret@mail.example.com", "--smtp-sender", "a@example.com"}, nil, "--smtp: others can read a password in an argument: set LATCHKEY_SMTP, or --smtp-password-file"},
		{[]string{"--smtp-sender", "a@example.com"}, map[string]string{"LATCHKEY_SMTP": "smtp://ada:secret%zz@mail.example.com"}, "--smtp: expected smtp://USER@HOST:PORT or smtps://USER@HOST:PORT, for example smtp://latchkey@mail.example.com:587"},
		{[]string{"--smtp-sender", "a@example.com"}, nil, "--smtp-sender, --smtp-password-file and --sign-in-page need --smtp"},
		{[]string{"--smtp", "smtp://mail.example.com", "--smtp-sender", "a@example.com", "--sign-in-page", "http://app.example.com"}, nil, `--sign-in-page "http://app.example.com": expected https://HOST with or without a path, or http:// on a loopback address`},
	} {
		var out, errOut bytes.Buffer
		code := server.Run(nil, newSuite().parts(), c.args, env(c.vars), &out, &errOut)
		if got, want := errOut.String(), "latchkey: "+c.want+"\n"; code != 2 || got != want || out.Len() > 0 {
			t.Errorf("%q %v:\n got %d %swant 2 %sand on standard output: %q", c.args, c.vars, code, got, want, &out)
		}
	}
}
