package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"

	"latchkey.dev/services/internal/store/backup"
)

func backupCommand() command {
	return command{
		name: "backup", operands: "FILE", summary: "write a backup of all services, also while they run",
		about: `Writes everything that the services of this program keep into FILE, which must not exist yet: a path, the URL of an object in a bucket (s3://BUCKET/NAME, gs://BUCKET/NAME or azblob://CONTAINER/NAME), or - for standard output. The services may run meanwhile, and notice nothing: a store in files that a process has open is read through that process, which is found at --listen or --peers and knows the command by the service key.

The backup is of one instant, the same in all services. Photos and videos are taken along only with --with-blobs. The service key is not in it.

Whoever can read the file can read everything, so keep it as safe as the store, or encrypt it: with --recipient for who has a key that keygen made, or with --passphrase-file.

With --follow, FILE is a folder, or the URL of one in a bucket: it gets a backup, and then every few seconds a segment with what was committed meanwhile, until the command is stopped. Once a day (--renew) it gets another backup, and what nothing of the last --keep needs is removed. restore takes the folder.`,
		shared: append([]string{"blobs"}, toStores...),
		declare: func(f *flag.FlagSet) action {
			var o followOptions
			follow := f.Bool("follow", false, "go on with segments of what is committed from then on")
			f.DurationVar(&o.every, "every", 2*time.Second, "with --follow: `duration` between two segments")
			f.DurationVar(&o.renew, "renew", 24*time.Hour, "with --follow: `duration` between two backups, so that there are few segments to restore; 0s takes only the first")
			f.DurationVar(&o.keep, "keep", 0, "with --follow: `duration` for which one can go back; what is older is removed when there is a new backup. 0s removes nothing")
			withBlobs := f.Bool("with-blobs", false, "take photos and videos along, from --blobs")
			recipients := encrypting(f)
			return func(ctx context.Context, in *invocation) (_ report, err error) {
				if len(in.operands) != 1 {
					return nil, usageError("expected one FILE to write")
				}
				if in.recipients, err = recipients(); err != nil {
					return nil, err
				}
				switch {
				case !*follow && o.keep != 0:
					return nil, usageError("--keep goes with --follow")
				case !*follow:
				case in.operands[0] == "-":
					return nil, usageError("--follow takes a folder, or the URL of one in a bucket")
				case *withBlobs:
					return nil, usageError("--follow takes no blobs along")
				case in.byPassphrase():
					return nil, usageError("--follow takes --recipient: a passphrase costs a second of a processor in each segment")
				default:
					if err := o.check(); err != nil {
						return nil, err
					}
					return in.follow(ctx, in.operands[0], o)
				}
				return in.backup(ctx, in.operands[0], *withBlobs)
			}
		},
	}
}

// taken is the outcome of backup.
type taken struct {
	File string    `json:"file"`
	Cut  time.Time `json:"cut"`
	backup.Counts
	Encrypted bool    `json:"encrypted"`
	Seconds   float64 `json:"seconds"`
}

func (t *taken) String() string {
	return fmt.Sprintf("backup of %s in %s: %d rows, %d journal entries on top, %d blobs, %s%s, in %.1f s",
		t.Cut.UTC().Format(time.RFC3339Nano), t.File, t.Pairs, t.Entries, t.Blobs, size(t.Bytes), t.openness(), t.Seconds)
}

func (t *taken) openness() string {
	if t.Encrypted {
		return " before it was encrypted"
	}
	return ""
}

// size tells a number of bytes to a person.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n)/unit, 0
	for ; value >= unit && i < 4; i++ {
		value /= unit
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[i])
}

