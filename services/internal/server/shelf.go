package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"latchkey.dev/services/internal/store/backup"
)

// shelf is where a continuous backup is kept: a folder, or the objects of a bucket whose names
// begin alike.
type shelf struct {
	name   string // as it was called
	folder string
	bucket *blob.Bucket // nil if it is a folder
	prefix string       // of the names in the bucket
}

// openShelf opens the shelf of a path or a URL.
func openShelf(ctx context.Context, name string) (*shelf, error) {
	if folder, ok := local(name); ok {
		return &shelf{name: name, folder: folder}, nil
	}
	bucket, key, err := inBucket(ctx, name)
	if err != nil {
		return nil, err
	}
	return shelfIn(name, bucket, key), nil
}

func shelfIn(name string, bucket *blob.Bucket, key string) *shelf {
	if key != "" {
		key = strings.TrimSuffix(key, "/") + "/"
	}
	return &shelf{name: name, bucket: bucket, prefix: key}
}

// shelfOf returns the shelf that a command was told to read, or nil if it was told a file.
func shelfOf(ctx context.Context, name string) (*shelf, error) {
	if path, ok := local(name); ok {
		if info, err := os.Stat(path); name == "-" || err != nil || !info.IsDir() {
			return nil, nil
		}
		return openShelf(ctx, name)
	}
	bucket, key, err := inBucket(ctx, name)
	if err != nil {
		return nil, err
	}
	isFile := key != "" && !strings.HasSuffix(key, "/")
	if isFile {
		isFile, err = bucket.Exists(ctx, key)
	}
	if err != nil || isFile {
		return nil, errors.Join(err, bucket.Close())
	}
	return shelfIn(name, bucket, key), nil
}

// prepare makes a folder.
func (s *shelf) prepare() error {
	if s.bucket != nil {
		return nil
	}
	return os.MkdirAll(s.folder, 0o700)
}

func (s *shelf) close() error {
	if s.bucket == nil {
		return nil
	}
	return s.bucket.Close()
}

// names returns the names of all files, of whatever kind.
func (s *shelf) names(ctx context.Context) (names []string, err error) {
	if s.bucket == nil {
		entries, err := os.ReadDir(s.folder)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names, err
	}
	for files := s.bucket.List(&blob.ListOptions{Prefix: s.prefix, Delimiter: "/"}); ; {
		file, err := files.Next(ctx)
		if err == io.EOF {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		names = append(names, strings.TrimPrefix(file.Key, s.prefix))
	}
}

// write writes a new file, which appears only if f has succeeded.
func (s *shelf) write(ctx context.Context, name string, f func(io.Writer) error) error {
	if s.bucket == nil {
		return writeFile(filepath.Join(s.folder, name), f)
	}
	return writeObject(ctx, s.bucket, s.prefix+name, f)
}

func (s *shelf) open(ctx context.Context, name string) (io.ReadCloser, error) {
	if s.bucket == nil {
		return os.Open(filepath.Join(s.folder, name))
	}
	return s.bucket.NewReader(ctx, s.prefix+name, nil)
}

func (s *shelf) remove(ctx context.Context, name string) error {
	err := s.delete(ctx, name)
	if isMissing(err) { // somebody else was faster
		return nil
	}
	return err
}

func (s *shelf) delete(ctx context.Context, name string) error {
	if s.bucket == nil {
		return os.Remove(filepath.Join(s.folder, name))
	}
	return s.bucket.Delete(ctx, s.prefix+name)
}

func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || gcerrors.Code(err) == gcerrors.NotFound
}

// removeOld removes what is not needed to go back to an instant, or to later ones.
func (s *shelf) removeOld(ctx context.Context, before time.Time) (removed int, err error) {
	names, err := s.names(ctx)
	if err != nil {
		return 0, err
	}
	for _, name := range outdated(names, before) {
		if err := s.remove(ctx, name); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// readAll returns the files that a command was told to read: one, or those of a continuous
// backup.
func (in *invocation) readAll(ctx context.Context, name string, at time.Time) (files []io.Reader, done func() error, err error) {
	s, err := shelfOf(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if s == nil {
		f, err := in.readFrom(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		return []io.Reader{f}, f.Close, nil
	}
	names, err := in.chosen(ctx, s, at)
	if err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	for _, name := range names {
		files = append(files, &lazy{open: func() (io.ReadCloser, error) { return in.readPart(ctx, s, name) }})
	}
	return files, s.close, nil
}

// readPart opens a file of a shelf, and what is encrypted in it.
func (in *invocation) readPart(ctx context.Context, s *shelf, name string) (io.ReadCloser, error) {
	file, err := s.open(ctx, name)
	if isMissing(err) {
		return nil, fmt.Errorf("%s is missing in %s, and what follows it cannot be restored without: --at goes back to before it", name, s.name)
	}
	if err != nil {
		return nil, err
	}
	return in.plain(name, file)
}

// chosen returns the files of a shelf that are needed to go to an instant, zero being the
// end: those of the last backup that was begun before it, or of the first. If these were cut off
// before the instant, as when the command was killed and called anew, the next backup has it.
func (in *invocation) chosen(ctx context.Context, s *shelf, at time.Time) ([]string, error) {
	names, err := s.names(ctx)
	if err != nil {
		return nil, err
	}
	one, next := pick(seriesOf(names), at)
	if one == nil {
		return nil, fmt.Errorf("there is no backup at %s", s.name)
	}
	if next != nil && !in.reaches(ctx, s, one, at) {
		one = next
	}
	return one.files(), nil
}

// reaches reports whether a series of files is complete to an instant.
func (in *invocation) reaches(ctx context.Context, s *shelf, one *series, at time.Time) bool {
	if one.isCut() {
		return false
	}
	files := one.files()
	last := files[len(files)-1]
	f, err := in.readPart(ctx, s, last)
	if err != nil {
		in.note("taking the backup that follows: %v", err)
		return false
	}
	defer f.Close()
	cut, err := backup.CutOf(f)
	if err != nil {
		in.note("taking the backup that follows: %s: %v", last, err)
	}
	return err == nil && !cut.Before(at)
}

// lazy is a file that is opened when it is read, and closed at its end.
type lazy struct {
	open func() (io.ReadCloser, error)
	file io.ReadCloser
}

func (l *lazy) Read(b []byte) (n int, err error) {
	if l.file == nil {
		if l.file, err = l.open(); err != nil {
			l.file = nil
			return 0, err
		}
	}
	if n, err = l.file.Read(b); err != nil {
		l.file.Close()
	}
	return n, err
}
