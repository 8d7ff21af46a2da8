package publish

import (
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestInspect: a port without its socket is told, and a look binds none.
func TestInspect(t *testing.T) {
	p, _ := fakePublisher(t) // whoever has the port on this host
	a := endpoint("a", c4)
	web := portOf(exact(state.TCP, "127.0.0.1", 18431, 80))
	s := state.Snapshot{Endpoints: []state.Endpoint{with(a, web)}}
	found, err := p.Inspect(t.Context(), s)
	if err != nil || len(found) != 1 || found[0].Text != "published port 127.0.0.1:18431/tcp is not held" || found[0].Scope.Endpoint != a.ID {
		t.Errorf("%v, %v", found, err)
	}
	if len(p.held) > 0 {
		t.Error("a look bound a socket")
	}
	if err := p.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if found, err := p.Inspect(t.Context(), s); err != nil || len(found) > 0 {
		t.Errorf("held: %v, %v", found, err)
	}
}
