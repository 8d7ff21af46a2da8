package relay

import (
	"context"
	"os"
	"testing"
	"time"
)

// TestKeep: a relay keeps a file when its daemon has gone, does not end for having nothing else, and lets go when another daemon asks.
func TestKeep(t *testing.T) {
	path := socketPath(t)
	const idle = 500 * time.Millisecond // within which the daemon below has come, on a busy machine too
	r := serve(t, path, ServerOptions{Idle: idle})
	reader, writer, err := os.Pipe()
	must(t, err)
	defer reader.Close()
	first := New(Options{Socket: path})
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error)
	go func() { watched <- first.Watch(ctx, func(string) {}) }()
	first.Keep(writer)
	for began := time.Now(); !r.keeps() && time.Since(began) < 5*time.Second; {
		time.Sleep(time.Millisecond)
	}
	cancel()
	must(t, <-watched)
	must(t, first.Close())
	must(t, reader.SetReadDeadline(time.Now().Add(2*idle)))
	if n, err := reader.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("nobody has the file any more: %d %v", n, err)
	}
	if !r.runs() {
		t.Fatal("the relay ended with a file to keep")
	}
	must(t, client(t, path, Options{}).LetGo(t.Context()))
	must(t, reader.SetReadDeadline(time.Now().Add(5*time.Second)))
	if _, err := reader.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("somebody has the file still: %v", err)
	}
	<-r.done // as it holds nothing
}

func (s *Server) keeps() bool {
	s.turn.RLock()
	defer s.turn.RUnlock()
	return s.kept != nil
}
