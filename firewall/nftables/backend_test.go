package nftables

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/statetest"
)

// bed is a Backend on a host of fakes.
type bed struct {
	*Backend
	kernel    *fakeKernel
	neighbour *fakeNeighbour
	present   []string // bridges
	clock     time.Time
}

func newBed() *bed {
	b := &bed{kernel: &fakeKernel{gen: 7}, neighbour: &fakeNeighbour{}, clock: time.Unix(1000, 0)}
	b.Backend = newBackend(b.kernel, b.neighbour, func() ([]string, error) { return b.present, nil })
	b.now = func() time.Time { return b.clock }
	return b
}

func (b *bed) sync(t *testing.T, p firewall.Policy) {
	t.Helper()
	if err := b.try(t, p); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) try(t *testing.T, p firewall.Policy) error {
	t.Helper()
	return b.Sync(t.Context(), always(p))
}

// check compares the table with a policy.
func (b *bed) check(t *testing.T, p firewall.Policy) {
	t.Helper()
	have, err := b.kernel.read()
	if err != nil {
		t.Fatal(err)
	}
	if edits := difference(have, Render(p, b.alone.Load())); len(edits) > 0 {
		t.Errorf("the table is not as wanted: %v", edits)
	}
}

func oneMore(p firewall.Policy) firewall.Policy {
	port := p.V4.Ports[0]
	port.HostPort = 4711
	p.V4.Ports = append(slices.Clone(p.V4.Ports), port)
	return p
}

// TestIdle: a Sync without anybody's change is one request, and one with a change of ours one transaction more.
func TestIdle(t *testing.T) {
	b := newBed()
	p := sample()
	b.sync(t, p)
	b.check(t, p)
	commits := b.kernel.commits
	b.kernel.asked = 0
	b.sync(t, p)
	if b.kernel.asked != 1 || b.kernel.commits != commits || b.neighbour.reads != 1 {
		t.Errorf("%d requests, %d commits, %d reads of iptables", b.kernel.asked, b.kernel.commits-commits, b.neighbour.reads)
	}
	b.kernel.asked = 0
	b.sync(t, oneMore(p))
	if b.kernel.asked != 1 || b.kernel.commits != commits+1 || b.neighbour.reads != 1 {
		t.Errorf("one more: %d requests, %d commits, %d reads of iptables", b.kernel.asked, b.kernel.commits-commits, b.neighbour.reads)
	}
	b.check(t, oneMore(p))
}

// TestFollow: what nobody changed is not looked at, and what somebody did is.
func TestFollow(t *testing.T) {
	b := newBed()
	p := sample()
	b.sync(t, p)
	asked := 0
	follow := func(changed bool, p firewall.Policy) {
		t.Helper()
		b.kernel.asked = 0
		w := always(p)
		w.Change = func(firewall.Host) (firewall.Change, bool) { return firewall.Change{}, !changed }
		if err := b.Follow(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		asked = b.kernel.asked
		b.check(t, p)
	}
	commits, reads := b.kernel.commits, b.neighbour.reads
	follow(false, p)
	follow(true, oneMore(p))
	if asked != 1 || b.kernel.commits != commits+1 || b.neighbour.reads != reads {
		t.Errorf("%d requests, %d commits, %d reads of iptables", asked, b.kernel.commits-commits, b.neighbour.reads-reads)
	}
	b.kernel.gen++ // somebody changed something
	follow(false, oneMore(p))
	if b.neighbour.reads != reads+1 {
		t.Error("what somebody changed was not looked at")
	}
}

// TestFollowIsWhole: whatever is followed, the table is that of the state.
func TestFollowIsWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBed()
		loopback := statetest.Loopback(t)
		modes := statetest.Modes(t)
		plane := firewall.NewPlane(b, firewall.Settings{Loopback: loopback, Publish: func() state.Modes { return modes }})
		s := statetest.Draw(t)
		do := func(what string, err error) {
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			host := b.seen
			host.Loopback, host.Proxied = true, statetest.Proxied(s, loopback)
			host.Modes = modes
			have, _ := b.kernel.read()
			want := Render(firewall.Render(s, host), false)
			if edits := difference(have, want); len(edits) > 0 {
				t.Fatalf("%s: the table is not as wanted: %v", what, edits)
			}
			if edits := difference(b.have(), want); len(edits) > 0 {
				t.Fatalf("%s: the table is taken for another: %v", what, edits)
			}
		}
		do("first", plane.Apply(t.Context(), s))
		for range 6 {
			last := s
			s = statetest.Next(t, s)
			switch rapid.IntRange(0, 6).Draw(t, "how") {
			case 6:
				modes = statetest.Modes(t) // a firewall of the host came or went
				do("with other modes", plane.Follow(t.Context(), state.Compare(last, s)))
			case 0:
				do("whole", plane.Apply(t.Context(), s))
			case 1:
				b.kernel.gen++ // somebody changed something
				do("elsewhere", plane.Follow(t.Context(), state.Compare(last, s)))
			case 2:
				b.kernel.err = errors.New("no")
				_ = plane.Follow(t.Context(), state.Compare(last, s))
				b.kernel.err = nil
				do("after a failure", plane.Apply(t.Context(), s))
			case 3:
				b.kernel.before = func() { b.kernel.gen++ }
				do("in a race", plane.Follow(t.Context(), state.Compare(last, s)))
				b.kernel.before = nil
			default:
				do("followed", plane.Follow(t.Context(), state.Compare(last, s)))
			}
		}
	})
}

