package driver

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

func subnet(prefix, gateway string) state.Subnet {
	return state.Subnet{Prefix: netip.MustParsePrefix(prefix), Gateway: netip.MustParseAddr(gateway)}
}

// TestCreateNetwork reads the requests of the engine versions.
func TestCreateNetwork(t *testing.T) {
	v4, v6 := subnet("10.1.0.0/24", "10.1.0.1"), subnet("fd00:1::/64", "fd00:1::1")
	bridge := state.DefaultBridgeName(state.NetworkID(id(1)))
	tests := []struct {
		name, options, pool4, pool6 string
		settings                    Options
		want                        state.Network // less the id
	}{
		{
			"20.10, IPv4", `{"com.docker.network.enable_ipv6": false, "com.docker.network.generic": {}}`, pool4(1), `[]`,
			Options{},
			state.Network{Bridge: bridge, V4: v4},
		},
		{
			"20.10, null instead of no pools", `{"com.docker.network.enable_ipv6": false, "com.docker.network.generic": {}}`, pool4(1), `null`,
			Options{},
			state.Network{Bridge: bridge, V4: v4},
		},
		{
			"20.10, dual", `{"com.docker.network.enable_ipv6": true, "com.docker.network.generic": {}}`, pool4(1), pool6(1),
			Options{},
			state.Network{Bridge: bridge, V4: v4, V6: v6},
		},
		{
			"28, dual", `{"com.docker.network.enable_ipv4": true, "com.docker.network.enable_ipv6": true, "com.docker.network.generic": {}}`, pool4(1), pool6(1),
			Options{},
			state.Network{Bridge: bridge, V4: v4, V6: v6},
		},
		{
			"28, --ipv4=false", `{"com.docker.network.enable_ipv4": false, "com.docker.network.enable_ipv6": true}`, `null`, pool6(1),
			Options{},
			state.Network{Bridge: bridge, V6: v6},
		},
		{
			"IPv4 off with a pool", `{"com.docker.network.enable_ipv4": false, "com.docker.network.enable_ipv6": true}`, pool4(1), pool6(1),
			Options{},
			state.Network{Bridge: bridge, V6: v6},
		},
		{
			"IPv6 off with a pool", `{"com.docker.network.enable_ipv6": false}`, pool4(1), pool6(1),
			Options{},
			state.Network{Bridge: bridge, V4: v4},
		},
		{
			"IPv6 off with pools that make no sense", `{"com.docker.network.enable_ipv6": false}`, pool4(1), `[null, {"Pool": "x"}]`,
			Options{},
			state.Network{Bridge: bridge, V4: v4},
		},
		{"no switches", `{}`, pool4(1), pool6(1), Options{}, state.Network{Bridge: bridge, V4: v4, V6: v6}},
		{
			"switches null", `{"com.docker.network.enable_ipv4": null, "com.docker.network.enable_ipv6": null, "com.docker.network.generic": null}`,
			pool4(1), `null`,
			Options{},
			state.Network{Bridge: bridge, V4: v4},
		},
		{"options null", `null`, pool4(1), `null`, Options{}, state.Network{Bridge: bridge, V4: v4}},
		{"switch as a string", `{"com.docker.network.enable_ipv6": "false"}`, pool4(1), pool6(1), Options{}, state.Network{Bridge: bridge, V4: v4}},
		{"internal", `{"com.docker.network.internal": true}`, pool4(1), `null`, Options{}, state.Network{Bridge: bridge, V4: v4, Internal: true}},
		{"--config-from sends internal as false", `{"com.docker.network.internal": false}`, pool4(1), `null`, Options{}, state.Network{Bridge: bridge, V4: v4}},
		{"bridge name", generic(`{"com.docker.network.bridge.name": "web0"}`), pool4(1), `null`, Options{}, state.Network{Bridge: "web0", V4: v4}},
		{"longest bridge name", generic(`{"com.docker.network.bridge.name": "a.b-c_def012345"}`), pool4(1), `null`, Options{}, state.Network{Bridge: "a.b-c_def012345", V4: v4}},
		{"MTU", generic(`{"com.docker.network.driver.mtu": "1400"}`), pool4(1), `null`, Options{MTU: 9000}, state.Network{Bridge: bridge, V4: v4, MTU: 1400}},
		{"MTU of the daemon", generic(`{}`), pool4(1), `null`, Options{MTU: 9000}, state.Network{Bridge: bridge, V4: v4, MTU: 9000}},
		{"MTU of the kernel", generic(`{"com.docker.network.driver.mtu": "0"}`), pool4(1), `null`, Options{MTU: 9000}, state.Network{Bridge: bridge, V4: v4}},
		{
			"defaults, spelled out", generic(`{"com.docker.network.bridge.enable_icc": "true", "com.docker.network.bridge.enable_ip_masquerade": "1",
			"com.docker.network.bridge.gateway_mode_ipv4": "nat", "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
			"com.docker.network.bridge.inhibit_ipv4": "false", "com.docker.network.container_iface_prefix": "eth", "com.docker.network.bridge.default_bridge": "false",
			"com.docker.network.advertise_addr_nmsgs": "3", "com.docker.network.advertise_addr_ms": "1000"}`), pool4(1), `null`,
			Options{},
			state.Network{Bridge: bridge, V4: v4, HostIP: netip.IPv4Unspecified(), LinkPrefix: "eth"},
		},
		{"ICC off", generic(`{"com.docker.network.bridge.enable_icc": "false"}`), pool4(1), `null`, Options{}, state.Network{Bridge: bridge, V4: v4, NoICC: true}},
		{"ICC off by the daemon", `{}`, pool4(1), `null`, Options{NoICC: true}, state.Network{Bridge: bridge, V4: v4, NoICC: true}},
		{"ICC on, off by the daemon", generic(`{"com.docker.network.bridge.enable_icc": "1"}`), pool4(1), `null`, Options{NoICC: true}, state.Network{Bridge: bridge, V4: v4}},
		{"no masquerade", generic(`{"com.docker.network.bridge.enable_ip_masquerade": "f"}`), pool4(1), `null`, Options{}, state.Network{Bridge: bridge, V4: v4, NoMasquerade: true}},
		{"no masquerade by the daemon", `{}`, pool4(1), `null`, Options{NoMasquerade: true}, state.Network{Bridge: bridge, V4: v4, NoMasquerade: true}},
		{
			"masquerade, off by the daemon", generic(`{"com.docker.network.bridge.enable_ip_masquerade": "true"}`), pool4(1), `null`,
			Options{NoMasquerade: true},
			state.Network{Bridge: bridge, V4: v4},
		},
		{"host binding", generic(`{"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}`), pool4(1), `null`, Options{}, state.Network{Bridge: bridge, V4: v4, HostIP: netip.MustParseAddr("127.0.0.1")}},
		{"host binding, IPv6", generic(`{"com.docker.network.bridge.host_binding_ipv4": "::1"}`), pool4(1), `null`, Options{}, state.Network{Bridge: bridge, V4: v4, HostIP: netip.IPv6Loopback()}},
		{"prefix of links", generic(`{"com.docker.network.container_iface_prefix": "web"}`), pool4(1), `null`, Options{}, state.Network{Bridge: bridge, V4: v4, LinkPrefix: "web"}},
		{
			"exposure", generic(`{"drawbridge.publish": "host", "drawbridge.publish.from": "2001:db8::/32 192.0.2.7, 192.0.2.0/24", "drawbridge.publish.iface": "eth0:wg0"}`), pool4(1), `null`,
			Options{},
			state.Network{Bridge: bridge, V4: v4, Exposure: state.Exposure{Publish: "host", From: "192.0.2.0/24,192.0.2.7/32,2001:db8::/32", Links: "eth0:wg0"}},
		},
		{
			"trusted links", generic(`{"com.docker.network.bridge.trusted_host_interfaces": "tailscale0:wg-home"}`), pool4(1), `null`,
			Options{},
			state.Network{Bridge: bridge, V4: v4, Trusted: "tailscale0:wg-home"},
		},
		{
			"per family", `{"com.docker.network.generic": {"com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected", "com.docker.network.bridge.gateway_mode_ipv6": "routed",
			"com.docker.network.host_ipv4": "192.0.2.1", "com.docker.network.host_ipv6": "2001:db8::1", "com.docker.network.bridge.inhibit_ipv4": "true"}}`, pool4(1), pool6(1),
			Options{},
			state.Network{
				Bridge: bridge,
				V4:     state.Subnet{Prefix: v4.Prefix, Gateway: v4.Gateway, Mode: state.ModeUnprotected, SNAT: netip.MustParseAddr("192.0.2.1"), NoAddress: true},
				V6:     state.Subnet{Prefix: v6.Prefix, Gateway: v6.Gateway, Mode: state.ModeRouted, SNAT: netip.MustParseAddr("2001:db8::1")},
			},
		},
		{
			"for a family that is not there", generic(`{"com.docker.network.bridge.gateway_mode_ipv6": "routed", "com.docker.network.host_ipv6": "2001:db8::1"}`), pool4(1), `null`,
			Options{},
			state.Network{Bridge: bridge, V4: v4},
		},
		{
			"isolated without a gateway", `{"com.docker.network.internal": true, "com.docker.network.generic": {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}}`,
			`[{"Pool": "10.1.0.0/24"}]`, `null`,
			Options{},
			state.Network{Bridge: bridge, Internal: true, V4: state.Subnet{Prefix: v4.Prefix, Mode: state.ModeIsolated}},
		},
		{
			"another router", `{}`, `[{"Pool": "10.1.0.0/24", "Gateway": "10.1.0.1/24", "AuxAddresses": {"DefaultGatewayIPv4": "10.1.0.9/24", "DefaultGatewayIPv6": "x"}}]`, `null`,
			Options{},
			state.Network{Bridge: bridge, V4: state.Subnet{Prefix: v4.Prefix, Gateway: v4.Gateway, Router: netip.MustParseAddr("10.1.0.9")}},
		},
		{"options of others", generic(`{"org.example.color": "blue", "mtu": "x"}`), pool4(1), `null`, Options{}, state.Network{Bridge: bridge, V4: v4}},
		{
			"auxiliary addresses", `{}`, `[{"AddressSpace": "x", "Pool": "10.1.0.0/24", "Gateway": "10.1.0.1/24", "AuxAddresses": {"a": "10.1.0.9/24"}}]`, `[]`,
			Options{},
			state.Network{Bridge: bridge, V4: v4},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.settings)
			b.ok(b.CreateNetwork(b.ctx(), createNetwork(t, 1, tt.options, tt.pool4, tt.pool6)))
			got, _ := b.network(1)
			tt.want.ID, tt.want.Made = state.NetworkID(id(1)), b.store.Run()
			if d := cmp.Diff(tt.want, got, byValue); d != "" {
				t.Errorf("network (-want +got):\n%s", d)
			}
		})
	}
}

