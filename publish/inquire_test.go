package publish

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// answering is an Inquirer that says what it was given.
type answering struct {
	yes bool
	err error
	do  func()
}

func (a answering) Admits(context.Context, state.Visit) (bool, error) {
	if a.do != nil {
		a.do()
	}
	return a.yes, a.err
}

// TestPasses: who is not known to pass is not served, which is said once, unless the rules have gone meanwhile.
func TestPasses(t *testing.T) {
	var logged bytes.Buffer
	var wanted atomic.Bool
	wanted.Store(true)
	o := &sockets{log: slog.New(slog.NewTextHandler(&logged, nil)), questions: questions{wanted: func(bool) bool { return wanted.Load() }}}
	a := &admission{o: o, b: binding{addr: netip.MustParseAddrPort("0.0.0.0:80"), target: netip.MustParseAddrPort("10.0.0.2:80"), endpoint: "a"}}
	passes := func(with Inquirer) bool {
		o.questions.to = with
		return a.passes(t.Context(), netip.MustParseAddrPort("192.0.2.2:1"), netip.MustParseAddrPort("192.0.2.1:80"), 2)
	}
	if !passes(answering{yes: true}) || passes(answering{}) {
		t.Error("an answer is not heeded")
	}
	lacking := answering{err: errors.New("no right to ask")}
	for range 3 {
		if passes(lacking) {
			t.Error("who cannot be asked about is served")
		}
	}
	if n := strings.Count(logged.String(), "no right to ask"); n != 1 {
		t.Errorf("told %d times:\n%s", n, logged.String())
	}
	if !passes(answering{do: func() { wanted.Store(false) }}) {
		t.Error("who waited while the rules went is refused")
	}
}

// TestAsks: nobody is asked about the host itself, where a socket serves nobody else, and where no rule leads to the container.
func TestAsks(t *testing.T) {
	yes := func(bool) bool { return true }
	for _, row := range []struct {
		name   string
		reach  reach
		link   int
		wanted func(bool) bool
		to     Inquirer
		want   bool
	}{
		{"from outside", reach{outside: true}, 2, yes, answering{}, true},
		{"by a link that is not known", reach{outside: true}, 0, yes, answering{}, true},
		{"the host itself", reach{outside: true}, loopbackIndex, yes, answering{}, false},
		{"nobody from outside", reach{}, 2, yes, answering{}, false},
		{"no rules of ours", reach{outside: true, containers: true}, 2, yes, answering{}, false},
		{"no rules of the user", reach{outside: true}, 2, func(bool) bool { return false }, answering{}, false},
		{"nobody to ask", reach{outside: true}, 2, nil, nil, false},
	} {
		a := &admission{o: &sockets{}, b: binding{addr: netip.MustParseAddrPort("0.0.0.0:80")}}
		a.o.questions.wanted, a.o.questions.to = row.wanted, row.to
		a.now.Store(&row.reach)
		if got := a.asks(row.link); got != row.want {
			t.Errorf("%s: asks %v", row.name, got)
		}
	}
}
