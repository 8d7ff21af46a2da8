package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/internal/effect"
)

// call is a call of Update. Who holds the turn carries out all that wait and writes them with one commit: to sync the disk
// takes as long for one as for many.
type call struct {
	ctx context.Context
	fn  func(*Tx) error

	// What follows is set before done is closed.
	revision uint64
	err      error
	panicked any
	done     chan struct{}
}

func (s *Store) enqueue(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, c)
}

// dequeue reports whether c was still waiting.
func (s *Store) dequeue(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, c)
	if i < 0 {
		return false
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	return true
}

// group carries out all that wait. The caller has the turn.
func (s *Store) group() {
	s.mu.Lock()
	calls := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	before := s.current.Load()
	now := before
	var records []record
	for _, c := range calls {
		next, more := s.carryOut(c, now)
		now, records = next, append(records, more...)
	}
	if now != before {
		if err := s.save(now, records); err != nil {
			for _, c := range calls {
				c.lose(before, err)
			}
		} else {
			s.current.Store(now)
		}
	}
	for _, c := range calls {
		close(c.done)
	}
}

// lose tells the call that the commit failed, unless it saw the state of before only: what it saw else is not there.
func (c *call) lose(before *image, err error) {
	if c.revision == before.snapshot.Revision || c.panicked != nil {
		return
	}
	c.revision, c.err = before.snapshot.Revision, err
}

// carryOut runs one call on an image, and returns the image that it makes, which is the same one if it changes nothing, with what
// is to be written for that.
func (s *Store) carryOut(c *call, now *image) (*image, []record) {
	c.revision = now.snapshot.Revision
	if s.closed {
		c.err = errClosed
		return now, nil
	}
	tx := newTx(now)
	tx.run = s.run
	if c.err = c.run(tx); c.err != nil || c.panicked != nil || !tx.dirty() {
		return now, nil
	}
	if err := c.ctx.Err(); err != nil {
		c.err = fmt.Errorf("the change was given up before it was stored: %w", err)
		return now, nil
	}
	records, err := tx.records()
	if err != nil {
		c.err = fmt.Errorf("writing state file %s: %w", s.path, err)
		return now, nil
	}
	next := tx.next()
	c.revision = next.snapshot.Revision
	return next, records
}

// run calls the function, whose panic is its caller's.
func (c *call) run(tx *Tx) error {
	defer func() { c.panicked = recover() }()
	if err := c.ctx.Err(); err != nil {
		return fmt.Errorf("the state was not changed: %w", err)
	}
	return c.fn(tx)
}

// roomForMore is what a change may need of the disk.
const roomForMore = 64 << 10

// try writes again what the file holds already, and looks for room for more: that alone may find room within the file.
func (s *Store) try() error {
	if err := effect.Do("store.room", s.findRoom); err != nil {
		return failed("writing", s.path, err)
	}
	now := s.current.Load()
	if s.unsure {
		return s.save(now, nil)
	}
	records, err := metaRecords(now.snapshot.Revision, now.host())
	if err != nil {
		return err
	}
	err = s.save(now, records)
	s.unsure = false // whatever came of it, the file says the same
	return err
}

// findRoom writes a file beside that of the state, and takes it away again.
func (s *Store) findRoom() error {
	f, err := os.OpenFile(freshName(s.path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, roomForMore))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
}

// save brings the file to the image next with the records that lead there, and remembers why it could not.
func (s *Store) save(next *image, records []record) error {
	err := s.store(next, records)
	if err == nil {
		s.unwritable.Store(nil)
	} else {
		s.unwritable.Store(&err)
	}
	return err
}

func (s *Store) store(next *image, records []record) (err error) {
	if err := s.Broken(); err != nil {
		return err
	}
	rewrite := s.unsure
	if rewrite {
		if records, err = next.rebuild().records(); err != nil {
			return err
		}
	}
	s.unsure = true
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil { // for all whose changes these are
			err = fmt.Errorf("writing state file %s: a fault in drawbridge: %v", s.path, v)
			if wrong := s.inspect(); wrong != nil {
				err = damaged(s.path, fmt.Errorf("%w (writing it: %v)", wrong, v))
				s.broken.Store(&err)
			}
		}
	}()
	err = effect.Do("store.commit", func() error {
		return s.commit(func(b *bolt.Tx) error {
			if rewrite {
				if err := empty(b); err != nil {
					return err
				}
			}
			return write(b, records)
		})
	})
	s.unsure = err != nil && (rewrite || !s.unwritten(next))
	if err != nil {
		return failed("writing", s.path, err)
	}
	return nil
}

// inspect looks at the file after bbolt gave up over it.
func (s *Store) inspect() error {
	content, err := os.ReadFile(s.path)
	if err != nil {
		return err
	}
	return checkPages(content)
}

// unwritten reports whether it is sure that a failed commit did not reach the file: nothing of it counts before the meta page is
// written, which is the last thing.
func (s *Store) unwritten(next *image) bool {
	var revision uint64
	err := s.db.View(func(tx *bolt.Tx) error { return readMeta(tx, revisionKey, &revision) })
	return err == nil && revision == s.current.Load().snapshot.Revision && revision != next.snapshot.Revision
}
