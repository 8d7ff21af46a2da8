package publish

import (
	"context"
	"sync"
)

// share bounds the connections, or the sessions, of all sockets together. A socket may have one more as long as it has fewer than are free:
// one whose clients take all that they can get has half of them, two have a third each, and always some are left for others.
type share struct {
	most int

	mu    sync.Mutex
	taken int           // guarded by mu, as are freed and what sockets have
	freed chan struct{} // closed when one ends; nil while nobody waits
}

// begin waits until a socket that has own connections may have another one. It reports false if ctx ended before. waiting is called
// once if it has to wait.
func (s *share) begin(ctx context.Context, own *int, waiting func()) bool {
	for {
		freed := s.take(own)
		if freed == nil {
			return true
		}
		waiting()
		waiting = func() {}
		select {
		case <-freed:
		case <-ctx.Done():
			return false
		}
	}
}

// take returns nil, or what is closed when it may be tried again.
func (s *share) take(own *int) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *own < s.most-s.taken {
		s.taken++
		*own++
		return nil
	}
	if s.freed == nil {
		s.freed = make(chan struct{})
	}
	return s.freed
}

// add counts one that is there, whether or not there is room for it.
func (s *share) add(own *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	*own++
}

// end gives one back.
func (s *share) end(own *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	*own--
	if s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
}

// count returns how many are in flight.
func (s *share) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}
