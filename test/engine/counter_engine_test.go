//go:build engine

package engine

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// counter is a rule that counts the packets which arrive in a network namespace, and does nothing else.
type counter struct {
	b    *bed
	argv []string // enters the namespace and names the family's iptables
	name string
}

var counters atomic.Int32

// count counts what matches from now on; family is 4 or 6.
func (b *bed) count(at lab.Place, family int, match string) counter {
	b.t.Helper()
	program := map[int]string{4: "iptables", 6: "ip6tables"}[family]
	c := counter{b: b, argv: append(b.within(at), program, "-w", "-t", "raw"), name: fmt.Sprint("count", counters.Add(1))}
	rule := append([]string{"-A", "PREROUTING"}, strings.Fields(match)...)
	c.run(append(rule, "-m", "comment", "--comment", c.name)...)
	return c
}

// within is the beginning of a command of the host in the network namespace of a place.
func (b *bed) within(p lab.Place) []string {
	b.t.Helper()
	switch p := p.(type) {
	case *lab.Client:
		return []string{"ip", "netns", "exec", p.Name}
	case *lab.Container:
		return []string{"nsenter", "-n", "-t", b.do("inspect", "-f", "{{.State.Pid}}", p.Name)}
	}
	return []string{"env"}
}

func (c counter) run(args ...string) string {
	c.b.t.Helper()
	argv := append(append([]string{}, c.argv...), args...)
	return c.b.run(argv[0], argv[1:]...)
}

func (c counter) packets() int {
	c.b.t.Helper()
	for line := range strings.Lines(c.run("-L", "PREROUTING", "-n", "-v", "-x")) {
		if strings.Contains(line, "/* "+c.name+" */") {
			n, err := strconv.Atoi(strings.Fields(line)[0])
			if err != nil {
				c.b.t.Fatal(err)
			}
			return n
		}
	}
	c.b.t.Fatalf("no rule %s", c.name)
	return 0
}

// grows waits until packets come in.
func (c counter) grows(what string, by int) {
	c.b.t.Helper()
	want := c.packets() + by
	c.b.eventually(what, func() bool { return c.packets() >= want })
}

// none checks that nothing has come in.
func (c counter) none(t *testing.T, what string) {
	t.Helper()
	if n := c.packets(); n > 0 {
		t.Errorf("%d packets of %s have arrived", n, what)
	}
}
