package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/state"
)

var (
	errClosed   = errors.New("the state file is closed: drawbridge is shutting down")
	errReadOnly = errors.New("a function that only views the state has tried to change it")
)

// Store is an open state file. All its methods may be called from any goroutine.
type Store struct {
	path    string
	run     string // see Tx.Run
	current atomic.Pointer[image]

	// turn holds one token, taken by whoever updates or closes. It is a channel
	// because a mutex cannot be waited for with a context.
	turn chan struct{}

	mu      sync.Mutex
	waiting []*call // guarded by mu

	// What follows belongs to the holder of the token.
	db     *bolt.DB
	file   *os.File                         // that of db
	commit func(func(*bolt.Tx) error) error // db.Update, replaced by tests that make it fail
	closed bool
	// unsure: a commit failed, so that it may or may not be on disk (the last sync
	// can fail after everything was written). The next commit writes everything.
	unsure bool
	// broken: bbolt met something in the file that cannot be, and must not write to it any more. What it held is in memory, and
	// the next start looks at the file as a whole.
	broken atomic.Pointer[error]
	// unwritable is why the last commit failed; nil if it did not.
	unwritable atomic.Pointer[error]
}

// Run tells this opening of the store from every other one, see [state.Network.Made].
func (s *Store) Run() string { return s.run }

// Snapshot returns the state of the last commit. It costs no copy and must not be
// changed; it stays as it is while the store goes on. It works after Close too.
func (s *Store) Snapshot() state.Snapshot { return s.current.Load().snapshot }

// View calls fn with the state of the last commit and returns its error. Changes made
// through the Tx are discarded and an error. View takes no lock.
func (s *Store) View(fn func(*Tx) error) error {
	tx := newTx(s.current.Load())
	err := fn(tx)
	if tx.wrote() {
		err = errors.Join(err, errReadOnly)
	}
	return err
}

// Update calls fn and writes what it changed in one durable commit, together with the changes of others that wait. It returns the
// revision that holds the change, or the unchanged one if fn changed nothing or if there
// is an error; with an error nothing has changed.
//
// Updates run one after the other, each on what the one before made, perhaps in another's goroutine. An end of ctx is noticed while
// waiting and before the commit begins, so that a call given up leaves no trace;
// a commit that has begun is completed.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) (revision uint64, err error) {
	if err := ctx.Err(); err != nil {
		return s.Snapshot().Revision, fmt.Errorf("the state was not changed: %w", err)
	}
	c := &call{ctx: ctx, fn: fn, done: make(chan struct{})}
	s.enqueue(c)
	select {
	case s.turn <- struct{}{}:
		s.lead()
		<-c.done // also if somebody else was faster
	case <-c.done:
	case <-ctx.Done():
		if s.dequeue(c) {
			return s.Snapshot().Revision, fmt.Errorf("waiting for another change of the state to end: %w", ctx.Err())
		}
		<-c.done
	}
	if c.panicked != nil {
		panic(c.panicked)
	}
	return c.revision, c.err
}

// lead carries out what waits, and passes the turn on.
func (s *Store) lead() {
	defer s.release()
	s.group()
}

// Broken returns what was found wrong with the file while it was written to; then every change is refused with it, and what there was
// before is in memory only; or that the file at the path is another one by now. It is nil if nothing is wrong.
func (s *Store) Broken() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return s.replaced()
}

// replaced returns an error if the file that is written is not the one at its path any more: what is written would be lost with the
// process.
func (s *Store) replaced() error {
	there, err := os.Stat(s.path)
	open, failed := s.file.Stat()
	if failed != nil || err == nil && os.SameFile(there, open) {
		return nil
	}
	return &Fault{fmt.Errorf("state file %s was deleted or replaced while it was in use: put the file back (a copy of what is still open is at /proc/%d/fd/%d), and start drawbridge again", s.path, os.Getpid(), s.file.Fd())}
}

// Unwritable returns why the file cannot be written to at present, nil if nothing is known to be wrong, or Broken says it. After a
// commit that failed it tries whether another one does: nobody else may have a change to store when there is room again.
func (s *Store) Unwritable(ctx context.Context) error {
	if s.unwritable.Load() == nil || s.Broken() != nil {
		return nil
	}
	select {
	case s.turn <- struct{}{}:
		defer s.release()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.closed {
		return nil
	}
	return s.try()
}

// Close waits for a running Update and closes the file. Further updates are an
// error; closing again is not.
func (s *Store) Close() error {
	s.turn <- struct{}{}
	defer s.release()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.broken.Load() != nil { // bbolt may still hold a lock of its own, for which its Close would wait
		return release(s.file)
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("closing state file %s: %w", s.path, err)
	}
	return nil
}

func (s *Store) release() { <-s.turn }
