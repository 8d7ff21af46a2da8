//go:build kernel

package link

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

// asSaid takes the mode that an exposure names.
func asSaid(e state.Exposure) state.Publish { return e.Publish }

func exposed(n state.Network, p state.Publish) state.Network {
	n.Exposure.Publish = p
	return n
}

// ip runs ip(8) and returns what it printed, one line after the other and without spaces at their ends.
func (l *lab) ip(args ...string) string {
	l.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "FIB table does not exist") {
		l.Fatalf("ip %v: %v: %s", args, err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); !strings.Contains(line, "FIB table does not exist") && line != "Dump terminated" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// diversion is what of the rules and routes is there.
func (l *lab) diversion() string {
	l.Helper()
	var out []string
	for _, family := range []string{"-4", "-6"} {
		for _, list := range [][]string{{"rule", "list", "lookup", "1427"}, {"route", "show", "table", "1427"}} {
			if text := l.ip(append([]string{family}, list...)...); text != "" {
				out = append(out, family+" "+strings.ReplaceAll(text, "\n", "\n"+family+" "))
			}
		}
	}
	return strings.ReplaceAll(strings.Join(out, "\n"), "\t", " ")
}

const (
	diversion1 = `-4 1427: from all fwmark 0x4000000/0x4000000 iif br1 lookup 1427 proto 142
-4 local default dev lo proto 142 scope host
-6 1427: from all fwmark 0x4000000/0x4000000 iif br1 lookup 1427 proto 142
-6 local default dev lo proto 142 metric 1024 pref medium`
	diversion1and2 = `-4 1427: from all fwmark 0x4000000/0x4000000 iif br1 lookup 1427 proto 142
-4 1427: from all fwmark 0x4000000/0x4000000 iif br2 lookup 1427 proto 142
-4 local default dev lo proto 142 scope host
-6 1427: from all fwmark 0x4000000/0x4000000 iif br1 lookup 1427 proto 142
-6 1427: from all fwmark 0x4000000/0x4000000 iif br2 lookup 1427 proto 142
-6 local default dev lo proto 142 metric 1024 pref medium`
)

// TestDivert: rules and routes come and go with what the state asks for.
func TestDivert(t *testing.T) {
	l := newLab(t)
	l.links.Mode = asSaid
	own := endpoint(2, 3)
	own.Exposure.Publish = state.PublishLearned
	internal := exposed(network(3), state.PublishHost)
	internal.Internal = true
	only4 := exposed(network(1), state.PublishHost)
	only4.V6 = state.Subnet{}
	four, _, _ := strings.Cut(diversion1, "\n-6")
	steps := []struct {
		name string
		s    state.Snapshot
		want string
	}{
		{"dnat", snapshot(exposed(network(1), state.PublishDNAT), network(2)), ""},
		{"host", snapshot(exposed(network(1), state.PublishHost), network(2)), diversion1},
		{"an endpoint of another", snapshot(exposed(network(1), state.PublishHost), network(2), own), diversion1and2},
		{"the endpoint went", snapshot(exposed(network(1), state.PublishLearned), network(2)), diversion1},
		{"only IPv4", snapshot(only4), four},
		{"none", snapshot(exposed(network(1), state.PublishLocalhost)), ""},
		{"internal", snapshot(internal), ""},
		{"again", snapshot(exposed(network(1), state.PublishHost)), diversion1},
	}
	last := snapshot()
	for i, step := range steps {
		if i%2 == 1 {
			l.follow(last, step.s)
		} else {
			l.apply(step.s)
		}
		last = step.s
		if d := cmp.Diff(step.want, l.diversion()); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, d)
		}
		if found := l.links.Activate().Found(); len(found) > 0 {
			t.Errorf("%s: our own change counts as somebody else's: %v", step.name, found)
		}
	}
	_, err := l.links.Purge()
	must(t, err)
	l.same("after a purge", l.diversion(), "")
}

// TestDivertHeals: what somebody takes away, or adds in our name, is told of and mended. Rules of others in the table stay.
func TestDivertHeals(t *testing.T) {
	l := newLab(t)
	l.links.Mode = asSaid
	s := snapshot(exposed(network(1), state.PublishHost))
	l.apply(s)
	h := l.listening()
	tests := []struct {
		name   string
		harm   []string
		reason string // that the watch tells; "" for nothing
		found  string
	}{
		{"rule", []string{"-4", "rule", "del", "pref", "1427", "proto", "142"}, "the IPv4 routing rule for br1 was removed", "the IPv4 routing rule that leads from br1 to the host's sockets is missing"},
		{"rule of IPv6", []string{"-6", "rule", "del", "pref", "1427", "proto", "142"}, "the IPv6 routing rule for br1 was removed", "the IPv6 routing rule that leads from br1 to the host's sockets is missing"},
		{"route", []string{"-4", "route", "flush", "table", "1427"}, "an IPv4 route was removed from table 1427", "table 1427 lacks the IPv4 route to the host's sockets"},
		{"route of IPv6", []string{"-6", "route", "flush", "table", "1427"}, "an IPv6 route was removed from table 1427", "table 1427 lacks the IPv6 route to the host's sockets"},
		{
			"a rule too many",
			[]string{"-4", "rule", "add", "pref", "9", "iif", "lo", "lookup", "1427", "proto", "142"},
			"", "the IPv4 routing rule for lo is left over, or not as it was made",
		},
		{
			"a route too many",
			[]string{"-6", "route", "add", "blackhole", "2001:db8:9::/64", "table", "1427", "proto", "142"},
			"", "table 1427 has an IPv6 route of ours that is left over: 2001:db8:9::/64",
		},
	}
	for _, tt := range tests {
		l.ip(tt.harm...)
		if tt.reason != "" {
			h.expect(tt.reason)
		}
		found, err := l.links.Activate().Inspect(t.Context(), s)
		must(t, err)
		if len(found) != 1 || found[0].Text != tt.found {
			t.Errorf("%s: found %v, want %q", tt.name, found, tt.found)
		}
		l.apply(s)
		if d := cmp.Diff(diversion1, l.diversion()); d != "" {
			t.Errorf("%s: not mended (-want +got):\n%s", tt.name, d)
		}
		if found := l.links.Activate().Found(); len(found) != 1 {
			t.Errorf("%s: mended %v, want one thing", tt.name, found)
		}
	}
	l.ip("-4", "rule", "add", "pref", "77", "iif", "lo", "lookup", "1427", "proto", "static")
	l.ip("-4", "route", "add", "blackhole", "203.0.113.0/24", "table", "1427", "proto", "static")
	l.apply(snapshot(network(1)))
	l.same("of somebody else", l.diversion(), "-4 77: from all iif lo lookup 1427 proto static\n-4 blackhole 203.0.113.0/24 proto static")
}

// TestDivertSaysNothingOfItself: neither our own work nor routes of others are news.
func TestDivertSaysNothingOfItself(t *testing.T) {
	l := newLab(t)
	l.links.Mode = asSaid
	l.apply(snapshot(exposed(network(1), state.PublishHost)))
	h := l.listening()
	l.follow(snapshot(exposed(network(1), state.PublishHost)), snapshot(network(1)))
	l.follow(snapshot(network(1)), snapshot(exposed(network(1), state.PublishHost)))
	l.ip("route", "add", "blackhole", "203.0.113.0/24")
	l.ip("route", "del", "blackhole", "203.0.113.0/24")
	if told := h.news(); len(told) > 0 {
		t.Errorf("told %q", told)
	}
}
