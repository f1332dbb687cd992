package certify

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// domain is reserved for private use, so that no public authority signs names in it.
const domain = ".latchkey.internal"

// Name returns the name by which a certificate says that it is a service's:
// "identity.latchkey.internal".
func Name(service string) string { return service + domain }

const (
	caFile    = "ca.pem"
	caKeyFile = "ca-key.pem"
	// backdated is how much clocks may be apart when a new certificate is first shown.
	backdated = time.Hour
	// caLife is how long an authority lasts. It outlives whoever set it up, so that it is
	// replaced when somebody chooses to, and not on a night ten months from now.
	caLife = 20 * 365 * 24 * time.Hour
)

// Folder is where certificates are kept.
type Folder struct {
	Path   string
	Now    func() time.Time
	Random io.Reader

	signer *ecdsa.PrivateKey
	cas    []*x509.Certificate // the first is the signer's
}

// Outcome is what was done to a file.
type Outcome string

// What can happen to a certificate, or to the authority.
const (
	Kept    Outcome = "kept"
	Made    Outcome = "made"
	Renewed Outcome = "renewed" // with the key it had
	Rekeyed Outcome = "rekeyed" // with a new key
)

// Authority opens the folder's authority, which is made if missing. A fresh one takes the
// place of the one before as signer; what that had signed is still accepted.
func (f *Folder) Authority(fresh bool) (Outcome, error) {
	if err := os.MkdirAll(f.Path, 0o700); err != nil {
		return "", err
	}
	err := f.open()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if left, _ := filepath.Glob(filepath.Join(f.Path, "*.pem")); len(left) > 0 { // the pattern is well-formed
			return "", fmt.Errorf("there is %s, and %w: nothing is made beside what is there", filepath.Base(left[0]), err)
		}
		return Made, f.makeCA(false)
	case err != nil:
		return "", err
	case fresh:
		return Rekeyed, f.makeCA(true)
	case !f.Now().Before(f.cas[0].NotAfter):
		return "", fmt.Errorf("the authority has expired, on %s: make a fresh one with --new-ca", day(f.cas[0].NotAfter))
	}
	return Kept, nil
}

// open reads the authority. The newest certificate is the one that fits the key: the
// writing of a newer key may have been interrupted.
func (f *Folder) open() (err error) {
	if f.signer, err = readKey(filepath.Join(f.Path, caKeyFile)); err != nil {
		return err
	}
	if f.cas, err = ReadCertificates(filepath.Join(f.Path, caFile)); err != nil {
		return err
	}
	own := slices.IndexFunc(f.cas, func(c *x509.Certificate) bool { return fits(c, f.signer) })
	if own < 0 {
		return fmt.Errorf("%s is not the key of a certificate in %s", caKeyFile, caFile)
	}
	f.cas[0], f.cas[own] = f.cas[own], f.cas[0]
	return nil
}

// makeCA makes a new key and certificate of the authority. Where others are replaced its
// certificate comes first, so that it is accepted before anything is signed by it.
func (f *Folder) makeCA(replaces bool) error {
	key, err := f.newKey()
	if err != nil {
		return err
	}
	now := f.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Latchkey suite, " + day(now)},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(f.Random, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	f.signer = key
	f.cas = append([]*x509.Certificate{ca}, slices.DeleteFunc(f.cas, func(c *x509.Certificate) bool { return !now.Before(c.NotAfter) })...)
	keyPath := filepath.Join(f.Path, caKeyFile)
	if replaces {
		if err := f.writeCAs(); err != nil {
			return err
		}
		return replaceKey(keyPath, key)
	}
	if err := createKey(keyPath, key); err != nil {
		return err
	}
	return f.writeCAs()
}

func (f *Folder) writeCAs() error {
	return writeFile(filepath.Join(f.Path, caFile), encodeCertificates(f.cas), 0o644)
}

