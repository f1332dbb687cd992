package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strings"

	"latchkey.dev/services/internal/mail"
)

// checkMail wants a server that can be asked and a sender, or nothing of mail at all.
func (c *Config) checkMail() error {
	if c.SMTP == "" {
		if c.SMTPSender != "" || c.SMTPPasswordFile != "" || c.SignInPage != "" {
			return errors.New("--smtp-sender, --smtp-password-file and --sign-in-page need --smtp")
		}
		return nil
	}
	if _, err := c.mailServer(); err != nil {
		return err
	}
	u, err := url.Parse(c.SignInPage)
	if c.SignInPage != "" && (err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) ||
		u.User != nil || strings.ContainsFunc(c.SignInPage, func(r rune) bool { return r <= ' ' || r > '~' }) || len(c.SignInPage) > 500) {
		return fmt.Errorf("--sign-in-page %q: expected https://HOST with or without a path, or http:// on a loopback address", c.SignInPage)
	}
	return nil
}

// mailServer reads the flags. Its error shows no password.
func (c *Config) mailServer() (mail.Server, error) {
	s, err := mail.ParseServer(c.SMTP, c.SMTPPasswordFile, c.SMTPSender)
	if err != nil {
		return s, fmt.Errorf("--smtp: %w", err)
	}
	return s, nil
}

// SECURITY: arguments can be read by everybody on the machine.
func checkMailArguments(f *flag.FlagSet) (err error) {
	f.Visit(func(fl *flag.Flag) {
		if fl.Name != "smtp" {
			return
		}
		u, bad := url.Parse(fl.Value.String())
		if bad != nil { // which says so itself
			return
		}
		if _, named := u.User.Password(); named {
			err = fmt.Errorf("--smtp: others can read a password in an argument: set %s, or --smtp-password-file", variable(fl.Name))
		}
	})
	return err
}

// openMail makes what sends messages; nothing where that is off. It connects to nobody.
func (p *Process) openMail(context.Context) error {
	if p.config.SMTP == "" {
		return nil
	}
	server, err := p.config.mailServer()
	if err == nil {
		p.mail, err = mail.New(server)
	}
	if err != nil || p.metrics == nil {
		return err
	}
	counts := &p.mail.Counts
	p.metrics.tally("latchkey_mail_sent_total", "Messages that the mail server took, by what they are of.", counts.Sent.Counts)
	p.metrics.tally("latchkey_mail_failed_total", "Attempts to hand in messages that failed, by what they are of, and to connect to the mail server, of nothing.", counts.Failed.Counts)
	p.metrics.tally("latchkey_mail_given_up_total", "Messages that will not be sent, too old, or refused for good, by what they are of.", counts.GivenUp.Counts)
	p.metrics.tally("latchkey_mail_held_back_total", "Messages that were too many for one person, by what they are of.", counts.HeldBack.Counts)
	p.metrics.gauge("latchkey_mail_waiting", "Messages that are to be sent, where this process sends them.", nil, func() float64 { return float64(counts.Waiting.Load()) })
	p.metrics.gauge("latchkey_mail_oldest_seconds", "When the oldest of the messages that are to be sent was caused, in seconds since 1970; 0 if none is.", nil,
		func() float64 { return float64(counts.Oldest.Load()) / 1e9 })
	return nil
}
