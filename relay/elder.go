package relay

import (
	"context"
	"encoding/json"
	"net"
	"sync"

	"github.com/drawbridge-net/drawbridge/publish"
)

// elder tells the relay before this one, which has connections left, what is not published any more. Without such a relay it tells
// nobody.
type elder struct {
	mu    sync.Mutex
	line  *net.UnixConn // nil without, and when it has ended
	queue []publish.Place
	wake  chan struct{}
	ended chan struct{} // closed when it has
}

func newElder() *elder {
	ended := make(chan struct{})
	close(ended)
	return &elder{wake: make(chan struct{}, 1), ended: ended}
}

// attach begins to tell, until the line breaks.
func (e *elder) attach(line *net.UnixConn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ended := make(chan struct{})
	e.line, e.ended = line, ended
	go func() {
		_, files, _ := receive(line) // it says nothing and ends
		closeAll(files)
		e.mu.Lock()
		defer e.mu.Unlock()
		_ = line.Close()
		e.line, e.queue = nil, nil
		close(ended)
	}()
	go e.run(line, ended)
}

// closed implements publish.Options.Closed.
func (e *elder) closed(at publish.Place) { e.tell(at) }

// tell blocks nobody.
func (e *elder) tell(gone ...publish.Place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.line == nil {
		return
	}
	e.queue = append(e.queue, gone...)
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *elder) run(line *net.UnixConn, ended chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-e.wake:
		}
		for more := e.take(); len(more) > 0; more = e.take() {
			text, err := json.Marshal(more)
			if err == nil {
				err = send(line, text, nil)
			}
			if err != nil {
				_ = line.Close() // it cuts all its connections then
				return
			}
		}
	}
}

// take returns as much as a message has room for.
func (e *elder) take() []publish.Place {
	e.mu.Lock()
	defer e.mu.Unlock()
	const most = 1000
	n := min(len(e.queue), most)
	out := e.queue[:n:n]
	e.queue = e.queue[n:]
	return out
}

// close has it end with its connections.
func (e *elder) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.line != nil {
		_ = e.line.Close()
	}
}

// wait returns when it has ended, or ctx has.
func (e *elder) wait(ctx context.Context) error {
	e.mu.Lock()
	ended := e.ended
	e.mu.Unlock()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
