package store

import (
	"context"
	"errors"
	"fmt"
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
	current atomic.Pointer[image]

	// turn holds one token, taken by whoever updates or closes. It is a channel
	// because a mutex cannot be waited for with a context.
	turn chan struct{}

	// What follows belongs to the holder of the token.
	db     *bolt.DB
	commit func(func(*bolt.Tx) error) error // db.Update, replaced by tests that make it fail
	closed bool
	// unsure: a commit failed, so that it may or may not be on disk (the last sync
	// can fail after everything was written). The next commit writes everything.
	unsure bool
}

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

// Update calls fn and writes what it changed in one durable commit. It returns the
// revision that holds the change, or the unchanged one if fn changed nothing or if there
// is an error; with an error nothing has changed.
//
// Updates run one after the other. An end of ctx is noticed while waiting for the
// turn and before the commit begins, so that a call given up leaves no trace;
// a commit that has begun is completed.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) (revision uint64, err error) {
	if err := s.take(ctx); err != nil {
		return s.Snapshot().Revision, err
	}
	defer s.release()
	tx := newTx(s.current.Load())
	if err := fn(tx); err != nil {
		return tx.base.snapshot.Revision, err
	}
	if !tx.dirty() {
		return tx.base.snapshot.Revision, nil
	}
	if err := ctx.Err(); err != nil {
		return tx.base.snapshot.Revision, fmt.Errorf("the change was given up before it was stored: %w", err)
	}
	next := tx.next()
	if err := s.save(tx, next); err != nil {
		return tx.base.snapshot.Revision, fmt.Errorf("writing state file %s: %w", s.path, err)
	}
	s.current.Store(next)
	return next.snapshot.Revision, nil
}

// save brings the file to the image next, to which tx leads.
func (s *Store) save(tx *Tx, next *image) error {
	rewrite := s.unsure
	if rewrite {
		tx = next.rebuild()
	}
	records, err := tx.records()
	if err != nil {
		return err
	}
	s.unsure = true // also if commit panics
	err = s.commit(func(b *bolt.Tx) error {
		if rewrite {
			if err := empty(b); err != nil {
				return err
			}
		}
		return write(b, records)
	})
	s.unsure = err != nil
	return err
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
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("closing state file %s: %w", s.path, err)
	}
	return nil
}

// take waits for the turn.
func (s *Store) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the state was not changed: %w", err)
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change of the state to end: %w", ctx.Err())
	}
	if s.closed {
		s.release()
		return errClosed
	}
	return nil
}

func (s *Store) release() { <-s.turn }
