package plugin

import (
	"sync"
	"time"
)

// Call is a call whose handler runs.
type Call struct {
	Name  string
	Began time.Time
}

// calls are those whose handlers run.
type calls struct {
	mu  sync.Mutex
	all map[*Call]struct{} // guarded by mu
}

// enter adds a call, until leave is called.
func (c *calls) enter(name string) (leave func()) {
	call := &Call{name, time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[*Call]struct{}{}
	}
	c.all[call] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.all, call)
	}
}

// Oldest returns the call whose handler has run for the longest time, the zero Call if none runs. One that began long before its deadline
// hangs, whatever its caller was answered.
func (s *Server) Oldest() Call {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	var oldest Call
	for call := range s.calls.all {
		if oldest.Name == "" || call.Began.Before(oldest.Began) {
			oldest = *call
		}
	}
	return oldest
}
