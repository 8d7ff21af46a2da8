//go:build kernel

package iptables

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// rule is a command for each family.
type rule [2]string

func (l *lab) rule(r rule) {
	l.t.Helper()
	l.tables(false, r[0])
	l.tables(true, r[1])
}

func same(args string) rule { return rule{args, args} }

// TestUserRules puts a user's rule on the host and sends packets.
func TestUserRules(t *testing.T) {
	published := packet{name: "from out", from: "out", proto: "tcp", to: at(ext0, "8080"), answers: "c1a", sees: out}
	fromFar := packet{name: "from far", from: "far", proto: "tcp", to: at(ext1, "8080"), answers: "c1a", sees: far}
	other := packet{name: "another port", from: "out", proto: "tcp", to: at(ext0, "8083"), answers: "c1b", sees: out}
	egress := packet{name: "egress", from: "c1a", proto: "tcp", to: at(out, "80"), answers: "out"}
	refused := func(p packet) packet { p.answers, p.sees = "", [2]string{}; return p }

	tests := []struct {
		name  string
		rules []rule
		want  []packet
	}{
		{
			"DOCKER-USER: only one source",
			[]rule{
				{"-I DOCKER-USER -i ext0 ! -s 192.0.2.77 -j DROP", "-I DOCKER-USER -i ext0 ! -s 2001:db8:1::77 -j DROP"},
				same("-I DOCKER-USER -m conntrack --ctstate ESTABLISHED -j RETURN"),
			},
			[]packet{refused(published), fromFar, refused(other), egress},
		},
		{
			"DOCKER-USER: the source that is allowed",
			[]rule{
				{"-I DOCKER-USER -i ext0 ! -s 192.0.2.9 -j DROP", "-I DOCKER-USER -i ext0 ! -s 2001:db8:1::9 -j DROP"},
			},
			[]packet{published, fromFar, other, egress},
		},
		{
			"DOCKER-USER: iprange",
			[]rule{
				{"-I DOCKER-USER -m iprange --src-range 192.0.2.5-192.0.2.20 -j DROP", "-I DOCKER-USER -m iprange --src-range 2001:db8:1::5-2001:db8:1::20 -j DROP"},
			},
			[]packet{refused(published), fromFar},
		},
		{
			"DOCKER-USER: the container's port",
			[]rule{same("-I DOCKER-USER -i ext0 -p tcp --dport 80 -j DROP")},
			[]packet{refused(published), refused(other), fromFar},
		},
		{
			"DOCKER-USER: an ACCEPT does not open what is closed",
			[]rule{same("-I DOCKER-USER -j ACCEPT")},
			[]packet{
				published,
				{name: "direct", from: "out", proto: "tcp", to: at(c1a, "7000")},
				{name: "between networks", from: "c1a", proto: "tcp", to: at(c2, "7000")},
			},
		},
		{
			"DRAWBRIDGE-USER: the published port",
			[]rule{same("-t mangle -A DRAWBRIDGE-USER -p tcp --dport 8080 -j DROP")},
			[]packet{refused(published), refused(fromFar), other, egress},
		},
	}
	for _, variant := range variants {
		for _, test := range tests {
			t.Run(variant[1:]+"/"+test.name, func(t *testing.T) {
				l := newLab(t, variant)
				policyDrop(l)
				l.sync(labState())
				for _, r := range test.rules {
					l.rule(r)
				}
				l.sync(labState())
				l.check(t, test.want, func(packet) bool { return true })
			})
		}
	}
}

// TestGuard: the host forwards for containers, and otherwise only what somebody accepts.
func TestGuard(t *testing.T) {
	through := packet{name: "through the host", from: "far", proto: "tcp", to: at(out, "80"), answers: "out", sees: far}
	through6 := packet{name: "through the host, udp", from: "out", proto: "udp", to: at(far, "80"), answers: "far", sees: out}
	refused := func(p packet) packet { p.answers, p.sees = "", [2]string{}; return p }
	containers := []packet{
		{name: "egress", from: "c1a", proto: "tcp", to: at(out, "80"), answers: "out", sees: ext0},
		{name: "published", from: "out", proto: "tcp", to: at(ext0, "8080"), answers: "c1a", sees: out},
		{name: "egress of Docker's bridge", from: "d", proto: "tcp", to: at(out, "80"), answers: "out", sees: d},
	}
	toDocker := packet{name: "to Docker's bridge", from: "out", proto: "tcp", to: at(d, "80"), answers: "d", sees: out}
	// With br_netfilter, what stays within somebody's bridge comes by; what leaves it is still refused.
	bridged := []packet{
		{name: "within virbr0", from: "g1", proto: "tcp", to: at(g2, "7000"), answers: "g2", sees: g1},
		{name: "within virbr0, udp", from: "g2", proto: "udp", to: at(g1, "7000"), answers: "g1", sees: g2},
	}
	leaving := []packet{
		{name: "out of virbr0", from: "g1", proto: "udp", to: at(out, "80"), answers: "out", sees: g1},
		{name: "into virbr0", from: "out", proto: "tcp", to: at(g1, "7000"), answers: "g1", sees: out},
	}
	unguarded := append([]packet{through, through6, toDocker}, leaving...)
	guarded := []packet{refused(through), refused(through6), refused(toDocker), refused(leaving[0]), refused(leaving[1])}
	tests := []struct {
		name  string
		guard bool
		rules []rule
		want  []packet
	}{
		{"off", false, nil, unguarded},
		{"on", true, nil, guarded},
		{"accepted in DOCKER-USER", true, []rule{same("-A DOCKER-USER -i ext1 -j ACCEPT"), same("-A DOCKER-USER -o ext1 -j ACCEPT")}, []packet{through, through6, refused(toDocker)}},
		{"br_netfilter, off", false, nil, unguarded},
		{"br_netfilter, on", true, nil, guarded},
		{"accepted in an inserted rule", true, []rule{same("-I FORWARD -p tcp -j ACCEPT")}, []packet{through, toDocker, refused(through6)}},
		{"accepted in an appended rule", true, []rule{same("-A FORWARD -p tcp -j ACCEPT")}, []packet{through, toDocker, refused(through6)}},
	}
	for _, variant := range variants {
		for _, test := range tests {
			t.Run(variant[1:]+"/"+test.name, func(t *testing.T) {
				l := newLab(t, variant)
				if strings.HasPrefix(test.name, "br_netfilter") {
					l.showBridged()
				} else {
					l.backend.host.BridgeSysctls = "/no/such/directory"
				}
				for _, r := range []string{"-N DOCKER-ISOLATION-STAGE-2", "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP"} {
					l.both(r)
				}
				s := labState()
				s.Forwarding = state.Forwarding{V4: test.guard, V6: test.guard}
				l.sync(s)
				for _, r := range test.rules {
					l.rule(r)
				}
				l.sync(s) // an appended rule comes after the guard until now
				l.check(t, slices.Concat(test.want, bridged, containers), func(packet) bool { return true })
			})
		}
	}
}
