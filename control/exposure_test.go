package control

import (
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestMode: each port says how clients come to it, and who said so.
func TestMode(t *testing.T) {
	guarded := Publishing{
		Modes: state.Modes{Inherit: state.PublishLearned, Auto: state.PublishLearned}, InheritWhy: "--publish is auto: ufw is active", AutoWhy: "ufw is active",
	}
	iptables := guarded
	iptables.NoLearning = "iptables has no set for it"
	unasked := guarded
	unasked.Unasked4 = "no CAP_BPF"
	const nobody = "; nobody is served, since DOCKER-USER cannot be asked: no CAP_BPF"
	strict := byFlag
	strict.Modes.Strict = true
	noRules := Publishing{InheritWhy: "--publish", NoRules4: "--iptables=false", NoRules6: "--ip6tables=false"}
	const kept = ": no rule would keep drawbridge.publish.from and drawbridge.publish.iface"
	const ofContainer, ofNetwork, sctp = "drawbridge.publish of the container", "drawbridge.publish of the network", "; no socket of the host can serve SCTP"
	for _, c := range []struct {
		publishing        Publishing
		network, endpoint state.Publish
		port              state.Port
		mode, why         string
	}{
		{byFlag, "", "", state.Port{Proto: state.TCP, HostPort: 80}, "dnat", "--publish"},
		{byFlag, "host", "", state.Port{Proto: state.TCP, HostPort: 80}, "host", ofNetwork},
		{byFlag, "host", "dnat", state.Port{Proto: state.TCP, HostPort: 80}, "dnat", ofContainer},
		{guarded, "", "", state.Port{Proto: state.TCP, HostPort: 80}, "learned", "--publish is auto: ufw is active"},
		{guarded, "auto", "", state.Port{Proto: state.TCP, HostPort: 80}, "learned", ofNetwork + " is auto: ufw is active"},
		{guarded, "", "auto", state.Port{Proto: state.TCP, HostPort: 80}, "learned", ofContainer + " is auto: ufw is active"},
		{guarded, "", "", state.Port{Proto: state.SCTP, HostPort: 80}, "dnat", "--publish is auto: ufw is active" + sctp},
		{guarded, "auto", "", state.Port{Proto: state.SCTP, HostPort: 80}, "dnat", ofNetwork + " is auto: ufw is active" + sctp},
		{iptables, "", "", state.Port{Proto: state.TCP, HostPort: 80}, "host", "--publish is auto: ufw is active; learned: iptables has no set for it"},
		{iptables, "host", "", state.Port{Proto: state.TCP, HostPort: 80}, "host", ofNetwork},
		{strict, "dnat", "", state.Port{Proto: state.TCP, HostPort: 80}, "host", ofNetwork + "; firewalld refuses translated ports (StrictForwardPorts=yes)"},
		{strict, "dnat", "", state.Port{Proto: state.SCTP, HostPort: 80}, "dnat", ofNetwork},
		{strict, "host", "", state.Port{Proto: state.TCP, HostPort: 80}, "host", ofNetwork},
		{guarded, "localhost", "", state.Port{Proto: state.SCTP, HostPort: 80}, "localhost", ofNetwork},
		{guarded, "", "", state.Port{Proto: state.TCP, HostIP: addr("127.0.0.1"), HostPort: 80}, "localhost", "published on a loopback address"},
		{guarded, "", "", state.Port{Proto: state.TCP, HostIP: addr("0.0.0.0")}, "routed", "gateway mode of the network, where the host's INPUT rules are not asked"},
		{guarded, "", "localhost", state.Port{Proto: state.TCP, HostIP: addr("0.0.0.0")}, "localhost", ofContainer},
		{unasked, "", "", state.Port{Proto: state.TCP, HostIP: addr("0.0.0.0"), HostPort: 80}, "learned", "--publish is auto: ufw is active" + nobody},
		{unasked, "host", "", state.Port{Proto: state.TCP, HostIP: addr("0.0.0.0"), HostPort: 80}, "host", ofNetwork + nobody},
		{unasked, "dnat", "", state.Port{Proto: state.TCP, HostIP: addr("0.0.0.0"), HostPort: 80}, "dnat", ofNetwork},
		{unasked, "host", "", state.Port{Proto: state.TCP, HostIP: addr("::"), HostPort: 80}, "host", ofNetwork},
		{noRules, "", "", state.Port{Proto: state.TCP, HostIP: addr("0.0.0.0"), HostPort: 80}, "localhost", "--iptables=false" + kept},
		{noRules, "", "", state.Port{Proto: state.TCP, HostIP: addr("::"), HostPort: 80}, "localhost", "--ip6tables=false" + kept},
		{noRules, "", "localhost", state.Port{Proto: state.TCP, HostPort: 80}, "localhost", ofContainer},
	} {
		n := web
		n.Exposure = state.Exposure{Publish: c.network, From: "192.0.2.0/24", Links: "eth0"}
		e := endpoint("epaaaaaaaaaa0000", n, "10.0.0.2/24", "fd00::2/64", c.port)
		e.Exposure.Publish = c.endpoint
		row := Ports(state.Snapshot{Networks: []state.Network{n}, Endpoints: []state.Endpoint{e}}, c.publishing)[0]
		if row.Mode != c.mode || row.Why != c.why {
			t.Errorf("network %q, container %q, %s: %s, since %s; not %s, since %s", c.network, c.endpoint, c.port, row.Mode, row.Why, c.mode, c.why)
		}
		if limited := row.From == "192.0.2.0/24" && row.Interfaces == "eth0"; limited != (c.mode != "localhost") {
			t.Errorf("%s: from %q by %q", c.port, row.From, row.Interfaces)
		}
	}
}

// TestModeWithoutRules: a proxy serves whoever comes.
func TestModeWithoutRules(t *testing.T) {
	e := endpoint("epaaaaaaaaaa0000", web, "10.0.0.2/24", "fd00::2/64", state.Port{Proto: state.TCP, HostPort: 80})
	s := state.Snapshot{Networks: []state.Network{web}, Endpoints: []state.Endpoint{e}}
	for _, row := range Ports(s, Publishing{NoRules4: "--iptables=false", NoRules6: "--iptables=false"}) {
		if row.Mode != "host" || row.Why != "--iptables=false: a proxy serves all" {
			t.Errorf("%s: %s, since %s", row.HostAddress, row.Mode, row.Why)
		}
	}
}

// TestModeOfOtherFamily: a proxy serves whoever comes to an address of a family that the container lacks, if anybody may.
func TestModeOfOtherFamily(t *testing.T) {
	const crossed = "the container has no address of this family: a proxy serves all"
	unasked := Publishing{InheritWhy: "--publish", Modes: state.Modes{Inherit: state.PublishHost}, Unasked6: "no CAP_BPF"}
	for _, c := range []struct {
		publishing Publishing
		network    state.Exposure
		mode, why  string
	}{
		{byFlag, state.Exposure{}, "host", crossed},
		{byFlag, state.Exposure{Publish: "learned"}, "host", crossed},
		{unasked, state.Exposure{}, "host", crossed}, // whom nobody is asked about
		{byFlag, state.Exposure{Publish: "localhost"}, "localhost", "drawbridge.publish of the network"},
		{Publishing{NoRules6: "--ip6tables=false"}, state.Exposure{From: "::/0"}, "localhost", "--ip6tables=false: no rule would keep drawbridge.publish.from and drawbridge.publish.iface"},
	} {
		n := web
		n.Exposure = c.network
		e := endpoint("epaaaaaaaaaa0000", n, "10.0.0.2/24", "", state.Port{Proto: state.TCP, HostIP: addr("::"), HostPort: 80})
		rows := Ports(state.Snapshot{Networks: []state.Network{n}, Endpoints: []state.Endpoint{e}}, c.publishing)
		if len(rows) != 1 || rows[0].Mode != c.mode || rows[0].Why != c.why {
			t.Errorf("%+v: %+v, want %s, since %s", c.network, rows, c.mode, c.why)
		}
	}
}