func TestCreateNetworkRefuses(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	option := func(key, value string) string { return generic(`{"com.docker.network.` + key + `": ` + value + `}`) }
	tests := []struct {
		name, options, pool4, pool6 string
		want                        string
	}{
		{"no pools", `{}`, `null`, `null`, "neither an IPv4 nor an IPv6 subnet"},
		{"both families off", `{"com.docker.network.enable_ipv4": false, "com.docker.network.enable_ipv6": false}`, pool4(2), pool6(2), "neither an IPv4 nor an IPv6 subnet"},
		{"IPv6 on without a pool", `{"com.docker.network.enable_ipv6": true}`, pool4(2), `[]`, "the network has no IPv6 subnet: create it with --ipam-driver drawbridge"},
		{"IPv4 on without a pool", `{"com.docker.network.enable_ipv4": true, "com.docker.network.enable_ipv6": true}`, `null`, pool6(2), "the network has no IPv4 subnet"},
		{"several pools", `{}`, `[{"Pool": "10.2.0.0/24", "Gateway": "10.2.0.1/24"}, {"Pool": "10.3.0.0/24", "Gateway": "10.3.0.1/24"}]`, `null`, "one IPv4 subnet, not 2"},
		{"several pools, IPv6", `{}`, pool4(2), `[{"Pool": "fd02::/64"}, {"Pool": "fd03::/64"}]`, "one IPv6 subnet, not 2"},
		{"null pool", `{}`, `[null]`, `null`, "empty address pool"},
		{"null pool, IPv6", `{}`, pool4(2), `[null]`, "empty address pool"},
		{"empty pool", `{}`, `[{}]`, `null`, `address pool "" is not a prefix`},
		{"malformed pool", `{}`, pool("10.2.0/24", "10.2.0.1/24"), `null`, `address pool "10.2.0/24" is not a prefix`},
		{"oversized pool", `{}`, pool(long, "10.2.0.1/24"), `null`, `is not a prefix`},
		{"pool with host bits", `{}`, pool("10.2.0.9/24", "10.2.0.1/24"), `null`, "host bits set: write 10.2.0.0/24"},
		{"pool of the other family", `{}`, pool("fd02::/64", "fd02::1/64"), `null`, "is not an IPv4 prefix"},
		{"pool of the other family, IPv6", `{}`, pool4(2), pool("10.3.0.0/24", "10.3.0.1/24"), "is not an IPv6 prefix"},
		{"mapped pool", `{}`, pool4(2), pool("::ffff:10.3.0.0/120", "::ffff:10.3.0.1/120"), "is not an IPv6 prefix"},
		{"pool of the null IPAM", `{}`, `[{"AddressSpace": "null", "Pool": "0.0.0.0/0"}]`, `null`, "whole address space"},
		{"pool without a gateway", `{}`, `[{"Pool": "10.2.0.0/24"}]`, `null`, "has no gateway address: create the network with --ipam-driver drawbridge"},
		{"everything", `{}`, pool("0.0.0.0/0", "10.2.0.1/0"), `null`, "whole address space"},
		{"loopback", `{}`, pool("127.0.0.0/24", "127.0.0.1/24"), `null`, "loopback"},
		{"multicast, IPv6", `{}`, pool4(2), pool("ff02::/64", "ff02::1/64"), "multicast"},
		{"gateway without a length", `{}`, pool("10.2.0.0/24", "10.2.0.1"), `null`, "is not an address with a length"},
		{"gateway outside", `{}`, pool("10.2.0.0/24", "10.3.0.1/24"), `null`, "gateway 10.3.0.1 is outside the subnet 10.2.0.0/24"},
		{"gateway outside, IPv6", `{}`, pool4(2), pool("fd02::/64", "fd03::1/64"), "gateway fd03::1 is outside the subnet fd02::/64"},
		{"gateway of the other family", `{}`, pool("10.2.0.0/24", "fd02::1/64"), `null`, "outside the subnet"},
		{"gateway mapped", `{}`, pool("10.2.0.0/24", "::ffff:10.2.0.1/120"), `null`, "outside the subnet"},
		{"gateway with a zone", `{}`, pool4(2), pool("fe80::/64", "fe80::1%eth0/64"), "is not an address with a length"},
		{"same subnet as network 1", `{}`, pool4(1), `null`, "subnet 10.1.0.0/24 overlaps 10.1.0.0/24 of network " + id(1)[:12]},
		{"around the subnet of network 1", `{}`, pool("10.0.0.0/8", "10.0.0.1/8"), `null`, "subnet 10.0.0.0/8 overlaps 10.1.0.0/24"},
		{"inside the subnet of network 1, IPv6", `{}`, pool4(2), pool("fd00:1::8000/113", "fd00:1::8001/113"), "overlaps fd00:1::/64 of network"},

		{"bridge name taken", option("bridge.name", `"`+id(1)[:12]+`"`), pool4(2), `null`, ""},
		{"bridge name of network 1", option("bridge.name", `"br-`+id(1)[:12]+`"`), pool4(2), `null`, "is taken by network " + id(1)[:12]},
		{"bridge name empty", option("bridge.name", `""`), pool4(2), `null`, "must not be empty"},
		{"bridge name a command", option("bridge.name", `"a;b"`), pool4(2), `null`, "may contain letters"},
		{"bridge name a path", option("bridge.name", `"../x"`), pool4(2), `null`, "may contain letters"},
		{"bridge name with a slash", option("bridge.name", `"a/b"`), pool4(2), `null`, "may contain letters"},
		{"bridge name a wildcard", option("bridge.name", `"br+"`), pool4(2), `null`, "may contain letters"},
		{"bridge name an option", option("bridge.name", `"-j"`), pool4(2), `null`, "must begin with"},
		{"bridge name with a space", option("bridge.name", `"a b"`), pool4(2), `null`, "may contain letters"},
		{"bridge name with a line end", option("bridge.name", `"a\nb"`), pool4(2), `null`, "may contain letters"},
		{"bridge name with a zero", option("bridge.name", `"a\u0000b"`), pool4(2), `null`, "may contain letters"},
		{"bridge name of 16 characters", option("bridge.name", `"abcdefghijklmnop"`), pool4(2), `null`, "longer than 15 characters"},
		{"bridge name oversized", option("bridge.name", `"`+long+`"`), pool4(2), `null`, "longer than 15 characters"},
		{"bridge name lo", option("bridge.name", `"lo"`), pool4(2), `null`, "reserved"},
		{"bridge name all", option("bridge.name", `"all"`), pool4(2), `null`, "reserved"},
		{"bridge name default", option("bridge.name", `"default"`), pool4(2), `null`, "reserved"},
		{"bridge name dots", option("bridge.name", `".."`), pool4(2), `null`, "reserved"},

		{"MTU a word", option("driver.mtu", `"big"`), pool4(2), `null`, `com.docker.network.driver.mtu: "big" is not a number of bytes`},
		{"MTU negative", option("driver.mtu", `"-1"`), pool4(2), `null`, "is not a number of bytes"},
		{"MTU empty", option("driver.mtu", `""`), pool4(2), `null`, "is not a number of bytes"},
		{"MTU a fraction", option("driver.mtu", `"1400.5"`), pool4(2), `null`, "is not a number of bytes"},
		{"MTU beyond int", option("driver.mtu", `"99999999999999999999"`), pool4(2), `null`, "is not a number of bytes"},
		{"MTU too small", option("driver.mtu", `"67"`), pool4(2), `null`, "give 68 to 65535"},
		{"MTU too big", option("driver.mtu", `"65536"`), pool4(2), `null`, "give 68 to 65535"},
		{"MTU too small for IPv6", `{"com.docker.network.generic": {"com.docker.network.driver.mtu": "1279"}}`, pool4(2), pool6(2), "give 1280 to 65535"},
		{"MTU a number", option("driver.mtu", `1400`), pool4(2), `null`, "com.docker.network.driver.mtu must be a string"},

		{"options a list", `{"com.docker.network.generic": []}`, pool4(2), `null`, "must be an object of strings"},
		{"options a string", `{"com.docker.network.generic": "x"}`, pool4(2), `null`, "must be an object of strings"},
		{"option null", option("driver.mtu", `null`), pool4(2), `null`, "must be a string"},
		{"option of somebody else not a string", generic(`{"org.example": {}}`), pool4(2), `null`, "option org.example must be a string"},
		{"switch a number", `{"com.docker.network.enable_ipv6": 1}`, pool4(2), `null`, "enable_ipv6 must be true or false"},
		{"switch a word", `{"com.docker.network.internal": "maybe"}`, pool4(2), `null`, "internal must be true or false"},
		{"typing mistake", option("driver.mtuu", `"1400"`), pool4(2), `null`, "is unknown: did you mean com.docker.network.driver.mtu?"},
		{"typing mistake in the middle", option("brigde.name", `"x"`), pool4(2), `null`, "did you mean com.docker.network.bridge.name?"},
		{"typing mistake before the last word", generic(`{"drawbridge.mtu": "1400"}`), pool4(2), `null`, "did you mean com.docker.network.driver.mtu?"},
		{"nothing near", option("driver.overlay.vxlanid_list", `"1"`), pool4(2), `null`, "vxlanid_list is unknown: `drawbridge options` lists those of networks"},
		{"of containers", generic(`{"drawbridge.link": "db"}`), pool4(2), `null`, "is an option of containers: give it to `docker run --network name=NETWORK,driver-opt=drawbridge.link=…`"},
		{"of containers, misspelt", generic(`{"drawbridge.nam": "db"}`), pool4(2), `null`, "did you mean drawbridge.name, an option of containers"},
		{"of both, misspelt", generic(`{"drawbridge.publish.ifaces": "eth0"}`), pool4(2), `null`, "option drawbridge.publish.ifaces is unknown: did you mean drawbridge.publish.iface?"},
		{"of ours", generic(`{"drawbridge.colour": "x"}`), pool4(2), `null`, "option drawbridge.colour is unknown"},
		{"name oversized", generic(`{"com.docker.network.` + long + `": "x"}`), pool4(2), `null`, "is unknown"},
		{"ICC a word", option("bridge.enable_icc", `"no"`), pool4(2), `null`, `"no" is not true or false`},
		{"masquerade a word", option("bridge.enable_ip_masquerade", `"on"`), pool4(2), `null`, `"on" is not true or false`},
		{"gateway mode", option("bridge.gateway_mode_ipv6", `"route"`), pool4(2), `null`, `"route" is not one of nat, nat-unprotected, routed, isolated`},
		{"isolated, not internal", option("bridge.gateway_mode_ipv4", `"isolated"`), pool4(2), `null`, "add --internal"},
		{"host binding", option("bridge.host_binding_ipv4", `"localhost"`), pool4(2), `null`, `"localhost" is not an address of a host`},
		{"host binding, multicast", option("bridge.host_binding_ipv4", `"224.0.0.1"`), pool4(2), `null`, "is not an address of a host"},
		{"host binding, of one link", option("bridge.host_binding_ipv4", `"fe80::1"`), pool4(2), `null`, "is of one link alone"},
		{"host_ipv4 of IPv6", option("host_ipv4", `"2001:db8::1"`), pool4(2), `null`, "2001:db8::1 cannot be the source address of IPv4 packets"},
		{"host_ipv6 of IPv4, without IPv6", generic(`{"com.docker.network.host_ipv6": "1.2.3.4"}`), pool4(2), `null`, "1.2.3.4 cannot be the source address of IPv6 packets"},
		{"host_ipv6 mapped, without IPv6", generic(`{"com.docker.network.host_ipv6": "::ffff:1.2.3.4"}`), pool4(2), `null`, "cannot be the source address of IPv6 packets"},
		{"host_ipv4 of IPv6, without IPv4", generic(`{"com.docker.network.host_ipv4": "::1"}`), `null`, pool6(2), "::1 cannot be the source address of IPv4 packets"},
		{"host_ipv4 a word", option("host_ipv4", `"eth0"`), pool4(2), `null`, `"eth0" is not an IP address`},
		{"prefix of links too long", option("container_iface_prefix", `"abcdefghijklm"`), pool4(2), `null`, "up to 12 letters"},
		{"prefix of links a path", option("container_iface_prefix", `"../"`), pool4(2), `null`, "cannot begin the name of a link"},
		{"prefix of links empty", option("container_iface_prefix", `""`), pool4(2), `null`, "cannot begin the name of a link"},
		{"trusted links", option("bridge.trusted_host_interfaces", `"eth0::eth1"`), pool4(2), `null`, "must not be empty; a list of links is written eth0:eth1"},
		{"trusted links, a rule", option("bridge.trusted_host_interfaces", `"eth0 -j ACCEPT"`), pool4(2), `null`, "may contain letters"},
		{"publish", generic(`{"drawbridge.publish": "nat"}`), pool4(2), `null`, `drawbridge.publish: "nat" is not one of auto, dnat, host, learned, localhost`},
		{"publish, empty", generic(`{"drawbridge.publish": ""}`), pool4(2), `null`, `"" is not one of auto`},
		{"publish from a name", generic(`{"drawbridge.publish.from": "192.0.2.0/24,office"}`), pool4(2), `null`, `drawbridge.publish.from: "office" is no prefix; a list of them is written 192.0.2.0/24,2001:db8::/32`},
		{"publish from host bits", generic(`{"drawbridge.publish.from": "192.0.2.7/24"}`), pool4(2), `null`, "host bits set: write 192.0.2.0/24"},
		{"publish from nobody", generic(`{"drawbridge.publish.from": ","}`), pool4(2), `null`, "is no prefix"},
		{"publish by a link, a rule", generic(`{"drawbridge.publish.iface": "eth0 -j ACCEPT"}`), pool4(2), `null`, "may contain letters"},
		{"publish by lo", generic(`{"drawbridge.publish.iface": "lo"}`), pool4(2), `null`, "reserved"},
		{"publish by the host, routed", generic(`{"drawbridge.publish": "host", "com.docker.network.bridge.gateway_mode_ipv4": "routed"}`), pool4(2), `null`, "drawbridge.publish=host is not possible with gateway mode routed"},
		{"publish by the host, one family routed", `{"com.docker.network.generic": {"drawbridge.publish": "learned", "com.docker.network.bridge.gateway_mode_ipv6": "routed"}}`, pool4(2), pool6(2), "drawbridge.publish=learned is not possible with gateway mode routed"},
		{"publish by the host, routed without IPv6", generic(`{"drawbridge.publish": "host", "com.docker.network.bridge.gateway_mode_ipv6": "routed"}`), pool4(2), `null`, ""},
		{"publish for the host, routed", generic(`{"drawbridge.publish": "localhost", "com.docker.network.bridge.gateway_mode_ipv4": "routed"}`), pool4(2), `null`, ""},
		{"default bridge", option("bridge.default_bridge", `"true"`), pool4(2), `null`, "leave the option out"},
		{"announcements", option("advertise_addr_nmsgs", `"4"`), pool4(2), `null`, "is not a number from 0 to 3"},
		{"a flag as an option", option("internal", `"true"`), pool4(2), `null`, "docker network create has a flag for it"},
		{"router outside", `{}`, `[{"Pool": "10.2.0.0/24", "Gateway": "10.2.0.1/24", "AuxAddresses": {"DefaultGatewayIPv4": "10.3.0.9/24"}}]`, `null`, "default gateway 10.3.0.9 is outside the subnet"},
	}
	b := furnished(t)
	before := b.everything()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := b.CreateNetwork(b.ctx(), createNetwork(t, 2, tt.options, tt.pool4, tt.pool6))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				b.ok(b.deleteNetwork(2))
				return
			}
			refused(t, err, tt.want)
		})
	}
	b.same(before)
}

