//go:build engine

package soak

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// fault is something that goes wrong. What is random in it is drawn beforehand.
type fault struct {
	name  string
	delay time.Duration // after the beginning of the operation beside it
	do    func() error
	// ends says that containers may have been ended by it, and with them their connections.
	ends bool
}

// kind draws a fault of a kind.
type kind struct {
	name string
	draw func(rng *rand.Rand, d *model) fault
}

// slowest is how long after the beginning of an operation its fault comes, at most.
const slowest = 300 * time.Millisecond

// draw returns the fault of a step, or none for one step in four.
func draw(rng *rand.Rand, d *model, kinds []kind) *fault {
	k := kinds[rng.IntN(len(kinds))]
	delay := time.Duration(rng.Int64N(int64(slowest)))
	f := k.draw(rng, d)
	if rng.IntN(4) == 0 {
		return nil
	}
	f.delay = delay
	if f.name == "" {
		f.name = k.name
	}
	return &f
}

// chosenFaults are all kinds, or those that SOAK_FAULTS names.
func chosenFaults(t *testing.T, m *machine) []kind {
	t.Helper()
	all := m.faults()
	words := os.Getenv("SOAK_FAULTS")
	if words == "" {
		return all
	}
	chosen := slices.DeleteFunc(all, func(k kind) bool {
		return !slices.ContainsFunc(strings.Split(words, ","), func(word string) bool { return strings.Contains(k.name, word) })
	})
	if len(chosen) == 0 {
		t.Fatalf("SOAK_FAULTS=%s names none", words)
	}
	return chosen
}

func (m *machine) faults() []kind {
	return []kind{
		{"plugin killed", m.pluginEnds(func() error { return m.plugin.Kill() })},
		{"plugin killed", m.pluginEnds(func() error { return m.plugin.Kill() })},
		{"plugin restarted", m.pluginEnds(func() error { return m.plugin.Stop() })},
		{"dockerd killed", m.engineEnds("killed", func() error { return m.docker.Kill() })},
		{"dockerd restarted", m.engineEnds("restarted", func() error { return m.docker.Stop() })},
		m.programs("iptables -F", "iptables -F", "ip6tables -F"),
		m.programs("iptables -t nat -F", "iptables -t nat -F", "ip6tables -t nat -F"),
		m.programs("iptables -t mangle -F", "iptables -t mangle -F", "ip6tables -t mangle -F"),
		m.flush(),
		m.programs("ipset flush", "ipset flush"),
		m.programs("firewall-cmd --reload", "firewall-cmd --reload"),
		m.programs("firewall-cmd --complete-reload", "firewall-cmd --complete-reload"),
		m.programs("forwarding off", "sysctl -q -w net.ipv4.ip_forward=0", "sysctl -q -w net.ipv6.conf.all.forwarding=0"),
		{"bridge deleted", m.link("ip link del", true)},
		{"bridge down", m.link("ip link set down", true)},
		{"veth deleted", m.link("ip link del", false)},
	}
}

// flush takes all rules of everybody away. firewalld 1.3 does not own its table, and can do nothing any more until it is started
// anew: a reload fails, since it deletes a table that is gone, and leaves the host with one that refuses everything.
func (m *machine) flush() kind {
	const name = "nft flush ruleset"
	if m.engine != "20.10" {
		return m.programs(name, name)
	}
	return kind{name, func(*rand.Rand, *model) fault {
		return fault{do: func() error {
			_, err := m.Run(m.t.Context(), "nft", "flush", "ruleset")
			time.Sleep(500 * time.Millisecond) // what is open in between is probed
			stopped := m.StopFirewalld()
			_, started := m.StartFirewalld(m.t.Context())
			return errors.Join(err, stopped, started)
		}}
	}}
}

// programs is a fault that some commands make.
func (m *machine) programs(name string, commands ...string) kind {
	return kind{name, func(*rand.Rand, *model) fault {
		return fault{do: func() error {
			var errs []error
			for _, command := range commands {
				words := strings.Fields(command)
				_, err := m.Run(m.t.Context(), words[0], words[1:]...)
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		}}
	}}
}

// pluginEnds has the plugin away for as long as systemd takes to start it again, or half of it, or not at all.
func (m *machine) pluginEnds(end func() error) func(*rand.Rand, *model) fault {
	return func(rng *rand.Rand, _ *model) fault {
		away := time.Duration(rng.IntN(3)) * 500 * time.Millisecond
		return fault{do: func() error {
			err := end()
			time.Sleep(away)
			return errors.Join(err, m.startPlugin())
		}}
	}
}

// engineEnds has dockerd away for a moment. Whether the next one has live-restore is drawn: without, it ends containers that it finds
// running, as one without does at its own end in good order.
func (m *machine) engineEnds(how string, end func() error) func(*rand.Rand, *model) fault {
	return func(rng *rand.Rand, _ *model) fault {
		live := rng.IntN(3) > 0
		away := time.Duration(rng.IntN(3)) * 300 * time.Millisecond
		f := fault{name: "dockerd " + how + ", containers live on", ends: !live || how == "restarted" && !m.live}
		if f.ends {
			f.name = "dockerd " + how + ", containers end"
		}
		f.do = func() error {
			m.liveRestore(live)
			err := end()
			time.Sleep(away)
			return errors.Join(err, m.docker.Start(m.t.Context()))
		}
		return f
	}
}

// link does something to a network's bridge, or to a container's link on it. Those of what stays are not spared, but for links of
// containers that a connection is held to.
func (m *machine) link(command string, bridge bool) func(*rand.Rand, *model) fault {
	return func(rng *rand.Rand, d *model) fault {
		names := slices.Sorted(maps.Keys(d.networks))
		if bridge {
			names = append(names, "steady", "other")
		}
		if len(names) == 0 {
			return fault{name: "none: no network", do: func() error { return nil }}
		}
		name, number := names[rng.IntN(len(names))], rng.IntN(100)
		return fault{do: func() error {
			id, err := m.cmd("network", "inspect", "-f", "{{.Id}}", name)
			if err != nil {
				return nil // gone, or dockerd is away
			}
			link := "br-" + id[:12]
			if !bridge {
				if link = m.port(link, number); link == "" {
					return nil
				}
			}
			words := strings.Fields(command)
			_, err = m.Run(m.t.Context(), words[0], slices.Insert(words[1:], 2, link)...)
			// It went with its container, before ip looked for it or after.
			if err != nil && (strings.Contains(err.Error(), "Cannot find device") || strings.Contains(err.Error(), "No such device")) {
				return nil
			}
			return err
		}}
	}
}

// port is the name of a link of a bridge, "" if it has none.
func (m *machine) port(bridge string, number int) string {
	out, err := m.Run(m.t.Context(), "ip", "-o", "link", "show", "master", bridge)
	if err != nil {
		return ""
	}
	var names []string
	for line := range strings.Lines(out) {
		var index int
		var name string
		if n, _ := fmt.Sscanf(line, "%d: %s", &index, &name); n == 2 {
			name, _, _ = strings.Cut(strings.TrimSuffix(name, ":"), "@")
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[number%len(names)]
}