// Forget stops to accept what authorities before the newest have signed. It returns how
// many were forgotten, and fails while a certificate in the folder is still signed by one.
func (f *Folder) Forget() (int, error) {
	files, err := filepath.Glob(filepath.Join(f.Path, "*.pem"))
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		certs, err := ReadCertificates(file)
		if err != nil || filepath.Base(file) == caFile {
			continue // a key
		}
		if certs[0].CheckSignatureFrom(f.cas[0]) != nil {
			return 0, fmt.Errorf("%s is signed by an authority before the newest: renew it first", filepath.Base(file))
		}
	}
	forgotten := len(f.cas) - 1
	f.cas = f.cas[:1]
	if forgotten == 0 {
		return 0, nil
	}
	return forgotten, f.writeCAs()
}

// Wanted is what a certificate is to be like.
type Wanted struct {
	File     string   // "identity", for identity.pem
	Services []string // whose it is
	Hosts    []string // names and addresses by which clients reach it, beside
	Life     time.Duration
	Within   time.Duration // it is renewed when it ends within this
	Renew    bool          // in any case
	NewKey   bool
}

var fileName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// CheckName says what is wrong with the name of a service.
func CheckName(name string) error {
	if !fileName.MatchString(name) || len(name) > 63-len(domain) || name == "ca" || strings.HasSuffix(name, "-key") {
		return fmt.Errorf("%q cannot be the name of a service: expected small letters, digits and dashes, not ca, and no -key at the end", name)
	}
	return nil
}

// Certificate makes a certificate, or renews it if it is due, was made for other names,
// or is asked for. It returns when the certificate ends.
func (f *Folder) Certificate(w Wanted) (Outcome, time.Time, error) {
	file, keyFile := filepath.Join(f.Path, w.File+".pem"), filepath.Join(f.Path, w.File+"-key.pem")
	done := Renewed
	key, err := readKey(keyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(file); err == nil {
			return "", time.Time{}, fmt.Errorf("there is %s.pem, and no %s-key.pem: move it away first", w.File, w.File)
		}
		done = Made
	case err != nil:
		return "", time.Time{}, err
	}
	if done == Renewed && !w.Renew && !w.NewKey {
		now, err := ReadCertificates(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", time.Time{}, err
		}
		if err == nil && f.serves(now[0], key, w) {
			return Kept, now[0].NotAfter, nil
		}
	}
	if w.NewKey && done == Renewed {
		done = Rekeyed
	}
	if done != Renewed {
		if key, err = f.newKey(); err != nil {
			return "", time.Time{}, err
		}
	}
	cert, err := f.sign(w, key)
	if err != nil {
		return "", time.Time{}, err
	}
	switch done {
	case Made:
		err = createKey(keyFile, key)
	case Rekeyed:
		err = replaceKey(keyFile, key)
	}
	if err == nil {
		err = writeFile(file, encodeCertificates([]*x509.Certificate{cert}), 0o644)
	}
	return done, cert.NotAfter, err
}

// serves tells whether a certificate can stay as it is.
func (f *Folder) serves(c *x509.Certificate, key *ecdsa.PrivateKey, w Wanted) bool {
	names, addresses := w.names()
	return fits(c, key) && f.Now().Add(w.Within).Before(c.NotAfter) &&
		slices.ContainsFunc(f.cas, func(ca *x509.Certificate) bool { return c.CheckSignatureFrom(ca) == nil }) &&
		slices.Equal(c.DNSNames, names) &&
		slices.EqualFunc(c.IPAddresses, addresses, func(a, b net.IP) bool { return a.Equal(b) })
}

func (w *Wanted) names() (names []string, addresses []net.IP) {
	for _, s := range w.Services {
		names = append(names, Name(s))
	}
	for _, host := range w.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			addresses = append(addresses, ip)
		} else {
			names = append(names, host)
		}
	}
	return names, addresses
}

// sign makes a certificate, which does not outlive the authority.
func (f *Folder) sign(w Wanted, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	now, ca := f.Now(), f.cas[0]
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: Name(w.Services[0])},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(w.Life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	template.DNSNames, template.IPAddresses = w.names()
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	der, err := x509.CreateCertificate(f.Random, template, ca, key.Public(), f.signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
