//go:build kernel

package firewalltest

import "testing"

// flushes are what takes rules away without leave: all of them, or those of a table.
var flushes = []struct {
	name string
	do   func(*Lab)
}{
	{"everything", func(l *Lab) {
		for _, table := range []string{"mangle", "filter", "nat"} {
			l.Both("-t " + table + " -F")
		}
		l.nft("flush", "ruleset")
	}},
	{"nft flush ruleset", func(l *Lab) { l.nft("flush", "ruleset") }},
	{"mangle", func(l *Lab) { l.Both("-t mangle -F") }},
	{"filter", func(l *Lab) { l.Both("-F") }},
	{"mangle FORWARD", func(l *Lab) { l.Both("-t mangle -F FORWARD") }},
}

// Flushed has somebody take the rules away. Nothing opens while they are gone, and all is as before when they are back.
func Flushed(t *testing.T, variant string, backend Maker) {
	for _, f := range flushes {
		t.Run(f.name, func(t *testing.T) {
			l := New(t, variant)
			b := backend(l)
			l.Sync(b, State())
			f.do(l)
			l.Check(t, Packets, func(p Packet) bool { return p.Answers == "" && p.Name != "to docker0" || staysOnBridge(p) })
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

// nft runs nft in the router.
func (l *Lab) nft(args ...string) {
	l.T.Helper()
	if _, err := l.Run(l.T.Context(), "", append([]string{"nft"}, args...)...); err != nil {
		l.T.Fatal(err)
	}
}
