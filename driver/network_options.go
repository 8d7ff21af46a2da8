package driver

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// NetworkOptions are the keys of `docker network create -o`.
func NetworkOptions() []Option { return optionsOf(networkOptions) }

// networkOptions are the keys, in the order in which people are shown them.
var networkOptions = slices.Concat(dockerNetworkOptions,
	exposureOptions(func(n *state.Network) *state.Exposure { return &n.Exposure }, "that of --publish", "all"))

var dockerNetworkOptions = []option[state.Network]{
	{Option{
		dockerPrefix + "bridge.name", "link name", "br-<12 of the network's id>",
		"Name of the bridge. A bridge that is there already is used as it is and stays when the network is removed.",
	}, func(n *state.Network, v string) error {
		n.Bridge = v
		return state.CheckLinkName(v)
	}},
	{Option{
		dockerPrefix + "driver.mtu", "bytes", "0",
		"MTU of the bridge and the containers' links. 0 takes that of the host's link with the default route, when the network is made.",
	}, func(n *state.Network, v string) error {
		mtu, err := strconv.Atoi(v)
		if err != nil || mtu < 0 {
			return fmt.Errorf("%q is not a number of bytes", state.Clip(v))
		}
		n.MTU = mtu
		return nil
	}},
	{Option{
		dockerPrefix + "bridge.enable_icc", "true|false", "true, or --icc",
		"Whether containers of the network reach each other. With false they do by published ports (unless br_netfilter is switched on) and by drawbridge.link only.",
	}, not(func(n *state.Network) *bool { return &n.NoICC })},
	{Option{
		dockerPrefix + "bridge.enable_ip_masquerade", "true|false", "true, or --ip-masq",
		"Whether containers leave the host with the host's address.",
	}, not(func(n *state.Network) *bool { return &n.NoMasquerade })},
	{Option{
		dockerPrefix + "host_ipv4", "IPv4 address", "",
		"Source address of what leaves the host, in place of that of the link by which it leaves.",
	}, source(func(n *state.Network) *state.Subnet { return &n.V4 }, state.CheckSource4)},
	{Option{
		dockerPrefix + "host_ipv6", "IPv6 address", "",
		"The same for IPv6.",
	}, source(func(n *state.Network) *state.Subnet { return &n.V6 }, state.CheckSource6)},
	{Option{
		dockerPrefix + "bridge.host_binding_ipv4", "address", "0.0.0.0, or --ip",
		"Host address of ports that are published without one: an IPv4 or an IPv6 address. 0.0.0.0 stands for all addresses of both families, :: for all IPv6 ones.",
	}, func(n *state.Network, v string) (err error) {
		n.HostIP, err = ParseHostIP(v)
		return err
	}},
	{Option{
		dockerPrefix + "bridge.gateway_mode_ipv4", strings.Join(state.GatewayModes(), "|"), "nat",
		"nat: published ports on the host's addresses. nat-unprotected: besides, containers are open to who can route to them. routed: nothing is translated, published ports are open at the containers' own addresses. isolated (with --internal): the host is not on the network.",
	}, mode(func(n *state.Network) *state.GatewayMode { return &n.V4.Mode })},
	{Option{
		dockerPrefix + "bridge.gateway_mode_ipv6", strings.Join(state.GatewayModes(), "|"), "nat",
		"The same for IPv6.",
	}, mode(func(n *state.Network) *state.GatewayMode { return &n.V6.Mode })},
	{Option{
		dockerPrefix + "bridge.inhibit_ipv4", "true|false", "false",
		"Keep the gateway's IPv4 address off the bridge: another machine on it has the address.",
	}, isTrue(func(n *state.Network) *bool { return &n.V4.NoAddress })},
	{Option{
		dockerPrefix + "bridge.trusted_host_interfaces", "link names, eth0:eth1", "",
		"Links of the host from which published ports may be reached at the containers' own addresses.",
	}, func(n *state.Network, v string) (err error) {
		n.Trusted, err = state.ParseLinkNames(v)
		return err
	}},
	{Option{
		dockerPrefix + "container_iface_prefix", "up to 12 letters", "eth",
		"Beginning of the names of links in containers; the engine adds a number.",
	}, func(n *state.Network, v string) error {
		n.LinkPrefix = v
		return checkLinkPrefix(v)
	}},
	{Option{
		dockerPrefix + "advertise_addr_nmsgs", "0 to 3", "3",
		"How often a container's address is announced to its neighbours. Done by Docker 28 and later itself.",
	}, engineNumber(0, 3)},
	{Option{
		dockerPrefix + "advertise_addr_ms", "100 to 2000", "1000",
		"Milliseconds between the announcements. Done by Docker 28 and later itself.",
	}, engineNumber(100, 2000)},
	{Option{
		dockerPrefix + "bridge.default_bridge", "false", "false",
		"Marks docker0, which no plugin can replace: only false is possible.",
	}, func(_ *state.Network, v string) error {
		if b, err := parseBool(v); err != nil || b {
			return fmt.Errorf("only Docker's own docker0 can be the default bridge: leave the option out")
		}
		return nil
	}},
}

func parseBool(v string) (bool, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("%q is not true or false", state.Clip(v))
	}
	return b, nil
}

func isTrue(field func(*state.Network) *bool) func(*state.Network, string) error {
	return func(n *state.Network, v string) (err error) {
		*field(n), err = parseBool(v)
		return err
	}
}

// not is for options whose default is true, while the zero value of a field is false.
func not(field func(*state.Network) *bool) func(*state.Network, string) error {
	return func(n *state.Network, v string) error {
		b, err := parseBool(v)
		*field(n) = !b
		return err
	}
}

// source checks an address though the network may not have its family.
func source(subnet func(*state.Network) *state.Subnet, check func(netip.Addr) error) func(*state.Network, string) error {
	return func(n *state.Network, v string) error {
		a, err := netip.ParseAddr(v)
		if err != nil {
			return fmt.Errorf("%q is not an IP address", state.Clip(v))
		}
		subnet(n).SNAT = a
		return check(a)
	}
}

func mode(field func(*state.Network) *state.GatewayMode) func(*state.Network, string) error {
	return func(n *state.Network, v string) (err error) {
		*field(n), err = state.ParseGatewayMode(v)
		return err
	}
}

// engineNumber is for what the engine does itself, for the networks of plugins too.
func engineNumber(low, high int) func(*state.Network, string) error {
	return func(_ *state.Network, v string) error {
		if i, err := strconv.Atoi(v); err != nil || i < low || i > high {
			return fmt.Errorf("%q is not a number from %d to %d", state.Clip(v), low, high)
		}
		return nil
	}
}

// ParseHostIP reads a default host address for published ports.
func ParseHostIP(v string) (netip.Addr, error) {
	a, err := netip.ParseAddr(v)
	if a = a.Unmap(); err != nil || a.Zone() != "" || a.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%q is not an address of a host", state.Clip(v))
	}
	if a.Is6() && a.IsLinkLocalUnicast() { // which means another host on each link
		return netip.Addr{}, fmt.Errorf("%q is of one link alone: give an address that the host has for all", state.Clip(v))
	}
	return a, nil
}

// maxLinkPrefix leaves room for a number of three digits (IFNAMSIZ is 16, with a final zero).
const maxLinkPrefix = 12

func checkLinkPrefix(v string) error {
	if err := state.CheckLinkName(v + "0"); err != nil || v == "" || len(v) > maxLinkPrefix {
		return fmt.Errorf("%q cannot begin the name of a link: give up to %d letters, such as eth", state.Clip(v), maxLinkPrefix)
	}
	return nil
}