func (in *invocation) backup(ctx context.Context, target string, withBlobs bool) (report, error) {
	start := time.Now()
	s, err := in.openSources(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	t := &backup.Taking{Stores: s.sources(), Now: time.Now, Progress: in.counting("read")}
	if withBlobs {
		if t.Blobs, err = in.openBlobs(ctx); err != nil {
			return nil, err
		}
		defer closeBlobs(t.Blobs)
	}
	var counts backup.Counts
	err = in.writeTo(ctx, target, func(w io.Writer) error {
		counts, err = t.Take(ctx, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &taken{target, t.Cut(), counts, len(in.recipients) > 0, time.Since(start).Seconds()}
	if target == "-" {
		in.note("%s", r)
		return nil, nil
	}
	return r, nil
}

// counting tells now and then how far a command is.
func (in *invocation) counting(did string) func(backup.Counts) {
	return func(c backup.Counts) {
		in.progress("%s %d rows, %d journal entries, %d blobs, %s", did, c.Pairs, c.Entries, c.Blobs, size(c.Bytes))
	}
}

// openBlobs opens the stores of blobs of all services.
func (in *invocation) openBlobs(ctx context.Context) (map[string]*blob.Bucket, error) {
	all := map[string]*blob.Bucket{}
	p := &Process{config: in.config}
	for _, service := range in.names() {
		bucket, err := p.openBlobs(ctx, service)
		if err != nil {
			closeBlobs(all)
			return nil, err
		}
		all[service] = bucket
	}
	return all, nil
}

func closeBlobs(all map[string]*blob.Bucket) {
	for _, bucket := range all {
		bucket.Close() // nothing was written to it
	}
}

// writeTo gives f what writes a new file, object or standard output, and lets it appear
// only if f has succeeded.
func (in *invocation) writeTo(ctx context.Context, target string, f func(io.Writer) error) error {
	f = in.encrypted(f)
	if target == "-" {
		return f(in.out)
	}
	if name, ok := local(target); ok {
		return writeFile(name, f)
	}
	bucket, key, err := object(ctx, target)
	if err != nil {
		return err
	}
	defer bucket.Close()
	return writeObject(ctx, bucket, key, f)
}

// local returns the path of a file, which can be given as a URL too, or false if the
// target is in a bucket.
func local(target string) (path string, ok bool) {
	path, isFile := strings.CutPrefix(target, "file://")
	return path, isFile || !strings.Contains(target, "://")
}

var errThere = errors.New("it is there already, and is never overwritten")

// partInfix is in the name of a file that is not yet whole, after the name that it is to get.
const partInfix = ".part-"

// writeFile writes under another name, syncs, and gives the file its name at last.
func writeFile(name string, f func(io.Writer) error) error {
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("%s: %w", name, errThere)
	}
	part, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+partInfix+"*")
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", name, failed.Err) // and not of a name that nobody gave
	}
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	err = f(part)
	if err == nil {
		err = part.Sync()
	}
	if err := errors.Join(err, part.Close()); err != nil {
		return err
	}
	err = os.Link(part.Name(), name)
	if errors.Is(err, fs.ErrExist) {
		err = errThere
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return syncFolder(filepath.Dir(name))
}

func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// object opens the bucket of an object's URL and returns the object's key in it.
func object(ctx context.Context, text string) (*blob.Bucket, string, error) {
	bucket, key, err := inBucket(ctx, text)
	if err == nil && key == "" {
		err = errors.Join(errors.New("the URL names no object in the bucket"), bucket.Close())
	}
	return bucket, key, err
}

// checksums is what the driver of S3 knows of checksums of objects. It prints a line for each object that
// has none, as those that were sent in parts, and of all that we read the checksums are our own.
const checksums = "response_checksum_validation"

// inBucket opens the bucket of a URL and returns what follows its name, which may be nothing.
func inBucket(ctx context.Context, text string) (*blob.Bucket, string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, "", err
	}
	key := strings.TrimPrefix(u.Path, "/")
	u.Path = ""
	if q := u.Query(); u.Scheme == "s3" && !q.Has(checksums) {
		q.Set(checksums, "when_required")
		u.RawQuery = q.Encode()
	}
	bucket, err := openBucket(ctx, u.String())
	return bucket, key, err
}

// objectPart is how much of an object is sent at once. A bucket of S3 takes 10,000 parts of one,
// and each is in memory until it is there.
const objectPart = 32 << 20

func writeObject(ctx context.Context, bucket *blob.Bucket, key string, f func(io.Writer) error) error {
	if there, err := bucket.Exists(ctx, key); err != nil || there {
		return fmt.Errorf("%s: %w", key, errors.Join(err, errThere))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := bucket.NewWriter(ctx, key, &blob.WriterOptions{
		IfNotExist: true, ContentType: "application/octet-stream", BufferSize: objectPart, MaxConcurrency: 2,
	})
	if err != nil {
		return err
	}
	if err := f(w); err != nil {
		cancel() // so that Close abandons it
		w.Close()
		return err
	}
	return w.Close()
}
