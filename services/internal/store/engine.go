package store

import (
	"context"
	"errors"
	"iter"
)

// ErrUnknownOutcome reports a commit of which the engine cannot tell whether it
// will be found after a restart. The engine refuses everything afterwards, and the
// process should exit: what it would read now might never have happened.
var ErrUnknownOutcome = errors.New("outcome of the commit is unknown")

// ErrClosed reports the use of an engine that is closed.
var ErrClosed = errors.New("store is closed")

// ErrMissing reports that there is no store where one was to be opened.
var ErrMissing = errors.New("there is no store")

// Opening says what becomes of a store that is opened and that is missing.
type Opening int

// A missing store is made, or not.
const (
	MakeMissing Opening = iota // it is made
	KeepMissing                // opening it fails with ErrMissing, and nothing is made
)

// Engine keeps pairs of bytes in the order of their keys. Its transactions are
// serializable and durable. The suite in storetest says what it must do.
type Engine interface {
	// View calls f with a snapshot of all that was committed before; it may be taken as
	// late as at the first read.
	View(ctx context.Context, f func(Snapshot) error) error

	// Update calls f and applies what it returns, all or nothing, durably, and
	// as if no other Update of the same tenant had run in between. The tenant is that of
	// ctx's Origin; what those of different tenants read and write are different keys.
	// An error of f is returned as it is and nothing is applied. On a conflict f is
	// called again with another snapshot. Once f has been called, Update returns only
	// when the outcome is known, even if ctx ends.
	Update(ctx context.Context, f func(Snapshot) ([]Write, error)) error

	// Close waits for the transactions that are running.
	Close() error
}

// Shared is an Engine over data that other processes change too.
type Shared interface {
	Engine

	// Others returns the tenants for which other processes have committed something
	// since the last call of Others began, and maybe some for which none has; the first
	// call may return any. It is not called by two goroutines at once.
	Others(ctx context.Context) ([]string, error)
}

// Checker is an Engine with a file of which it knows how that must be made.
type Checker interface {
	Engine

	// Check looks at how the file is made, while others read and write, and calls found with what
	// is wrong. It returns how many pages it has looked at. What is written meanwhile takes room at the
	// end of the file, so a ctx bounds it.
	Check(ctx context.Context, found func(problem string)) (pages int64, err error)
}

// Compacter is an Engine whose file does not become smaller by itself.
type Compacter interface {
	Engine

	// Compact makes the file as small as what is in it, while others read and write. It
	// tells how far it is now and then, if tell is not nil. If it fails, or ctx ends,
	// nothing has changed.
	Compact(ctx context.Context, tell func(Compacted)) (Compacted, error)
}

// Compacted is what Compact of a file has done.
type Compacted struct {
	Pairs         int64 // copied
	Before, After int64 // bytes of the file; After when it is done
}

// Snapshot is what a transaction reads. It is used by one goroutine. It and all bytes
// got from it are valid until the transaction's function returns; the bytes must
// not be changed.
type Snapshot interface {
	// Get returns the value of the key, or nil if there is none.
	Get(key []byte) ([]byte, error)

	// Scan yields the pairs with lo <= key < hi in the order of the keys,
	// backward if reverse. It ends after an error. lo and hi must stay as they are
	// until it ends.
	Scan(lo, hi []byte, reverse bool) iter.Seq2[Pair, error]
}

// Remote is a Snapshot that is far away: what is fetched together costs as much as one Get.
type Remote interface {
	Snapshot

	// Known reports whether a Get of the key costs nothing.
	Known(key []byte) bool

	// Fetch makes all of the keys known, whether they have a value or not.
	Fetch(keys [][]byte) error
}

// Fencer is a Snapshot of an Update over data that other processes change too.
type Fencer interface {
	Snapshot

	// Fence has the Update commit only if the key has a value then, else fail with
	// ErrTakenOff. An Update that deletes the key comes before or after, and not
	// at the same time: what it reads and what is read after it has all that was committed
	// under the fence.
	Fence(key []byte)
}

// Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// Write sets the value of a key, or deletes the key if the value is nil.
type Write struct{ Key, Value []byte }
