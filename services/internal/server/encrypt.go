package server

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
)

// sealed is how a file begins that age has encrypted (https://age-encryption.org/v1).
const sealed = "age-encryption.org/v1\n"

// encrypting declares the flags by which a command encrypts what it writes, and returns what
// reads them: for whom it is encrypted, nobody if it is not.
func encrypting(f *flag.FlagSet) func() ([]age.Recipient, error) {
	var keys []string
	f.Func("recipient", "encrypt for who has a key: `age1...`, as keygen prints it; may be given several times, or several with commas between", func(text string) error {
		keys = append(keys, strings.Split(text, ",")...)
		return nil
	})
	passphrase := f.String("passphrase-file", "", "encrypt with the passphrase that is in a `file`")
	return func() ([]age.Recipient, error) {
		if *passphrase != "" && len(keys) > 0 {
			return nil, usageError("expected --recipient or --passphrase-file, and not both")
		}
		var all []age.Recipient
		for _, key := range keys {
			r, err := age.ParseRecipients(strings.NewReader(strings.TrimSpace(key)))
			if err != nil || len(r) != 1 {
				return nil, usageError(fmt.Sprintf("--recipient %q: expected a key that begins with age1, as keygen prints it", key))
			}
			all = append(all, r...)
		}
		if *passphrase == "" {
			return all, nil
		}
		text, err := readPassphrase(*passphrase)
		if err != nil {
			return nil, err
		}
		r, err := age.NewScryptRecipient(text)
		return []age.Recipient{r}, err
	}
}

// decrypting declares the flags by which a command reads what is encrypted, and returns what
// reads them.
func decrypting(f *flag.FlagSet) func() ([]age.Identity, error) {
	file := f.String("identity-file", "", "`file` with the keys that open what is encrypted, as keygen writes it")
	passphrase := f.String("passphrase-file", "", "`file` with the passphrase that opens what is encrypted")
	return func() (all []age.Identity, err error) {
		if *file != "" {
			text, err := os.ReadFile(*file)
			if err != nil {
				return nil, err
			}
			if all, err = age.ParseIdentities(bytes.NewReader(text)); err != nil {
				return nil, fmt.Errorf("%s: it has no keys as keygen writes them: %w", *file, err)
			}
		}
		if *passphrase == "" {
			return all, nil
		}
		text, err := readPassphrase(*passphrase)
		if err != nil {
			return nil, err
		}
		i, err := age.NewScryptIdentity(text)
		return append(all, i), err
	}
}

// byPassphrase reports whether what is written is encrypted with a passphrase.
func (in *invocation) byPassphrase() bool {
	for _, r := range in.recipients {
		if _, ok := r.(*age.ScryptRecipient); ok {
			return true
		}
	}
	return false
}

// readPassphrase reads the file of --passphrase-file. The end of its line is not part of it.
func readPassphrase(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	passphrase := strings.TrimRight(string(text), "\r\n")
	if passphrase == "" || strings.ContainsAny(passphrase, "\r\n") {
		return "", fmt.Errorf("%s: expected one line with a passphrase", name)
	}
	return passphrase, nil
}

// encrypted returns f, whose output is encrypted if that was asked for.
func (in *invocation) encrypted(f func(io.Writer) error) func(io.Writer) error {
	if len(in.recipients) == 0 {
		return f
	}
	return func(to io.Writer) error {
		w, err := age.Encrypt(to, in.recipients...)
		if err != nil {
			return fmt.Errorf("encrypt: %w", err)
		}
		if err := f(w); err != nil {
			return err // without its end it opens nowhere
		}
		return w.Close()
	}
}

// decrypted returns what a file says, which may be encrypted.
func (in *invocation) decrypted(name string, file io.Reader) (io.Reader, error) {
	from := bufio.NewReaderSize(file, 1<<16)
	start, err := from.Peek(len(sealed))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if asked, err := in.opens(name, start); !asked {
		return from, err
	}
	noted := &noting{from: from}
	plain, err := age.Decrypt(noted, in.identities...)
	if err != nil {
		return nil, in.notOpened(name, noted.or(err))
	}
	return &damaging{plain, noted}, nil
}

// decryptedAt is decrypted of a file that is read from anywhere.
func (in *invocation) decryptedAt(name string, file *os.File) (func() io.Reader, error) {
	start := make([]byte, len(sealed))
	n, err := file.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if asked, err := in.opens(name, start[:n]); !asked {
		return func() io.Reader { return io.NewSectionReader(file, 0, 1<<62) }, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	plain, size, err := age.DecryptReaderAt(file, info.Size(), in.identities...)
	if err != nil {
		return nil, in.notOpened(name, err)
	}
	return func() io.Reader { return &damaging{io.NewSectionReader(plain, 0, size), &noting{}} }, nil
}

// opens reports whether a file that begins so is to be opened with the keys that were given.
//
// SECURITY: who names a key expects what was encrypted, so another file that somebody put in
// its place is refused.
func (in *invocation) opens(name string, start []byte) (bool, error) {
	encrypted := string(start) == sealed
	switch {
	case encrypted && len(in.identities) == 0:
		return false, fmt.Errorf("%s is encrypted: --identity-file or --passphrase-file says how to open it", name)
	case !encrypted && len(in.identities) > 0:
		return false, fmt.Errorf("%s is not encrypted, or its beginning is damaged: leave --identity-file and --passphrase-file out if it is as it should be", name)
	}
	return encrypted, nil
}

// notOpened says why a file cannot be opened.
func (in *invocation) notOpened(name string, err error) error {
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return fmt.Errorf("%s is encrypted for another key, or with another passphrase, than was given", name)
	}
	return fmt.Errorf("%s is encrypted, and damaged: %w", name, err)
}

// noting remembers why reading has failed.
type noting struct {
	from io.Reader
	err  error
}

func (n *noting) Read(b []byte) (int, error) {
	read, err := n.from.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return read, err
}

// or returns why reading has failed, or else the error.
func (n *noting) or(err error) error {
	if n.err != nil {
		return n.err
	}
	return err
}

// damaging says of what is decrypted that it is damaged, unless it was only not read.
type damaging struct {
	plain io.Reader
	from  *noting
}

func (d *damaging) Read(b []byte) (int, error) {
	n, err := d.plain.Read(b)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case d.from.err != nil:
		return n, d.from.err
	}
	return n, fmt.Errorf("the file is damaged, or was changed after it was encrypted: %w", err)
}
