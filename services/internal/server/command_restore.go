package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gocloud.dev/blob"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
)

func restoreCommand() command {
	return command{
		name: "restore", operands: "FILE", summary: "put a backup where there is no data yet",
		about: `Puts a backup, a path, a URL or - for standard input, or the folder of a continuous one, into --store, which must be a folder that does not exist yet or is empty, or a database without data of these services. A folder appears when all is restored, verified and on disk, and not before. In a database, data that is not restored whole is refused by the services, and replaced when restore is called again. What backup has encrypted is opened with --identity-file or --passphrase-file.

With --at or --revision it goes back behind the end of the backup, as far as the journals in it do. Tenants that are not named by --revision go to --at, or to the end. Positions of services in each other's events follow.`,
		shared: []string{"store", "blobs"},
		declare: func(f *flag.FlagSet) action {
			var o restoreOptions
			f.Func("at", "`instant` to restore, such as 2026-03-01T08:00:00Z; by default the end of the backup", o.setAt)
			f.Func("revision", "`service/tenant=N`: revision of a tenant to restore; may be given several times", o.setRevision)
			f.BoolVar(&o.withoutErased, "without-erased", false, "leave out records that were there at that point but have been erased for good since, instead of failing")
			identities := decrypting(f)
			return func(ctx context.Context, in *invocation) (_ report, err error) {
				if len(in.operands) != 1 {
					return nil, usageError("expected one FILE to read")
				}
				if in.identities, err = identities(); err != nil {
					return nil, err
				}
				return in.restore(ctx, in.operands[0], &o)
			}
		},
	}
}

// restoreOptions are the flags of restore.
type restoreOptions struct {
	at            time.Time
	revisions     map[string]map[string]int64
	withoutErased bool
}

func (o *restoreOptions) setAt(text string) error {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return fmt.Errorf("expected an instant such as 2026-03-01T08:00:00Z")
	}
	o.at = at
	return nil
}

func (o *restoreOptions) setRevision(text string) error {
	name, number, ok := strings.Cut(text, "=")
	service, tenant, ok2 := strings.Cut(name, "/")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || !ok2 || service == "" || tenant == "" || err != nil || n < 0 {
		return errors.New("expected SERVICE/TENANT=N")
	}
	if o.revisions == nil {
		o.revisions = map[string]map[string]int64{}
	}
	if o.revisions[service] == nil {
		o.revisions[service] = map[string]int64{}
	}
	o.revisions[service][tenant] = n
	return nil
}

// restored is the outcome of restore, and of copy.
type restored struct {
	Store string `json:"store"`
	backup.Restored
	Verified store.Verified `json:"verified"`
	Seconds  float64        `json:"seconds"`
}

func (r *restored) String() string {
	text := fmt.Sprintf("restored to %s as of %s: %d rows, %d journal entries on top, %d blobs, in %.1f s; verified %d tenants, %d journal entries, %d rows",
		r.Store, r.Cut.UTC().Format(time.RFC3339Nano), r.Pairs, r.Entries, r.Blobs, r.Seconds, r.Verified.Tenants, r.Verified.Entries, r.Verified.Rows)
	if r.Undone > 0 {
		text += fmt.Sprintf("\n%d tenants were taken back behind the end of the backup", r.Undone)
	}
	if r.Clamped > 0 {
		text += fmt.Sprintf("\n%d positions in the events of other services were set back to where these end", r.Clamped)
	}
	if r.Erased > 0 {
		text += fmt.Sprintf("\n%d records were left out: they have been erased for good", r.Erased)
	}
	if r.Verified.Broken > 0 {
		text += fmt.Sprintf("\n%d times a record is not what its service promises: the lines above name them", r.Verified.Broken)
	}
	return text
}