// TestLook: others' rules are read when the generation changed, when somebody says so, and at the loop's interval.
func TestLook(t *testing.T) {
	b := newBed()
	b.neighbour.bridges, b.kernel.docker, b.present = []string{"web0"}, []string{"web1"}, []string{"web0", "web1", "web2", "docker0"}
	b.sync(t, sample())
	if want := []string{"docker0", "web0", "web1"}; !slices.Equal(b.seen.DockerBridges, want) {
		t.Errorf("bridges %q, not %q", b.seen.DockerBridges, want)
	}
	b.clock = b.clock.Add(lookInterval - time.Second)
	b.sync(t, sample())
	if b.neighbour.reads != 1 {
		t.Error("iptables was read before its time")
	}
	b.clock = b.clock.Add(time.Second)
	b.neighbour.bridges = append(b.neighbour.bridges, "web2")
	b.sync(t, sample())
	if b.neighbour.reads != 2 || !slices.Contains(b.seen.DockerBridges, "web2") {
		t.Errorf("%d reads, bridges %q", b.neighbour.reads, b.seen.DockerBridges)
	}
	b.kernel.gen++
	b.sync(t, sample())
	if b.neighbour.reads != 3 {
		t.Error("somebody's change was not looked at")
	}
	b.Suspect()
	b.sync(t, sample())
	b.sync(t, sample())
	if b.neighbour.reads != 4 {
		t.Errorf("%d reads of iptables, of which somebody knew once that it had changed", b.neighbour.reads)
	}
}

// TestChangedMeanwhile: a transaction is bound to what was read.
func TestChangedMeanwhile(t *testing.T) {
	b := newBed()
	b.sync(t, sample())
	b.kernel.before = func() { b.kernel.table, b.kernel.gen = nil, b.kernel.gen+1 }
	b.sync(t, oneMore(sample()))
	b.check(t, oneMore(sample()))

	always := newBed()
	var again func()
	again = func() { always.kernel.gen++; always.kernel.before = again }
	always.kernel.before = again
	if err := always.try(t, sample()); !errors.Is(err, errChanged) {
		t.Errorf("against somebody who never stops: %v", err)
	}
}

