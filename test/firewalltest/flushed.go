//go:build kernel

package firewalltest

import "testing"

// opening is what somebody does without leave, and how it is undone where the backend does not do that.
type opening struct {
	name     string
	do, undo func(*Lab)
}

// openings are what takes rules away: all of them, or those of a table. And what takes away by what rules know our bridges.
var openings = []opening{
	{name: "everything", do: func(l *Lab) {
		for _, table := range []string{"mangle", "filter", "nat"} {
			l.Both("-t " + table + " -F")
		}
		l.flushRuleset()
	}},
	{name: "nft flush ruleset", do: (*Lab).flushRuleset},
	{name: "mangle", do: func(l *Lab) { l.Both("-t mangle -F") }},
	{name: "filter", do: func(l *Lab) { l.Both("-F") }},
	{name: "mangle FORWARD", do: func(l *Lab) { l.Both("-t mangle -F FORWARD") }},
	{name: "the group of bridges", do: (*Lab).ungroup, undo: (*Lab).regroup},
	{name: "the group of bridges, and nft flush ruleset", do: func(l *Lab) { l.ungroup(); l.flushRuleset() }, undo: (*Lab).regroup},
	{
		name: "the name of a bridge, and nft flush ruleset",
		do:   func(l *Lab) { l.rename("br-one", "br-other"); l.flushRuleset() }, undo: func(l *Lab) { l.rename("br-other", "br-one") },
	},
}

// Flushed has somebody take the rules away. Nothing opens while they are gone, and all is as before when they are back.
func Flushed(t *testing.T, variant string, backend Maker) {
	for _, o := range openings {
		t.Run(o.name, func(t *testing.T) {
			l := New(t, variant)
			b := backend(l)
			l.Sync(b, State())
			o.do(l)
			l.Check(t, Packets, func(p Packet) bool { return p.Answers == "" && p.Name != "to docker0" || staysOnBridge(p) })
			if o.undo != nil {
				o.undo(l)
			}
			l.Sync(b, State())
			// Somebody's rule that sets the whole mark takes nothing away from the latch.
			l.Both("-t mangle -A FORWARD -j MARK --set-mark 5")
			l.Sync(b, State())
			l.Check(t, Packets, func(p Packet) bool { return p.Name != "to docker0" })
		})
	}
}

// staysOnBridge reports whether a packet stays on its bridge.
func staysOnBridge(p Packet) bool {
	return p.Name == "same network" || p.Name == "same network, udp" || p.Name == "inside an internal network"
}

// ungroup is `ip link set … group 0` for all bridges, regroup the way back.
func (l *Lab) ungroup() { l.setGroups(func(network) uint32 { return 0 }) }

func (l *Lab) regroup() { l.setGroups(func(n network) uint32 { return n.group }) }

func (l *Lab) setGroups(group func(network) uint32) {
	l.T.Helper()
	for _, n := range Networks {
		link, err := l.router.handle.LinkByName(n.bridge)
		must(l.T, err)
		must(l.T, l.router.handle.LinkSetGroup(link, int(group(n))))
	}
}

// rename gives a bridge another name, for which it has to go down for a moment.
func (l *Lab) rename(from, to string) {
	l.T.Helper()
	link, err := l.router.handle.LinkByName(from)
	must(l.T, err)
	must(l.T, l.router.handle.LinkSetDown(link)) // which takes its IPv6 addresses
	must(l.T, l.router.handle.LinkSetName(link, to))
	for _, n := range Networks {
		if n.bridge == from || n.bridge == to {
			l.router.addresses(l.T, to, n.v6)
		}
	}
}

// flushRuleset is `nft flush ruleset` in the router.
func (l *Lab) flushRuleset() {
	l.T.Helper()
	if _, err := l.Run(l.T.Context(), "", "nft", "flush", "ruleset"); err != nil {
		l.T.Fatal(err)
	}
}
