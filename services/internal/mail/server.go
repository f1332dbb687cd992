package mail

import (
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Server is where messages are handed in, and by whom.
type Server struct {
	Host string
	Port int
	// TLS says that the connection is by TLS from its beginning (RFC 8314 3.3).
	TLS bool
	// User signs in there; empty if nobody has to.
	User string
	// Password reads the user's password.
	Password func() (string, error)
	// Sender is whom messages are from.
	Sender netmail.Address
}

// ports are those of RFC 8314, where a URL names none.
var ports = map[string]int{"smtp": 587, "smtps": 465}

// ParseServer reads smtp://USER@HOST:PORT or smtps://USER@HOST:PORT. The password is that
// of the file if there is one, or else that of the URL. Its error does not show it.
func ParseServer(text, passwordFile, sender string) (Server, error) {
	s := Server{}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" || ports[u.Scheme] == 0 {
		return s, errors.New("expected smtp://USER@HOST:PORT or smtps://USER@HOST:PORT, for example smtp://latchkey@mail.example.com:587")
	}
	s.Host, s.Port, s.TLS, s.User = u.Hostname(), ports[u.Scheme], u.Scheme == "smtps", u.User.Username()
	if u.Port() != "" {
		if s.Port, err = strconv.Atoi(u.Port()); err != nil || s.Port < 1 || s.Port > 65535 {
			return s, errors.New("expected a port from 1 to 65535")
		}
	}
	password, named := u.User.Password()
	switch {
	case named && passwordFile != "":
		return s, errors.New("the password is in the URL and in a file: leave out one of them")
	case s.User == "" && (named || passwordFile != ""):
		return s, errors.New("there is a password, but no user in the URL")
	case s.User != "" && !named && passwordFile == "":
		return s, errors.New("there is a user, but no password")
	case named:
		s.Password = func() (string, error) { return password, nil }
	case passwordFile != "":
		s.Password = func() (string, error) { return readPassword(passwordFile) }
	}
	if s.Sender, err = parseSender(sender); err != nil {
		return s, err
	}
	return s, nil
}

func readPassword(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the password of the mail server: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("the password of the mail server in %s is empty", file)
	}
	return password, nil
}

func parseSender(text string) (netmail.Address, error) {
	a, err := netmail.ParseAddress(text)
	if err != nil || !isAddress(a.Address) || hasControl(a.Name) {
		return netmail.Address{}, fmt.Errorf("sender %q: expected an address, for example no-reply@example.com or Harbour Group <no-reply@example.com>", text)
	}
	return *a, nil
}

// isAddress tells whether a text is an address and nothing else.
func isAddress(text string) bool {
	a, err := netmail.ParseAddress(text)
	return err == nil && a.Name == "" && a.Address == text && !hasControl(text) && strings.Contains(domainOf(text), ".")
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

func hasControl(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x2028 || r == 0x2029 })
}

// local tells whether the server is on this machine, to which nobody listens in between.
func (s Server) local() bool {
	ip := net.ParseIP(s.Host)
	return s.Host == "localhost" || ip != nil && ip.IsLoopback()
}