// TestFailures: after a failure nothing is taken for known.
func TestFailures(t *testing.T) {
	steps := map[string]func(*bed){
		"commit":    func(b *bed) { b.kernel.err = unix.ENOMEM },
		"reading":   func(b *bed) { b.kernel.reading, b.kernel.gen = unix.ENOMEM, b.kernel.gen+1 },
		"neighbour": func(b *bed) { b.neighbour.err, b.clock = unix.ENOMEM, b.clock.Add(time.Hour) },
	}
	for name, fail := range steps {
		t.Run(name, func(t *testing.T) {
			b := newBed()
			b.sync(t, sample())
			fail(b)
			if err := b.try(t, oneMore(sample())); !errors.Is(err, unix.ENOMEM) {
				t.Errorf("got %v", err)
			}
			b.kernel.err, b.kernel.reading, b.neighbour.err = nil, nil, nil
			reads := b.neighbour.reads
			b.sync(t, oneMore(sample()))
			b.check(t, oneMore(sample()))
			if name == "neighbour" && b.neighbour.reads == reads {
				t.Error("iptables was not looked at again")
			}
		})
	}
}

// TestOrder: what iptables accepts comes after what we refuse.
func TestOrder(t *testing.T) {
	b := newBed()
	b.neighbour.onWrite = func() { b.check(t, b.neighbour.writes[len(b.neighbour.writes)-1]) }
	b.sync(t, sample())
	b.sync(t, firewall.Policy{V6: firewall.Family{V6: true}})
	if b.kernel.table != nil {
		t.Error("the table is still there")
	}
}

// TestAlone: without iptables nothing is written there, and the guard is ours.
func TestAlone(t *testing.T) {
	guard := firewall.Policy{V4: firewall.Family{Guard: true}, V6: firewall.Family{V6: true}}
	b := newBed()
	b.sync(t, guard)
	if b.kernel.table != nil {
		t.Error("a table beside iptables, for the guard alone")
	}
	b = newBed()
	b.neighbour.missing = true
	b.sync(t, guard)
	if len(b.neighbour.writes) > 0 || b.kernel.table == nil || len(b.kernel.table.chains) != 1 {
		t.Errorf("alone: %d writes, table %v", len(b.neighbour.writes), b.kernel.table)
	}
	if text := b.Rules(guard); strings.Contains(text, "*filter") || !strings.Contains(text, "the host is no router") {
		t.Errorf("rules:\n%s", text)
	}
}

// TestPurge needs no memory.
func TestPurge(t *testing.T) {
	b := newBed()
	b.sync(t, sample())
	other := newBackend(b.kernel, b.neighbour, nil)
	if !other.Leftover(t.Context()) {
		t.Error("nothing is said to be left")
	}
	b.neighbour.err = errors.New("locked")
	if err := other.Purge(t.Context()); !errors.Is(err, b.neighbour.err) {
		t.Errorf("got %v", err)
	}
	if b.kernel.table != nil || other.Leftover(t.Context()) {
		t.Error("the table is still there")
	}
	b.kernel.reading = foreign(tableName)
	b.neighbour.err = nil
	if err := other.Purge(context.Background()); err != nil {
		t.Errorf("somebody's table: %v", err)
	}
}

// TestCloseIntervals: a single field's interval is two elements for the kernel.
func TestCloseIntervals(t *testing.T) {
	key := func(s string) string { return packAddr(address(s)) }
	tests := map[string][]Element{
		"nothing":            nil,
		"one":                {{Key: key("10.0.0.0"), End: key("10.0.0.255")}},
		"neighbours":         {{Key: key("10.0.0.0"), End: key("10.0.0.255")}, {Key: key("10.0.1.0"), End: key("10.0.1.255")}},
		"apart":              {{Key: key("10.0.0.0"), End: key("10.0.0.255")}, {Key: key("10.9.0.0"), End: key("10.9.255.255")}},
		"to the end":         {{Key: key("10.0.0.0"), End: key("10.0.0.255")}, {Key: key("240.0.0.0"), End: key("255.255.255.255")}},
		"one address, twice": {{Key: key("10.0.0.0"), End: key("10.0.0.0")}, {Key: key("10.0.0.1"), End: key("10.0.0.1")}},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			s := Set{Key: []datatype{addr4}, Interval: true}
			var got []Element
			var ends []string
			for _, e := range want {
				for _, data := range attributes(s.appendElement(nil, e)) {
					if element, end := readElement(data); end {
						ends = append(ends, element.Key)
					} else {
						got = append(got, element)
					}
				}
			}
			closeIntervals(got, ends)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
