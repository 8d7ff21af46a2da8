//go:build kernel

package firewalltest

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// rule is a command for each family.
type rule [2]string

func (l *Lab) rule(r rule) {
	l.T.Helper()
	l.Tables(false, r[0])
	l.Tables(true, r[1])
}

func same(args string) rule { return rule{args, args} }

// UserRules puts a user's rule on the host and sends Packets.
func UserRules(t *testing.T, variant string, backend Maker) {
	published := Packet{Name: "from out", From: "out", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Out}
	fromFar := Packet{Name: "from far", From: "far", Proto: "tcp", To: At(Ext1, "8080"), Answers: "c1a", Sees: Far}
	other := Packet{Name: "another port", From: "out", Proto: "tcp", To: At(Ext0, "8083"), Answers: "c1b", Sees: Out}
	egress := Packet{Name: "egress", From: "c1a", Proto: "tcp", To: At(Out, "80"), Answers: "out"}
	refused := func(p Packet) Packet { p.Answers, p.Sees = "", [2]string{}; return p }

	tests := []struct {
		name  string
		rules []rule
		want  []Packet
	}{
		{
			"DOCKER-USER: only one source",
			[]rule{
				{"-I DOCKER-USER -i ext0 ! -s 192.0.2.77 -j DROP", "-I DOCKER-USER -i ext0 ! -s 2001:db8:1::77 -j DROP"},
				same("-I DOCKER-USER -m conntrack --ctstate ESTABLISHED -j RETURN"),
			},
			[]Packet{refused(published), fromFar, refused(other), egress},
		},
		{
			"DOCKER-USER: the source that is allowed",
			[]rule{
				{"-I DOCKER-USER -i ext0 ! -s 192.0.2.9 -j DROP", "-I DOCKER-USER -i ext0 ! -s 2001:db8:1::9 -j DROP"},
			},
			[]Packet{published, fromFar, other, egress},
		},
		{
			"DOCKER-USER: iprange",
			[]rule{
				{"-I DOCKER-USER -m iprange --src-range 192.0.2.5-192.0.2.20 -j DROP", "-I DOCKER-USER -m iprange --src-range 2001:db8:1::5-2001:db8:1::20 -j DROP"},
			},
			[]Packet{refused(published), fromFar},
		},
		{
			"DOCKER-USER: the container's port",
			[]rule{same("-I DOCKER-USER -i ext0 -p tcp --dport 80 -j DROP")},
			[]Packet{refused(published), refused(other), fromFar},
		},
		{
			"DOCKER-USER: an ACCEPT does not open what is closed",
			[]rule{same("-I DOCKER-USER -j ACCEPT")},
			[]Packet{
				published,
				{Name: "direct", From: "out", Proto: "tcp", To: At(C1a, "7000")},
				{Name: "between networks", From: "c1a", Proto: "tcp", To: At(C2, "7000")},
			},
		},
		{
			"nat PREROUTING: an own destination",
			[]rule{{"-t nat -I PREROUTING -d 192.0.2.1 -p tcp --dport 8080 -j DNAT --to-destination 10.1.0.3:80", "-t nat -I PREROUTING -d 2001:db8:1::1 -p tcp --dport 8080 -j DNAT --to-destination [fd00:1::3]:80"}},
			[]Packet{{Name: "from out", From: "out", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1b", Sees: Out}, fromFar, egress},
		},
		{
			"nat POSTROUTING: an own source",
			[]rule{{"-t nat -I POSTROUTING -s 10.1.0.0/24 -o ext0 -j SNAT --to-source 198.51.100.1", "-t nat -I POSTROUTING -s fd00:1::/64 -o ext0 -j SNAT --to-source 2001:db8:2::1"}},
			[]Packet{{Name: "egress", From: "c1a", Proto: "tcp", To: At(Out, "80"), Answers: "out", Sees: Ext1}, published},
		},
		{
			"DRAWBRIDGE-USER: the published port",
			[]rule{same("-t mangle -A DRAWBRIDGE-USER -p tcp --dport 8080 -j DROP")},
			[]Packet{refused(published), refused(fromFar), other, egress},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := New(t, variant)
			b := backend(l)
			PolicyDrop(l)
			l.Sync(b, State())
			for _, r := range test.rules {
				l.rule(r)
			}
			l.Sync(b, State())
			l.Check(t, test.want, func(Packet) bool { return true })
		})
	}
}

// Guard: the host forwards for containers, and otherwise only what somebody accepts.
func Guard(t *testing.T, variant string, backend Maker) {
	through := Packet{Name: "through the host", From: "far", Proto: "tcp", To: At(Out, "80"), Answers: "out", Sees: Far}
	through6 := Packet{Name: "through the host, udp", From: "out", Proto: "udp", To: At(Far, "80"), Answers: "far", Sees: Out}
	refused := func(p Packet) Packet { p.Answers, p.Sees = "", [2]string{}; return p }
	containers := []Packet{
		{Name: "egress", From: "c1a", Proto: "tcp", To: At(Out, "80"), Answers: "out", Sees: Ext0},
		{Name: "published", From: "out", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Out},
		{Name: "egress of Docker's bridge", From: "d", Proto: "tcp", To: At(Out, "80"), Answers: "out", Sees: D},
	}
	toDocker := Packet{Name: "to Docker's bridge", From: "out", Proto: "tcp", To: At(D, "80"), Answers: "d", Sees: Out}
	// With br_netfilter, what stays within somebody's bridge comes by; what leaves it is still refused.
	bridged := []Packet{
		{Name: "within virbr0", From: "g1", Proto: "tcp", To: At(G2, "7000"), Answers: "g2", Sees: G1},
		{Name: "within virbr0, udp", From: "g2", Proto: "udp", To: At(G1, "7000"), Answers: "g1", Sees: G2},
	}
	leaving := []Packet{
		{Name: "out of virbr0", From: "g1", Proto: "udp", To: At(Out, "80"), Answers: "out", Sees: G1},
		{Name: "into virbr0", From: "out", Proto: "tcp", To: At(G1, "7000"), Answers: "g1", Sees: Out},
	}
	unguarded := append([]Packet{through, through6, toDocker}, leaving...)
	guarded := []Packet{refused(through), refused(through6), refused(toDocker), refused(leaving[0]), refused(leaving[1])}
	tests := []struct {
		name  string
		guard bool
		rules []rule
		want  []Packet
	}{
		{"off", false, nil, unguarded},
		{"on", true, nil, guarded},
		{"accepted in DOCKER-USER", true, []rule{same("-A DOCKER-USER -i ext1 -j ACCEPT"), same("-A DOCKER-USER -o ext1 -j ACCEPT")}, []Packet{through, through6, refused(toDocker)}},
		{"br_netfilter, off", false, nil, unguarded},
		{"br_netfilter, on", true, nil, guarded},
		{"accepted in an inserted rule", true, []rule{same("-I FORWARD -p tcp -j ACCEPT")}, []Packet{through, toDocker, refused(through6)}},
		{"accepted in an appended rule", true, []rule{same("-A FORWARD -p tcp -j ACCEPT")}, []Packet{through, toDocker, refused(through6)}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := New(t, variant)
			if strings.HasPrefix(test.name, "br_netfilter") {
				l.ShowBridged()
			} else {
				l.BridgeSysctls = "/no/such/directory"
			}
			b := backend(l)
			for _, r := range []string{"-N DOCKER-ISOLATION-STAGE-2", "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP"} {
				l.Both(r)
			}
			s := State()
			s.Forwarding = state.Forwarding{V4: test.guard, V6: test.guard}
			l.Sync(b, s)
			for _, r := range test.rules {
				l.rule(r)
			}
			l.Sync(b, s) // an appended rule comes after the guard until now
			l.Check(t, slices.Concat(test.want, bridged, containers), func(Packet) bool { return true })
		})
	}
}
