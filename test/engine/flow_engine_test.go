//go:build engine

package engine

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// flow is one TCP connection on which something is asked ten times a second.
type flow struct {
	name   string
	lines  lineCounter
	stderr bytes.Buffer // to be read when ended is closed
	ended  chan struct{}
}

// lineCounter counts what the server answered.
type lineCounter struct{ atomic.Int64 }

func (c *lineCounter) Write(p []byte) (int, error) {
	c.Add(int64(bytes.Count(p, []byte("\n"))))
	return len(p), nil
}

// hold opens a connection that stays until the test ends. Arguments of probe get can be added.
func (b *bed) hold(name string, from lab.Place, addr string, args ...string) *flow {
	b.t.Helper()
	f := &flow{name: name, ended: make(chan struct{})}
	args = append(append([]string{"get", "-timeout", "10s", "-count", "100000", "-every", "100ms"}, args...), "tcp", addr)
	cmd := from.Command(b.t.Context(), from.Probe(), args...)
	cmd.Stdout, cmd.Stderr = &f.lines, &f.stderr
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // the end of the test kills it
		close(f.ended)
	}()
	b.t.Cleanup(func() { <-f.ended })
	f.goesOn(b.t)
	return f
}

// goesOn checks that questions asked from now on are answered. The answer to one that is on its
// way may have been sent before: hence more than one.
func (f *flow) goesOn(t *testing.T) {
	t.Helper()
	want := f.lines.Load() + 3
	deadline := time.After(10 * time.Second)
	for f.lines.Load() < want {
		select {
		case <-f.ended:
			t.Fatalf("the connection %s has ended: %s", f.name, f.stderr.String())
		case <-deadline:
			t.Fatalf("the connection %s hangs", f.name)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ends checks that the connection is cut: reset, or not answered for as long as it was made to wait.
func (f *flow) ends(t *testing.T) {
	t.Helper()
	select {
	case <-f.ended:
	case <-time.After(10 * time.Second):
		t.Errorf("the connection %s goes on", f.name)
	}
}