func TestCreateNetworkAgain(t *testing.T) {
	b := furnished(t)
	before := b.everything()
	other := newNetwork(t, 1)
	other.Options["com.docker.network.internal"] = true
	refused(t, b.CreateNetwork(b.ctx(), other), "exists already with other settings")
	b.host.check = errHost
	refused(t, b.CreateNetwork(b.ctx(), newNetwork(t, 2)), "said no")
	checks := b.host.checks
	refused(t, b.CreateNetwork(b.ctx(), createNetwork(t, 2, `{}`, pool4(1), `null`)), "overlaps 10.1.0.0/24 of network")
	if b.host.checks != checks {
		t.Error("the host is asked about a network that the state refuses")
	}
	b.same(before)
}

// TestForwarding says when the host's switches become ours to turn on.
func TestForwarding(t *testing.T) {
	tests := []struct {
		name             string
		options          string
		pool4, pool6     string
		settings         Options
		host4, host6     bool
		wanted4, wanted6 bool
	}{
		{"dual, both off", `{}`, pool4(1), pool6(1), Options{IPForward: true}, false, false, true, true},
		{"dual, IPv4 on already", `{}`, pool4(1), pool6(1), Options{IPForward: true}, true, false, false, true},
		{"both on already", `{}`, pool4(1), pool6(1), Options{IPForward: true}, true, true, false, false},
		{"IPv4 only", `{}`, pool4(1), `null`, Options{IPForward: true}, false, false, true, false},
		{"IPv6 only", `{}`, `null`, pool6(1), Options{IPForward: true}, false, false, false, true},
		{"internal", `{"com.docker.network.internal": true}`, pool4(1), pool6(1), Options{IPForward: true}, false, false, false, false},
		{"not wanted", `{}`, pool4(1), pool6(1), Options{}, false, false, false, false},
	}
	for _, tt := range tests {
		request := func() *network.CreateNetworkRequest { return createNetwork(t, 1, tt.options, tt.pool4, tt.pool6) }
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.settings)
			b.host.v4, b.host.v6 = tt.host4, tt.host6
			b.ok(b.CreateNetwork(b.ctx(), request()))
			want := state.Forwarding{V4: tt.wanted4, V6: tt.wanted6}
			if got := b.store.Snapshot().Forwarding; got != want {
				t.Errorf("claimed %+v, want %+v", got, want)
			}
			b.host.v4, b.host.v6 = true, true
			b.ok(b.deleteNetwork(1))
			if got := b.store.Snapshot().Forwarding; got != want {
				t.Errorf("after the network's end %+v, want %+v: forwarding stays on, and so must the guard", got, want)
			}
		})
		t.Run(tt.name+", fails", func(t *testing.T) {
			b := newBench(t, tt.settings)
			b.host.v4, b.host.v6 = tt.host4, tt.host6
			b.loop.fail = []error{errHost}
			refused(t, b.CreateNetwork(b.ctx(), request()), "said no")
			b.same(everything{Held: b.ports.all()})
		})
		t.Run(tt.name+", fails after it was turned on", func(t *testing.T) {
			b := newBench(t, tt.settings)
			b.host.v4, b.host.v6 = tt.host4, tt.host6
			b.loop.fail = []error{errHost}
			claimed := state.Forwarding{V4: tt.wanted4, V6: tt.wanted6}
			b.Driver.loop = turnOn{b}
			refused(t, b.CreateNetwork(b.ctx(), request()), "said no")
			if got := b.store.Snapshot().Forwarding; got != claimed {
				t.Errorf("claimed %+v, want %+v", got, claimed)
			}
		})
	}
}

