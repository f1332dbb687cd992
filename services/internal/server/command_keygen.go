package server

import (
	"context"
	"flag"
	"fmt"
	"io"

	"filippo.io/age"
)

func keygenCommand() command {
	return command{
		name: "keygen", operands: "FILE", summary: "make a key by which backups and exports are encrypted",
		about: `Writes a new key into FILE, which must not exist yet and which only the caller may read, and prints what belongs to it in the open: the recipient. backup and export encrypt for it with --recipient; verify, restore and import open with --identity-file FILE what they have encrypted. So the machine that makes backups needs no key that opens them.

Keep FILE away from the backups, and a copy of it where it cannot be lost: without it nobody opens them. The form is that of age (https://age-encryption.org), whose tools make such keys and open such files, too.`,
		declare: func(*flag.FlagSet) action {
			return func(_ context.Context, in *invocation) (report, error) {
				if len(in.operands) != 1 {
					return nil, usageError("expected one FILE to write")
				}
				return keygen(in.operands[0])
			}
		},
	}
}

// generated is the outcome of keygen.
type generated struct {
	File      string `json:"file"`
	Recipient string `json:"recipient"`
}

// String is the recipient alone, so that a script can take it as it is.
func (g *generated) String() string { return g.Recipient }

func keygen(name string) (report, error) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	g := &generated{File: name, Recipient: key.Recipient().String()}
	err = writeFile(name, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "# recipient: %s\n%s\n", g.Recipient, key)
		return err
	})
	if err != nil {
		return nil, err // and no recipient, whose key nobody would have
	}
	return g, nil
}
