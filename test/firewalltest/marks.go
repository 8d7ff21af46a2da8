//go:build kernel

package firewalltest

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// marking is a setup of a user's that writes marks of packets or has them not tracked, as rules in both families.
type marking struct {
	name  string
	rules []string // with -I or -A
	// untracked are the protocols of which nothing can be translated.
	untracked string
}

var markings = []marking{
	{name: "raw and mangle PREROUTING", rules: []string{"-t raw -I PREROUTING -j MARK --set-mark 1", "-t mangle -I PREROUTING -j MARK --set-mark 1"}},
	{name: "nat PREROUTING", rules: []string{"-t nat -I PREROUTING -j MARK --set-mark 1"}},
	{name: "mangle FORWARD, first", rules: []string{"-t mangle -I FORWARD -j MARK --set-mark 1"}},
	{name: "mangle FORWARD, last", rules: []string{"-t mangle -A FORWARD -j MARK --set-mark 1"}},
	{name: "mangle FORWARD, a chain that returns", rules: []string{
		"-t mangle -A QOS -j MARK --set-mark 7", "-t mangle -A QOS -j CONNMARK --save-mark", "-t mangle -A FORWARD -j QOS",
	}},
	{name: "mangle FORWARD, with a mask, and accepted", rules: []string{
		"-t mangle -A QOS -j MARK --set-mark 7/0xff", "-t mangle -A QOS -j ACCEPT", "-t mangle -A FORWARD -j QOS",
	}},
	{name: "mangle FORWARD, accepted first", rules: []string{"-t mangle -I FORWARD -j ACCEPT"}},
	{name: "mangle POSTROUTING", rules: []string{"-t mangle -I POSTROUTING -j MARK --set-mark 1"}},
	{name: "filter and security FORWARD", rules: []string{"-I FORWARD -j MARK --set-mark 1", "-t security -I FORWARD -j MARK --set-mark 9"}},
	{name: "marks of connections", rules: []string{
		"-t mangle -I PREROUTING -j CONNMARK --restore-mark", "-t mangle -A FORWARD -j CONNMARK --save-mark", "-t mangle -A POSTROUTING -j CONNMARK --save-mark",
	}},
	{name: "marks of connections, in FORWARD", rules: []string{"-t mangle -A FORWARD -j CONNMARK --restore-mark"}},
	{name: "wg-quick", rules: []string{
		"-t mangle -I POSTROUTING -m mark --mark 51820 -p udp -j CONNMARK --save-mark", "-t mangle -I PREROUTING -p udp -j CONNMARK --restore-mark",
	}},
	{name: "what a socket is for", rules: []string{"-t mangle -A DIVERTED -j MARK --set-mark 1", "-t mangle -A DIVERTED -j ACCEPT", "-t mangle -A PREROUTING -p tcp -m socket -j DIVERTED"}},
	{name: "untracked", rules: []string{"-t raw -I PREROUTING -p udp -j CT --notrack"}, untracked: "udp"},
}

// chain returns the chain of the user's own that the rules are in, "" for none.
func (m marking) chain() string {
	for _, name := range []string{"QOS", "DIVERTED"} {
		if strings.Contains(m.rules[0], "-A "+name) {
			return name
		}
	}
	return ""
}

// Marks has users write marks in each place. Nothing that passes without that is refused, also where br_netfilter shows what stays on a
// bridge; and nothing opens when our rules go and theirs stay.
func Marks(t *testing.T, variant string, backend Maker) {
	l := New(t, variant)
	b := backend(l)
	l.showBridgedHairpin()
	for _, m := range markings {
		t.Run(m.name, func(t *testing.T) {
			l.Sync(b, State())
			if m.chain() != "" {
				l.Both("-t mangle -N " + m.chain())
			}
			for _, r := range m.rules {
				l.Both(r)
			}
			l.Sync(b, State())
			l.Check(t, Packets, func(p Packet) bool {
				return p.Name != "to docker0" && (p.Proto != m.untracked || p.Answers == "" || p.Name == "same network, udp")
			})
			l.takeOurs()
			// A connection within a network may have had the port that a spoofed packet comes from.
			must(t, l.router.handle.ConntrackTableFlush(netlink.ConntrackTable))
			l.Check(t, Packets, func(p Packet) bool { return p.Answers == "" && p.Name != "to docker0" })
			for _, table := range []string{"raw", "mangle", "nat", "filter", "security"} {
				l.Both("-t " + table + " -F")
				l.Both("-t " + table + " -X")
			}
		})
	}
}

// takeOurs takes away what decides over forwarded packets, whichever backend made it.
func (l *Lab) takeOurs() {
	l.T.Helper()
	_, missing := l.Run(l.T.Context(), "", "nft", "delete", "table", "inet", "drawbridge")
	if missing != nil {
		l.Both("-t mangle -F DRAWBRIDGE-FORWARD")
	}
}