func (in *invocation) restore(ctx context.Context, from string, o *restoreOptions) (report, error) {
	files, done, err := in.readAll(ctx, from, o.at)
	if err != nil {
		return nil, err
	}
	defer done()
	start := time.Now()
	r := &restored{Store: in.config.shownStore()}
	err = in.fill(ctx, func(url string, blobs func(string) (*blob.Bucket, error)) error {
		r.Restored, r.Verified, err = in.restoreInto(ctx, url, blobs, o, files...)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// shownStore is --store as it may be shown.
//
// SECURITY: the URL of a database may have a password in it.
func (c *Config) shownStore() string {
	if scheme, ok := c.database(); ok {
		return scheme + "://..."
	}
	return c.Store
}

// readFrom opens a file, an object or standard input, and what is encrypted in it.
func (in *invocation) readFrom(ctx context.Context, name string) (io.ReadCloser, error) {
	file, err := in.source(ctx, name)
	if err != nil {
		return nil, err
	}
	return in.plain(name, file)
}

// plain returns what a file says, which may be encrypted, and closes it.
func (in *invocation) plain(name string, file io.ReadCloser) (io.ReadCloser, error) {
	plain, err := in.decrypted(name, file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return reading{plain, file}, nil
}

// reading reads what is in a file, and closes the file.
type reading struct {
	io.Reader
	io.Closer
}

// source opens a file, an object or standard input as it is.
func (in *invocation) source(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	if path, ok := local(name); ok {
		return os.Open(path)
	}
	bucket, key, err := object(ctx, name)
	if err != nil {
		return nil, err
	}
	r, err := bucket.NewReader(ctx, key, nil)
	if err != nil {
		return nil, errors.Join(err, bucket.Close())
	}
	return closing{r, bucket}, nil
}

// closing closes a bucket after its object.
type closing struct {
	io.ReadCloser
	bucket *blob.Bucket
}

func (c closing) Close() error { return errors.Join(c.ReadCloser.Close(), c.bucket.Close()) }

// fill has f put data where there is none. A folder is filled under another name, and gets
// its own when f has succeeded and all is on disk.
func (in *invocation) fill(ctx context.Context, f func(url string, blobs func(string) (*blob.Bucket, error)) error) error {
	given := &Process{config: in.config}
	blobs := func(service string) (*blob.Bucket, error) { return given.openBlobs(ctx, service) }
	if _, ok := in.config.database(); ok {
		if in.config.Blobs == "" {
			blobs = nil
		}
		return f(in.config.Store, blobs)
	}
	folder, err := in.config.folder()
	if err != nil {
		return err
	}
	if err := isFree(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
		return err
	}
	part, err := os.MkdirTemp(filepath.Dir(folder), filepath.Base(folder)+".part-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part)
	if in.config.Blobs == "" {
		blobs = func(service string) (*blob.Bucket, error) { return openFolder(filepath.Join(part, "blobs", service)) }
	}
	if err := f("bolt:"+part, blobs); err != nil {
		return err
	}
	if err := syncAll(part); err != nil {
		return err
	}
	if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) { // only if it is empty
		return err
	}
	if err := os.Rename(part, folder); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(folder))
}

// isFree returns an error if there is something in a folder.
func isFree(folder string) error {
	entries, err := os.ReadDir(folder)
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: %w", folder, errThere)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syncAll syncs every file and folder below one.
func syncAll(folder string) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncFolder(path) // a file is synced as a folder is
	})
}

// restoreInto restores a backup into empty stores at a URL and verifies them.
func (in *invocation) restoreInto(ctx context.Context, url string, blobs func(string) (*blob.Bucket, error), o *restoreOptions, files ...io.Reader) (done backup.Restored, v store.Verified, err error) {
	var services []string
	engines := map[string]store.Engine{}
	defer func() {
		for _, e := range engines {
			err = errors.Join(err, e.Close())
		}
	}()
	r := &backup.Restoring{
		Open: func(service string) (store.Engine, error) {
			if in.schema(service) == nil {
				return nil, errors.New("this program has no such service")
			}
			e, err := in.openEngine(ctx, url, service, store.MakeMissing)
			if err == nil {
				services, engines[service] = append(services, service), e
			}
			return e, err
		},
		Blobs: blobs, At: o.at, Revisions: o.revisions, WithoutErased: o.withoutErased,
		Now: time.Now, Progress: in.counting("restored"),
	}
	if done, err = r.Restore(ctx, files...); err != nil {
		return done, v, err
	}
	for _, service := range services {
		e := engines[service]
		delete(engines, service)
		one, err := in.verifyEngine(ctx, service, e)
		if err != nil {
			return done, v, fmt.Errorf("verify the store of %s: %w", service, err)
		}
		v = sum(v, one)
	}
	// Records that a service would not have made are still those of the backup.
	if damage := v.Problems - v.Broken; damage > 0 {
		return done, v, fmt.Errorf("what was restored is damaged: %d problems", damage)
	}
	return done, v, nil
}
