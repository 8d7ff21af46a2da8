//go:build kernel

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// furnished is a host with a network, a container that is not in one yet, and a published port.
func furnished(t *testing.T, backend string, flags ...string) *wholeHost {
	t.Helper()
	h := newWholeHost(t)
	h.flags = flags
	h.launch(backend)
	h.settle()
	for _, c := range []struct {
		name string
		args map[string]any
	}{
		{"CreateNetwork", map[string]any{
			"NetworkID": networkID(0),
			"Options":   map[string]any{"com.docker.network.generic": map[string]string{}, "com.docker.network.enable_ipv6": true},
			"IPv4Data":  []any{map[string]any{"Pool": "10.0.0.0/24", "Gateway": "10.0.0.1/24"}},
			"IPv6Data":  []any{map[string]any{"Pool": "fd00:0::/64", "Gateway": "fd00:0::1/64"}},
		}},
		{"CreateEndpoint", map[string]any{
			"NetworkID": networkID(0), "EndpointID": endpointID(0),
			"Interface": map[string]any{"Address": "10.0.0.2/24", "AddressIPv6": "fd00:0::2/64"},
		}},
		{"ProgramExternalConnectivity", map[string]any{
			"NetworkID": networkID(0), "EndpointID": endpointID(0),
			"Options": map[string]any{"com.docker.network.portmap": []any{map[string]any{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080}}},
		}},
	} {
		if refused := h.call(c.name, c.args); refused != "" {
			t.Fatalf("%s: %s", c.name, refused)
		}
	}
	return h
}

// TestRepairsAreTold: what somebody did to the host is mended within a second or so, and the log says what it was.
func TestRepairsAreTold(t *testing.T) {
	const bridge, port = "br-000000000001", "vethe0000000001"
	rows := []struct {
		backend string
		act     []string
		told    string
	}{
		{"iptables", []string{"iptables", "-t", "mangle", "-F"}, "iptables: table mangle: chain DRAWBRIDGE-FORWARD lacks "},
		{"iptables", []string{"iptables", "-t", "nat", "-F"}, "iptables: table nat: chain DRAWBRIDGE-DNAT lacks the rule "},
		{"iptables", []string{"ip6tables", "-D", "FORWARD", "-j", "DOCKER-USER"}, "ip6tables: table filter: chain FORWARD lacks the jump to DOCKER-USER"},
		{"iptables", []string{"nft", "flush", "ruleset"}, "iptables: table mangle: chain DRAWBRIDGE-FORWARD is missing"},
		{"iptables", []string{"ipset", "flush", "DRAWBRIDGE-ports4"}, "set DRAWBRIDGE-ports4 lacks the element 10.0.0.2,tcp:80"},
		{"nftables", []string{"nft", "flush", "ruleset"}, "nftables: table inet drawbridge is missing"},
		{"nftables", []string{"nft", "flush", "chain", "inet", "drawbridge", "forward"}, "nftables: table inet drawbridge: chain forward has 0 of its "},
		{"nftables", []string{"ip", "link", "del", bridge}, "link " + bridge + " is missing"},
		{"nftables", []string{"ip", "link", "set", bridge, "down"}, "link " + bridge + " is down"},
		{"nftables", []string{"ip", "link", "set", port, "nomaster"}, "link " + port + " is no port of bridge " + bridge},
		{"nftables", []string{"ip", "link", "set", bridge, "alias", "uplink"}, "link " + bridge + " has the alias "},
		{"nftables", []string{"ip", "addr", "del", "10.0.0.1/24", "dev", bridge}, "link " + bridge + " lacks the address 10.0.0.1/24"},
		{"nftables", []string{"sysctl", "-qw", "net.ipv4.ip_forward=0"}, "sysctl net.ipv4.ip_forward is 0 and not 1"},
		{"nftables", []string{"sysctl", "-qw", "net.ipv4.conf." + bridge + ".route_localnet=0"}, "sysctl net.ipv4.conf." + bridge + ".route_localnet is 0 and not 1"},
	}
	hosts := map[string]*wholeHost{"iptables": furnished(t, "iptables"), "nftables": furnished(t, "nftables")}
	before := map[string]dump{}
	for backend, h := range hosts {
		h.settle()
		before[backend] = h.dump()
	}
	for _, row := range rows {
		t.Run(row.backend+" "+strings.Join(row.act, " "), func(t *testing.T) {
			h := hosts[row.backend]
			h.t = t
			before, times := before[row.backend], strings.Count(h.log.String(), row.told)
			h.output(row.act...)
			began := time.Now()
			for strings.Count(h.log.String(), row.told) == times {
				if time.Since(began) > patience {
					t.Fatalf("the log does not say %q:\n%s", row.told, h.log.String())
				}
				time.Sleep(5 * time.Millisecond)
			}
			t.Logf("told after %v", time.Since(began))
			// A pass that was on its way when it happened may have come too late for half of it, and another follows, long before
			// the next of those that come by time alone.
			found, told := h.verify(), time.Now()
			for ; len(found) > 0 && time.Since(told) < checkInterval/3; found = h.verify() {
				time.Sleep(5 * time.Millisecond)
			}
			if len(found) > 0 {
				t.Errorf("differences are left: %v", found)
			}
			if now := h.dump(); strings.Join(now, "\n") != strings.Join(before, "\n") {
				t.Errorf("the host is not as before: %s", cmp.Diff(before, now))
			}
		})
	}
	for _, h := range hosts {
		h.t = t
		h.stop(unix.SIGTERM)
	}
}

// TestFight: who undoes each repair at once has it wait, and is told of; whatever else is changed meanwhile is repaired at once.
func TestFight(t *testing.T) {
	h := furnished(t, "nftables")
	const other = "link br-000000000001 lacks the address 10.0.0.1/24"
	began, undone, others := time.Now(), 0, 0
	var changed time.Time // when something else was; zero while it is whole
	for time.Since(began) < 14*time.Second {
		if strings.Contains(h.output("nft", "list", "chain", "inet", "drawbridge", "forward"), "jump") {
			h.output("nft", "flush", "chain", "inet", "drawbridge", "forward")
			undone++
		}
		switch repaired := strings.Count(h.log.String(), other); {
		case repaired > others:
			others, changed = repaired, time.Time{}
		case !changed.IsZero() && time.Since(changed) > 3*time.Second: // less than the fight's own repairs wait by then
			t.Fatalf("beside the fight a repair waits:\n%s", h.log.String())
		case changed.IsZero() && others < 2 && time.Since(began) > time.Duration(5+4*others)*time.Second:
			h.output("ip", "addr", "del", "10.0.0.1/24", "dev", "br-000000000001")
			changed = time.Now()
		}
		time.Sleep(20 * time.Millisecond)
	}
	if undone < 4 || undone > 12 || others < 2 {
		t.Errorf("undone %d times in 14 seconds, %d other repairs", undone, others)
	}
	if n := strings.Count(h.log.String(), "somebody keeps undoing repairs"); n != 1 {
		t.Errorf("the fight was told of %d times:\n%s", n, h.log.String())
	}
	// The engine's calls are not held up, and have the rules whole.
	if refused := h.call("CreateEndpoint", map[string]any{
		"NetworkID": networkID(0), "EndpointID": endpointID(1), "Interface": map[string]any{"Address": "10.0.0.3/24"},
	}); refused != "" {
		t.Errorf("a call in the fight: %s", refused)
	}
	if found := h.verify(); len(found) > 0 {
		t.Errorf("behind a call: %v", found)
	}
	h.stop(unix.SIGTERM)
}
