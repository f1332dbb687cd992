package server

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"gocloud.dev/blob"

	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
)

func verifyCommand() command {
	return command{
		name: "verify", operands: "[FILE]", summary: "look for damage in the stores, or in a backup",
		about: `Without FILE it checks everything in the stores: that their files are made as they should be, that the journals have no gap and their chain of hashes holds, that each record is what its journal says, that the indexes have what they should and nothing else, and that the records are what their services promise of them: an invoice says that as much is paid as its payments come to, what one record names is there, no service agent has two appointments at a time, and whatever else a service says that is always true. The services may run meanwhile.

With FILE, a path, a URL or - for standard input, it checks a backup or an export: the checksums first, and then all of the above, for which it restores the file into a temporary folder. With --quick it checks the checksums alone. What is encrypted is opened with --identity-file or --passphrase-file.

It prints each problem on standard error, and exits with 1 if there is one.`,
		shared: toStores,
		declare: func(f *flag.FlagSet) action {
			quick := f.Bool("quick", false, "check only the checksums of a backup")
			identities := decrypting(f)
			return func(ctx context.Context, in *invocation) (_ report, err error) {
				if in.identities, err = identities(); err != nil {
					return nil, err
				}
				switch {
				case len(in.operands) > 1:
					return nil, usageError("expected one FILE at most")
				case len(in.operands) == 0:
					return in.verifyStores(ctx)
				case *quick:
					return in.verifyQuickly(ctx, in.operands[0])
				}
				return in.verifyBackup(ctx, in.operands[0])
			}
		},
	}
}

// verified is the outcome of verify.
type verified struct{ store.Verified }

func (v *verified) String() string {
	text := fmt.Sprintf("%d problems in %d tenants, %d journal entries, %d rows", v.Problems, v.Tenants, v.Entries, v.Rows)
	if v.Pages > 0 {
		text += fmt.Sprintf(", %d pages of files", v.Pages)
	}
	return text
}

func sum(a, b store.Verified) store.Verified {
	return store.Verified{
		Tenants: a.Tenants + b.Tenants, Entries: a.Entries + b.Entries, Rows: a.Rows + b.Rows, Pages: a.Pages + b.Pages, Problems: a.Problems + b.Problems,
		Broken: a.Broken + b.Broken,
	}
}

var errDamaged = errors.New("there is damage")

func (v *verified) err() error {
	if v.Problems > 0 {
		return errDamaged
	}
	return nil
}

func (in *invocation) verifyStores(ctx context.Context) (report, error) {
	s, err := in.openStores(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	all := &verified{}
	for _, o := range s.all {
		var one store.Verified
		if e := o.engine; e != nil {
			o.engine = nil // the DB closes it
			one, err = in.verifyEngine(ctx, o.service, e)
		} else {
			one, err = in.verifyRemote(ctx, o)
		}
		if err != nil {
			return nil, fmt.Errorf("verify the store of %s: %w", o.service, err)
		}
		all.Verified = sum(all.Verified, one)
	}
	return all, all.err()
}

// verifyEngine verifies the store of a service, and closes it.
func (in *invocation) verifyEngine(ctx context.Context, service string, e store.Engine) (v store.Verified, err error) {
	pages, err := store.CheckPages(ctx, e, func(problem string) { in.note("%s: %s", service, problem) })
	if err != nil || pages.Problems > 0 {
		in.noteSpoiled(service, pages)
		return pages, errors.Join(err, e.Close())
	}
	db, err := in.openDB(ctx, service, e)
	if err != nil {
		return v, err
	}
	v, err = db.Verify(ctx, func(problem string) { in.note("%s: %s", service, problem) }, func(v store.Verified) error {
		in.progress("%s: verified %d tenants, %d journal entries, %d rows", service, v.Tenants, v.Entries, v.Rows)
		return nil
	})
	return sum(v, pages), errors.Join(err, db.Close())
}

// noteSpoiled says what it means that a file is not made as it should be.
func (in *invocation) noteSpoiled(service string, pages store.Verified) {
	if pages.Problems > 0 {
		in.note("%s: the file of the store is damaged, so nothing else in it was looked at: restore a backup", service)
	}
}

// verifyRemote has the process that has a store open verify it.
func (in *invocation) verifyRemote(ctx context.Context, o *opened) (v store.Verified, err error) {
	stream, err := o.remote.VerifyStore(ctx, &operatorpb.VerifyStoreRequest{Service: o.service})
	if err != nil {
		return v, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return v, err
		}
		v.Tenants, v.Entries, v.Rows, v.Pages = m.GetTenants(), m.GetEntries(), m.GetRows(), m.GetPages()
		switch {
		case m.GetDone() && v.Pages == 0:
			in.note("%s: the pages of its file were not looked at, which takes too long while it is in use; verify does when the suite is stopped", o.service)
			return v, nil
		case m.GetDone():
			if v.Tenants == 0 {
				in.noteSpoiled(o.service, v)
			}
			return v, nil
		case m.GetProblem() != "":
			v.Problems++
			in.note("%s: %s", o.service, m.GetProblem())
		default:
			in.progress("%s: verified %d tenants, %d journal entries, %d rows", o.service, v.Tenants, v.Entries, v.Rows)
		}
	}
}

func (in *invocation) verifyQuickly(ctx context.Context, name string) (report, error) {
	files, done, err := in.readAll(ctx, name, time.Time{})
	if err != nil {
		return nil, err
	}
	defer done()
	for _, f := range files {
		r, err := backup.NewReader(f)
		for err == nil {
			if _, err = r.Next(); err == nil {
				err = ctx.Err()
			}
		}
		if !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	return told("all checksums are right"), nil
}

// told is a report that is only a text.
type told string

func (t told) String() string { return string(t) }

func (in *invocation) verifyBackup(ctx context.Context, name string) (_ report, err error) {
	files, done, err := in.readAll(ctx, name, time.Time{})
	if err != nil {
		return nil, err
	}
	defer done()
	folder, err := os.MkdirTemp("", "latchkey-verify-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if len(files) == 1 {
		from := bufio.NewReaderSize(files[0], 1<<16)
		if h := backup.Peek(from); h.GetExport() != nil {
			v, err := in.verifyExport(ctx, from, h.GetTenant(), folder)
			if err != nil {
				return nil, err
			}
			all := &verified{v}
			return all, all.err()
		}
		files[0] = from
	}
	blobs := func(service string) (*blob.Bucket, error) { return openFolder(filepath.Join(folder, "blobs", service)) }
	_, v, err := in.restoreInto(ctx, "bolt:"+folder, blobs, &restoreOptions{}, files...)
	if err != nil && v.Problems == 0 {
		return nil, err
	}
	all := &verified{v}
	return all, all.err()
}