// turnOn is a loop that carries out the claims.
type turnOn struct{ *bench }

func (l turnOn) Wait(ctx context.Context, revision uint64, scope state.Scope) error {
	f := l.store.Snapshot().Forwarding
	l.host.v4, l.host.v6 = l.host.v4 || f.V4, l.host.v6 || f.V6
	return l.bench.loop.Wait(ctx, revision, scope)
}

// TestForwardingOfAnother: a network that came while the claim was under way relies on it.
func TestForwardingOfAnother(t *testing.T) {
	b := newBench(t, Options{IPForward: true})
	b.loop.wait = func(context.Context) error {
		_, err := b.store.Update(b.ctx(), func(tx *store.Tx) error {
			n, err := b.parseNetwork(newNetwork(t, 2))
			tx.PutNetwork(n)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return errHost
	}
	refused(t, b.CreateNetwork(b.ctx(), newNetwork(t, 1)), "said no")
	if got := b.store.Snapshot().Forwarding; got != (state.Forwarding{V4: true, V6: true}) {
		t.Errorf("claimed %+v", got)
	}
}

func TestRestore(t *testing.T) {
	tests := []struct {
		name         string
		settings     Options
		boot         string
		host4, host6 bool
		endpoints    int
		want         state.Forwarding
	}{
		{"same boot", Options{IPForward: true}, "boot-1", true, true, 1, state.Forwarding{V4: true, V6: true, Boot: "boot-1"}},
		{"same boot, forwarding turned off since", Options{IPForward: true}, "boot-1", false, false, 1, state.Forwarding{V4: true, V6: true, Boot: "boot-1"}},
		{"same boot, no longer wanted", Options{}, "boot-1", true, true, 1, state.Forwarding{V4: true, V6: true, Boot: "boot-1"}},
		{"new boot", Options{IPForward: true}, "boot-2", false, false, 0, state.Forwarding{V4: true, V6: true, Boot: "boot-2"}},
		{"new boot, IPv4 on by the host", Options{IPForward: true}, "boot-2", true, false, 0, state.Forwarding{V6: true, Boot: "boot-2"}},
		{"new boot, not wanted", Options{}, "boot-2", false, false, 0, state.Forwarding{Boot: "boot-2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := furnished(t)
			b.options = tt.settings
			b.host.boot, b.host.v4, b.host.v6 = tt.boot, tt.host4, tt.host6
			for range 2 { // the second changes nothing
				b.ok(b.Restore(b.ctx()))
				s := b.store.Snapshot()
				if len(s.Networks) != 1 || len(s.Endpoints) != tt.endpoints || s.Forwarding != tt.want {
					t.Errorf("%d networks, %d endpoints, forwarding %+v", len(s.Networks), len(s.Endpoints), s.Forwarding)
				}
			}
		})
	}
	t.Run("links that advertised in the boot before", func(t *testing.T) {
		b := newBench(t, Options{IPForward: true})
		b.ok(b.Restore(b.ctx()))
		b.host.ra = "wan0:wan1"
		b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
		b.host.boot, b.host.ra = "boot-2", "wan1:wan2" // nothing has come from wan0 yet
		for range 2 {
			b.ok(b.Restore(b.ctx()))
			if got := b.store.Snapshot().Forwarding.RA; got != "wan0:wan1:wan2" {
				t.Errorf("listening to %s", got)
			}
			b.host.ra = ""
		}
		b.host.boot, b.host.v6 = "boot-3", true // the host forwards by itself now
		b.ok(b.Restore(b.ctx()))
		if got := b.store.Snapshot().Forwarding.RA; got != "" {
			t.Errorf("listening to %s", got)
		}
	})
	t.Run("wanted from now on", func(t *testing.T) {
		b := newBench(t, Options{})
		b.ok(b.Restore(b.ctx()))
		b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
		b.options.IPForward = true
		b.ok(b.Restore(b.ctx()))
		if got := b.store.Snapshot().Forwarding; got != (state.Forwarding{V4: true, V6: true, Boot: "boot-1"}) {
			t.Errorf("forwarding %+v", got)
		}
	})
	for name, fail := range map[string]func(*fakeHost){
		"no boot id":            func(h *fakeHost) { h.noBoot = errHost },
		"unreadable forwarding": func(h *fakeHost) { h.boot, h.forwarding = "boot-2", errHost },
	} {
		t.Run(name, func(t *testing.T) {
			b := furnished(t)
			before := b.everything()
			fail(b.host)
			refused(t, b.Restore(b.ctx()), "said no")
			b.same(before)
		})
	}
}

func TestCapabilities(t *testing.T) {
	b := newBench(t, Options{})
	c, err := b.GetCapabilities(b.ctx())
	b.ok(err)
	if d := cmp.Diff(&Capabilities{Scope: "local", ConnectivityScope: "local", GwAllocChecker: true}, c); d != "" {
		t.Error(d)
	}
	g, err := b.GwAllocCheck(b.ctx(), &GwAllocCheckRequest{})
	b.ok(err)
	if g.SkipIPv4 || g.SkipIPv6 {
		t.Errorf("gateways are not wanted: %+v", g)
	}
	g, err = b.GwAllocCheck(b.ctx(), &GwAllocCheckRequest{Options: map[string]any{
		"com.docker.network.generic": map[string]any{"com.docker.network.bridge.gateway_mode_ipv6": "isolated"},
	}})
	b.ok(err)
	if g.SkipIPv4 || !g.SkipIPv6 {
		t.Errorf("an IPv6 gateway is wanted where the host is not on the network: %+v", g)
	}
	_, err = b.AllocateNetwork(b.ctx(), &network.AllocateNetworkRequest{NetworkID: id(1)})
	refused(t, err, "create them with --scope local")
	b.ok(b.FreeNetwork(b.ctx(), &network.FreeNetworkRequest{NetworkID: id(1)}))
	b.ok(b.DiscoverNew(b.ctx(), &network.DiscoveryNotification{}))
	b.ok(b.DiscoverDelete(b.ctx(), &network.DiscoveryNotification{}))
	b.empty()
}
