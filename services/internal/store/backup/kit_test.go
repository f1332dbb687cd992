package backup_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"

	"latchkey.dev/services/internal/store"
)

// small makes pages small, and lets others run between them.
type small struct {
	store.Pages
	random *rand.Rand
}

func (s small) Page(ctx context.Context, lo, hi []byte) ([]store.Pair, error) {
	for range s.random.IntN(200) {
		runtime.Gosched()
	}
	page, err := s.Pages.Page(ctx, lo, hi)
	return page[:min(len(page), 1+s.random.IntN(60))], err
}

func readers[R io.Reader](in []R) (out []io.Reader) {
	for _, r := range in {
		out = append(out, r)
	}
	return out
}

// failing is a disk that is full.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

// notClosed is an engine that stays open when its store was not.
type notClosed struct{ store.Engine }

func (notClosed) Close() error { return nil }
