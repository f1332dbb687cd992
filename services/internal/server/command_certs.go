package server

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"latchkey.dev/services/internal/certify"
)

// operatorName is the service as which an operator's commands call.
const operatorName = "operator"

func certsCommand() command {
	return command{
		name: "certs", operands: "FOLDER [NAME...]", summary: "make and renew the certificates of the services",
		about: `These are the certificates by which the processes of the suite know each other. It keeps in FOLDER a certificate authority of the suite's own (ca.pem, ca-key.pem) and for each service a certificate and its key (NAME.pem, NAME-key.pem): for each process of the suite, for the one that is all services (latchkey), and for these commands (operator). With NAME it looks after those alone, and NAME can also be a service of your own that calls the suite's.

What is missing is made. A certificate that ends within --renew-within is renewed with the key it has, so run the command every day; one that was made for other --hosts is renewed too. The services read the files again when they change. A key is never written over unless --new-keys or --new-ca says so.

A process is given ca.pem and its own two files, as --peer-ca, --peer-cert and --peer-key. Keep ca-key.pem away from all of them: who has it can be any service.

To replace the authority without an interruption, call it with --new-ca, give the new ca.pem to all processes, then call it with --renew, give out the certificates, and at last with --forget-ca, and give out ca.pem again.`,
		declare: func(f *flag.FlagSet) action {
			var c certs
			f.StringVar(&c.hosts, "hosts", "", "`names` and IP addresses by which clients reach the services, with commas between, to be in each certificate too; those of the services to each other need not be")
			f.DurationVar(&c.life, "lifetime", 90*24*time.Hour, "`duration` that a certificate lasts, 1m to 9600h")
			f.DurationVar(&c.within, "renew-within", 0, "`duration` before its end from which on a certificate is renewed; by default a third of --lifetime")
			f.BoolVar(&c.renew, "renew", false, "renew all certificates, due or not")
			f.BoolVar(&c.newKeys, "new-keys", false, "renew all certificates, with new keys")
			f.BoolVar(&c.newCA, "new-ca", false, "make a new authority, which signs from now on, beside the one before")
			f.BoolVar(&c.forget, "forget-ca", false, "accept no longer what authorities before the newest have signed")
			return c.run
		},
	}
}

// certs is a call of the command.
type certs struct {
	hosts                         string
	life, within                  time.Duration
	renew, newKeys, newCA, forget bool
}

// certified is the outcome of the command.
type certified struct {
	Authority    certify.Outcome `json:"authority"`
	Forgotten    int             `json:"forgotten,omitempty"`
	Certificates []certificateOf `json:"certificates"`
}

type certificateOf struct {
	Name    string          `json:"name"`
	Outcome certify.Outcome `json:"outcome"`
	Until   time.Time       `json:"until"`
}

func (r *certified) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "authority %s", r.Authority)
	if r.Forgotten > 0 {
		fmt.Fprintf(&b, ", %d before it forgotten", r.Forgotten)
	}
	for _, c := range r.Certificates {
		fmt.Fprintf(&b, "\n%s %s, until %s", c.Name, c.Outcome, c.Until.UTC().Format(time.RFC3339))
	}
	return b.String()
}

func (c *certs) run(_ context.Context, in *invocation) (report, error) {
	if err := c.check(in); err != nil {
		return nil, err
	}
	folder := &certify.Folder{Path: in.operands[0], Now: time.Now, Random: rand.Reader}
	done := &certified{Certificates: []certificateOf{}}
	var err error
	if done.Authority, err = folder.Authority(c.newCA); err != nil {
		return nil, err
	}
	for _, w := range c.wanted(in) {
		outcome, until, err := folder.Certificate(w)
		if err != nil {
			return done, fmt.Errorf("%s: %w", w.File, err)
		}
		done.Certificates = append(done.Certificates, certificateOf{w.File, outcome, until})
	}
	if c.forget {
		done.Forgotten, err = folder.Forget()
	}
	return done, err
}

const leastLife, mostLife = time.Minute, 400 * 24 * time.Hour

func (c *certs) check(in *invocation) error {
	if c.within == 0 {
		c.within = c.life / 3
	}
	switch {
	case len(in.operands) == 0:
		return usageError("expected FOLDER")
	case c.life < leastLife || c.life > mostLife:
		return usageError(fmt.Sprintf("--lifetime %s: expected 1m to 9600h", c.life))
	case c.within < 0 || c.within >= c.life:
		return usageError(fmt.Sprintf("--renew-within %s: expected less than --lifetime", c.within))
	case c.newCA && c.forget:
		return usageError("--new-ca and --forget-ca at once would cut off every process until it has the new ca.pem")
	}
	for _, name := range in.operands[1:] {
		if err := certify.CheckName(name); err != nil {
			return usageError(err.Error())
		}
	}
	for host := range strings.SplitSeq(c.hosts, ",") {
		if c.hosts != "" && (strings.ContainsAny(host, ":/ ") && net.ParseIP(host) == nil || host == "") {
			return usageError(fmt.Sprintf("--hosts %q: expected names and IP addresses, without ports, with commas between", c.hosts))
		}
	}
	return nil
}

// wanted returns the certificates to look after.
func (c *certs) wanted(in *invocation) (all []certify.Wanted) {
	services := in.names()
	files := in.operands[1:]
	if len(files) == 0 {
		files = append(slices.Clone(services), wholeSuite, operatorName)
		files = slices.Compact(files)
	}
	for _, file := range files {
		w := certify.Wanted{
			File: file, Services: []string{file}, Life: c.life, Within: c.within, Renew: c.renew, NewKey: c.newKeys,
		}
		if file == wholeSuite {
			w.Services = append([]string{wholeSuite, operatorName}, services...)
		}
		if c.hosts != "" {
			w.Hosts = strings.Split(c.hosts, ",")
		}
		all = append(all, w)
	}
	return all
}
