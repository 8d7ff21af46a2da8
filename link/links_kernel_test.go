//go:build kernel

package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestPrepareMakesBridges(t *testing.T) {
	l := newLab(t)
	dual, four, six, inside := network(1), network(2), network(3), network(4)
	four.V6, four.MTU = state.Subnet{}, 0
	six.V4 = state.Subnet{}
	inside.Internal = true
	s := snapshot(dual, four, six, inside)
	l.prepare(s)
	tests := []struct {
		network   state.Network
		addresses string
		mtu       int
		group     uint32
		noIPv6    string
	}{
		{dual, "10.1.0.1/16 fd00:1::1/64", 1400, state.GroupBridge, "0"},
		{four, "10.2.0.1/16", 1500, state.GroupBridge, "1"},
		{six, "fd00:3::1/64", 1400, state.GroupBridge, "0"},
		{inside, "10.4.0.1/16 fd00:4::1/64", 1400, state.GroupInternal, "0"},
	}
	check := func(up bool) {
		t.Helper()
		for _, tt := range tests {
			link := l.link(tt.network.Bridge)
			a := link.Attrs()
			name := a.Name + " "
			l.same(name+"type", link.Type(), "bridge")
			l.same(name+"up", isUp(link), up)
			l.same(name+"alias", a.Alias, tt.network.Alias())
			l.same(name+"group", a.Group, tt.group)
			l.same(name+"MTU", a.MTU, tt.mtu)
			mac := state.GenerateMAC(string(tt.network.ID))
			l.same(name+"MAC", a.HardwareAddr.String(), mac.String())
			l.same(name+"addresses", l.addresses(a.Name), tt.addresses)
			l.same(name+"disable_ipv6", l.sysctl("net/ipv6/conf/"+a.Name+"/disable_ipv6"), tt.noIPv6)
			if tt.noIPv6 == "0" {
				l.same(name+"accept_ra", l.sysctl("net/ipv6/conf/"+a.Name+"/accept_ra"), "0")
				l.same(name+"accept_dad", l.sysctl("net/ipv6/conf/"+a.Name+"/accept_dad"), "0")
			}
		}
	}
	check(false)
	l.apply(s)
	check(true)
	if _, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.ParseIP("fd00:1::1")}); err != nil {
		t.Errorf("the IPv6 gateway address is not usable at once: %v", err)
	}
	l.same("ip_forward", l.sysctl(forwardV4), "0")
}

func TestPrepareMakesVeths(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 1)
	s := snapshot(n, e)
	l.prepare(s)
	host, peer := l.link(e.HostLink()), l.link(e.ContainerLink())
	l.same("host end up", isUp(host), false)
	l.same("host end alias", host.Attrs().Alias, e.Alias())
	l.same("host end group", host.Attrs().Group, state.GroupPort)
	l.same("host end master", host.Attrs().MasterIndex, l.link(n.Bridge).Attrs().Index)
	l.same("host end IPv6", l.sysctl("net/ipv6/conf/"+e.HostLink()+"/disable_ipv6"), "1")
	l.same("host end MTU", host.Attrs().MTU, 1400)
	l.same("peer up", isUp(peer), false)
	l.same("peer MAC", peer.Attrs().HardwareAddr.String(), e.MAC.String())
	l.same("peer MTU", peer.Attrs().MTU, 1400)
	l.same("peer group", peer.Attrs().Group, uint32(0))
	l.same("peer is the host end's", peer.Attrs().ParentIndex, host.Attrs().Index)
	l.apply(s)
	l.same("host end up", isUp(l.link(e.HostLink())), true)
	l.same("peer up", isUp(l.link(e.ContainerLink())), false)
	l.apply(snapshot(n))
	l.same("host end there", l.has(e.HostLink()), false)
	l.same("peer there", l.has(e.ContainerLink()), false)
	l.same("MTU of the bridge without ports", l.link(n.Bridge).Attrs().MTU, 1400)
}

func TestForwarding(t *testing.T) {
	for _, f := range []state.Forwarding{{}, {V4: true}, {V6: true}, {V4: true, V6: true}} {
		t.Run("", func(t *testing.T) {
			l := newLab(t)
			l.apply(snapshot(network(1), f))
			v4, v6, err := l.links.sysctl.forwarding()
			must(t, err)
			l.same("forwarding", state.Forwarding{V4: v4, V6: v6}, f)
		})
	}
	t.Run("not ours stays on", func(t *testing.T) {
		l := newLab(t)
		l.setSysctl(forwardV4, "1")
		l.apply(snapshot(network(1)))
		l.same("ip_forward", l.sysctl(forwardV4), "1")
	})
}

// TestSecondPassIsSilent: a pass that writes makes the kernel tell of it at once. The kernel
// also tells of carriers, in its own time, so that not every silent pass has silence around it.
func TestSecondPassIsSilent(t *testing.T) {
	l := newLab(t)
	l.setSysctl("net/bridge/bridge-nf-call-iptables", "1")
	four := network(2)
	four.V6, four.MTU = state.Subnet{}, 0
	published := endpoint(1, 2)
	published.Ports = []state.Port{{Proto: state.TCP, HostPort: 80, ContainerPort: 80}}
	s := snapshot(network(1), four, endpoint(1, 1), published, endpoint(2, 3), state.Forwarding{V4: true, V6: true})
	l.apply(s)
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
	must(t, err)
	defer socket.Close()
	var events int
	for range 50 {
		l.apply(s)
		if events = l.eventsUntilNow(socket); events == 0 {
			return
		}
	}
	t.Errorf("each pass over the same state writes: %d events during the last", events)
}

// eventsUntilNow counts what the socket has received before an event that it causes.
func (l *lab) eventsUntilNow(socket *nl.NetlinkSocket) (events int) {
	l.Helper()
	const neighbour = "10.99.0.1/32"
	addr, err := netlink.ParseAddr(neighbour)
	must(l, err)
	lo := l.link("lo")
	must(l, netlink.AddrAdd(lo, addr))
	for {
		messages, _, err := socket.Receive()
		must(l, err)
		for i, m := range messages {
			if m.Header.Type == unix.RTM_NEWADDR && nl.DeserializeIfAddrmsg(m.Data).Index == uint32(lo.Attrs().Index) {
				must(l, netlink.AddrDel(lo, addr))
				l.drainAddr(socket, messages[i+1:])
				return events
			}
			if m.Header.Type != unix.RTM_NEWROUTE { // of the address just added
				events++
			}
		}
	}
}

// drainAddr reads up to the end of what eventsUntilNow caused.
func (l *lab) drainAddr(socket *nl.NetlinkSocket, messages []syscall.NetlinkMessage) {
	l.Helper()
	for {
		for _, m := range messages {
			if m.Header.Type == unix.RTM_DELADDR {
				return
			}
		}
		var err error
		messages, _, err = socket.Receive()
		must(l, err)
	}
}

func TestStaleLinksGo(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 1)
	l.apply(snapshot(n, network(2), e, endpoint(1, 2), endpoint(2, 3)))
	// As after a crash between the creation of a link and its alias.
	for name, group := range map[string]uint32{"crashed0": state.GroupBridge, "crashed1": state.GroupInternal, "crashed2": state.GroupPort} {
		link := bridgeNamed(name)
		link.Group = group
		l.foreign(link)
	}
	half := endpoint(1, 4)
	pair := vethNamed(half.HostLink(), half.ContainerLink())
	pair.Group = state.GroupPort
	l.foreign(pair)
	l.apply(snapshot(n, e, half))
	for name, want := range map[string]bool{
		"br1": true, e.HostLink(): true, e.ContainerLink(): true, "br2": false,
		endpoint(1, 2).HostLink(): false, endpoint(1, 2).ContainerLink(): false, endpoint(2, 3).HostLink(): false,
		"crashed0": false, "crashed1": false, "crashed2": false, half.HostLink(): true, half.ContainerLink(): true,
	} {
		l.same(name+" is there", l.has(name), want)
	}
	l.same("alias after a crash", l.link(half.HostLink()).Attrs().Alias, half.Alias())
}

// TestForeignLinksStay: whatever has a name or a group that we would want.
func TestForeignLinksStay(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(2, 1)
	stray := endpoint(2, 2)
	inTheWay := endpoint(1, 3)
	l.foreign(bridgeNamed(n.Bridge), "192.0.2.1/24")
	l.foreign(vethNamed(e.HostLink(), "cable0"))
	l.foreign(vethNamed("cable1", stray.ContainerLink()))
	l.foreign(bridgeNamed("docker0"), "172.17.0.1/16")
	grouped := bridgeNamed("grouped")
	grouped.Group = state.GroupBridge
	must(t, netlink.LinkSetAlias(l.foreign(grouped), "of somebody"))
	portless := bridgeNamed("aliased") // our words but not our group
	must(t, netlink.LinkSetAlias(l.foreign(portless), n.Alias()))
	before := l.everything()

	s := snapshot(n, network(2), e, stray, inTheWay)
	for _, plane := range []interface {
		Apply(context.Context, state.Snapshot) error
	}{l.links.Prepare(), l.links.Activate()} {
		err := plane.Apply(t.Context(), s)
		for _, want := range []struct {
			scope state.Scope
			text  string
		}{
			{state.Scope{Network: n.ID}, "a link named br1 exists already on this host: choose another name"},
			{state.Scope{Network: e.Network, Endpoint: e.ID}, "a link named " + e.HostLink() + " exists already"},
			{state.Scope{Network: e.Network, Endpoint: stray.ID}, stray.ContainerLink() + " exists already"},
		} {
			got := want.scope.Select(err)
			if _, prepares := plane.(Prepare); !prepares {
				l.same("failure of Activate", got, nil)
			} else if got == nil || !strings.Contains(got.Error(), want.text) {
				t.Errorf("error %v, want %q", got, want.text)
			}
		}
		if got := (state.Scope{Network: network(2).ID}).Select(err); got != nil {
			t.Errorf("network 2 fails with the others: %v", got)
		}
	}
	after := l.everything()
	for name, want := range before {
		l.same(name, after[name], want)
	}
	l.same("network 2 is up", isUp(l.link("br2")), true)
	l.same("an endpoint hangs on somebody's bridge", l.has(inTheWay.HostLink()), false)
	_, err := l.links.Purge()
	must(t, err)
	l.same("after purge", len(l.everything()), len(before))
}

// everything describes each link of the host, by name. Whether one is running is left out: the kernel finds that out up to a second later.
func (l *lab) everything() map[string]string {
	l.Helper()
	links, err := netlink.LinkList()
	must(l, err)
	out := map[string]string{}
	for _, link := range links {
		a := link.Attrs()
		out[a.Name] = strings.Join([]string{
			link.Type(), a.Alias, a.HardwareAddr.String(), (a.Flags &^ net.FlagRunning).String(),
			l.addresses(a.Name), l.sysctl("net/ipv6/conf/" + a.Name + "/disable_ipv6"),
			l.sysctl(routeLocalnet(a.Name)), fmt.Sprint(l.links.guarded(link)),
		}, "|")
	}
	return out
}

func TestBridgeComesBack(t *testing.T) {
	l := newLab(t)
	n, waiting, joined := network(1), endpoint(1, 1), endpoint(1, 2)
	joined.Sandbox = "/run/docker/netns/x"
	l.apply(snapshot(n, waiting, endpoint(1, 2)))
	s := snapshot(n, waiting, joined)
	l.remove(n.Bridge)
	l.apply(s)
	bridge := l.link(n.Bridge)
	l.same("up", isUp(bridge), true)
	l.same("addresses", l.addresses(n.Bridge), "10.1.0.1/16 fd00:1::1/64")
	for _, e := range []state.Endpoint{waiting, joined} {
		l.same("master of "+e.HostLink(), l.link(e.HostLink()).Attrs().MasterIndex, bridge.Attrs().Index)
	}
}

// TestDamageIsRepaired: what somebody did to our links.
func TestDamageIsRepaired(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 1)
	s := snapshot(n, e)
	l.apply(s)
	want := l.everything()[n.Bridge]
	bridge, port := l.link(n.Bridge), l.link(e.HostLink())
	for name, damage := range map[string]struct {
		do   func() error
		says string
	}{
		"down":               {func() error { return netlink.LinkSetDown(bridge) }, "link br1 is down"},
		"MTU":                {func() error { return netlink.LinkSetMTU(bridge, 1300) }, "link br1 has the MTU 1300 and not 1400"},
		"group":              {func() error { return netlink.LinkSetGroup(bridge, 7) }, "link br1 is in device group 0x7 and not in 0xd12b0"}, // the alias alone is not ours
		"port off":           {func() error { return netlink.LinkSetNoMaster(port) }, "link " + e.HostLink() + " is no port of bridge br1"},
		"port down":          {func() error { return netlink.LinkSetDown(port) }, "link " + e.HostLink() + " is down"},
		"port's MTU":         {func() error { return netlink.LinkSetMTU(port, 1300) }, "link " + e.HostLink() + " has the MTU 1300 and not 1400"},
		"port's group":       {func() error { return netlink.LinkSetGroup(port, 7) }, "link " + e.HostLink() + " is in device group 0x7 and not in 0xd12b2"},
		"IPv6 off":           {func() error { return l.links.sysctl.write("net/ipv6/conf/br1/disable_ipv6", "1") }, "sysctl net.ipv6.conf.br1.disable_ipv6 is 1 and not 0"},
		"address gone":       {func() error { return netlink.AddrDel(bridge, address("10.1.0.1/16")) }, "link br1 lacks the address 10.1.0.1/16"},
		"address gone, IPv6": {func() error { return netlink.AddrDel(bridge, address("fd00:1::1/64")) }, "link br1 lacks the address fd00:1::1/64"},
		"address more":       {func() error { return netlink.AddrAdd(bridge, address("192.0.2.1/24")) }, "link br1 has the address 192.0.2.1/24, which is not its network's"},
		"address more, IPv6": {func() error { return netlink.AddrAdd(bridge, address("2001:db8::1/64")) }, "link br1 has the address 2001:db8::1/64, which is not its network's"},
	} {
		if err := damage.do(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		damaged := l.everything()
		l.same(name+": differences", strings.Contains(l.differences(s), damage.says), true)
		l.same(name+": looked at", fmt.Sprint(l.everything()), fmt.Sprint(damaged))
		l.same(name+": mended", strings.Contains(l.mended(s), damage.says), true)
		l.same(name+": differences after", l.differences(s), "")
		l.same(name, l.everything()[n.Bridge], want)
		l.same(name+": MTU", l.link(n.Bridge).Attrs().MTU, 1400)
		l.same(name+": group", l.link(n.Bridge).Attrs().Group, state.GroupBridge)
		p := l.link(e.HostLink()).Attrs()
		l.same(name+": port's master", p.MasterIndex, bridge.Attrs().Index)
		l.same(name+": port's MTU", p.MTU, 1400)
		l.same(name+": port's group", p.Group, state.GroupPort)
		l.same(name+": port up", p.Flags&net.FlagUp != 0, true)
	}
}

// TestLookAtNothing: what is not there is told, and is not made by looking.
func TestLookAtNothing(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 1)
	l.same("differences", l.differences(snapshot(n, e)), "link br1 is missing")
	if _, err := netlink.LinkByName(n.Bridge); err == nil {
		t.Error("a look made the bridge")
	}
	l.apply(snapshot(n, e))
	l.remove(n.Bridge)
	l.same("mended", l.mended(snapshot(n, e)), "link br1 is missing; link "+e.HostLink()+" is no port of bridge br1")
	l.same("left over", l.differences(state.Snapshot{}), "link br1 is left over; link "+e.HostLink()+" is left over")
	l.same("still there", l.link(n.Bridge).Attrs().Name, n.Bridge)
}

// differences tells what both planes find, sorted.
func (l *lab) differences(s state.Snapshot) string {
	l.Helper()
	prepare, err := l.links.Prepare().Inspect(l.Context(), s)
	must(l.T, err)
	activate, err := l.links.Activate().Inspect(l.Context(), s)
	must(l.T, err)
	return texts(append(prepare, activate...))
}

// mended applies the state and tells what both planes say that they found.
func (l *lab) mended(s state.Snapshot) string {
	l.Helper()
	must(l.T, l.links.Prepare().Apply(l.Context(), s))
	found := slices.Clone(l.links.Prepare().Found())
	must(l.T, l.links.Activate().Apply(l.Context(), s))
	return texts(append(found, l.links.Activate().Found()...))
}

func texts(found []state.Difference) string {
	var out []string
	for _, d := range found {
		out = append(out, d.Text)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func address(s string) *netlink.Addr {
	a, err := netlink.ParseAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

func TestVethOfContainer(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 1)
	l.apply(snapshot(n, e))
	index := l.link(e.HostLink()).Attrs().Index

	container := l.namespace()
	must(t, netlink.LinkSetNsFd(l.link(e.ContainerLink()), int(container)))
	inside, err := netlink.NewHandleAt(container)
	must(t, err)
	defer inside.Close()
	eth0, err := inside.LinkByName(e.ContainerLink())
	must(t, err)
	must(t, inside.LinkSetName(eth0, "eth0"))
	must(t, inside.LinkSetUp(eth0))

	joined := e
	joined.Sandbox = "/run/docker/netns/x"
	l.apply(snapshot(n, joined))
	l.apply(snapshot(n, e)) // Leave comes while the link is still inside
	l.same("host end is the same", l.link(e.HostLink()).Attrs().Index, index)

	must(t, inside.LinkSetDown(eth0))
	must(t, inside.LinkSetName(eth0, e.ContainerLink()))
	current, err := netns.Get()
	must(t, err)
	defer current.Close()
	must(t, inside.LinkSetNsFd(eth0, int(current)))
	l.apply(snapshot(n, e))
	l.same("peer is back", l.link(e.ContainerLink()).Attrs().HardwareAddr.String(), e.MAC.String())

	l.remove(e.HostLink())
	l.apply(snapshot(n, joined))
	l.same("the veth of a joined endpoint is made again", l.has(e.HostLink()), false)
	l.apply(snapshot(n, e))
	l.same("the veth of a waiting endpoint is made again", l.has(e.HostLink()), true)
}

// TestHairpin goes on only where bridged packets pass iptables.
func TestHairpin(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 1)
	plain := endpoint(1, 2)
	e.Ports = []state.Port{{Proto: state.TCP, HostPort: 80, ContainerPort: 80}}
	for _, tt := range []struct {
		v4, v6 string
		ports  bool
		want   bool
	}{
		{"0", "0", true, false},
		{"1", "0", true, true},
		{"0", "1", true, true},
		{"1", "1", false, false},
		{"1", "1", true, true},
		{"0", "0", true, false},
	} {
		l.setSysctl("net/bridge/bridge-nf-call-iptables", tt.v4)
		l.setSysctl("net/bridge/bridge-nf-call-ip6tables", tt.v6)
		endpoint := e
		if !tt.ports {
			endpoint.Ports = nil
		}
		l.apply(snapshot(n, endpoint, plain))
		info, err := netlink.LinkGetProtinfo(l.link(e.HostLink()))
		must(t, err)
		l.same("hairpin", info.Hairpin, tt.want)
		info, err = netlink.LinkGetProtinfo(l.link(plain.HostLink()))
		must(t, err)
		l.same("hairpin of an endpoint without ports", info.Hairpin, false)
	}
}

func TestFitNetwork(t *testing.T) {
	l := newLab(t)
	l.apply(snapshot(network(1)))
	l.foreign(bridgeNamed("docker0"), "172.17.0.1/16", "fd17::1/64", "169.254.7.1/16", "fe80::7/64")
	tunnel := l.foreign(vethNamed("tun0", "tun1"))
	must(t, netlink.AddrAdd(tunnel, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.1/32")), Peer: ipNet(netip.MustParsePrefix("198.51.100.0/24"))}))
	tests := []struct {
		name, bridge, v4, v6, want string
	}{
		{"free", "web", "10.9.0.0/16", "fd09::/64", ""},
		{"name taken", "docker0", "10.9.0.0/16", "", "bridge docker0 is Docker's own: choose another name"},
		{"name of ours", "br1", "10.9.0.0/16", "", ""},
		{"same subnet", "web", "172.17.0.0/16", "", "subnet 172.17.0.0/16 overlaps 172.17.0.0/16, which is on this host's link docker0"},
		{"subnet inside", "web", "172.17.9.0/24", "", "overlaps 172.17.0.0/16"},
		{"subnet around", "web", "172.0.0.0/8", "", "overlaps 172.17.0.0/16"},
		{"same subnet, IPv6", "web", "10.9.0.0/16", "fd17::/64", "subnet fd17::/64 overlaps fd17::/64, which is on this host's link docker0"},
		{"subnet inside, IPv6", "web", "", "fd17::8000/113", "overlaps fd17::/64"},
		{"behind a tunnel", "web", "198.51.100.128/25", "", "overlaps 198.51.100.0/24, which is on this host's link tun0"},
		{"end of a tunnel", "web", "192.0.2.0/24", "", "overlaps 192.0.2.1/32"},
		{"of ours", "web", "10.1.0.0/16", "fd00:1::/64", ""},
		{"link-local", "web", "169.254.0.0/16", "", ""},
	}
	for _, tt := range tests {
		n := state.Network{ID: state.NetworkID(id(9)), Bridge: tt.bridge}
		if tt.v4 != "" {
			n.V4.Prefix = netip.MustParsePrefix(tt.v4)
		}
		if tt.v6 != "" {
			n.V6.Prefix = netip.MustParsePrefix(tt.v6)
		}
		_, err := l.links.FitNetwork(t.Context(), n)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestPurge(t *testing.T) {
	l := newLab(t)
	before := l.everything()
	l.apply(snapshot(network(1), network(2), endpoint(1, 1), endpoint(2, 2)))
	bridges, err := l.links.Purge()
	must(t, err)
	if got := strings.Join(bridges, " "); got != "br1 br2" && got != "br2 br1" {
		t.Errorf("bridges %q", got)
	}
	l.same("links left", len(l.everything()), len(before))
	bridges, err = l.links.Purge()
	must(t, err)
	l.same("bridges the second time", len(bridges), 0)
}

func TestWatch(t *testing.T) {
	l := newLab(t)
	reasons, stop := l.watching(l.links.Watch)
	// Each is reported again a few times, so that what was seen before says nothing.
	known := map[string]bool{"bridge probe appeared": true, "bridge probe was removed": true, "bridge last appeared": true}
	expect := func(want string) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for {
			select {
			case got := <-reasons:
				if known[strings.TrimSuffix(got, " a moment ago")] {
					continue
				}
				l.same("reason", got, want)
				known[got] = true
				return
			case <-timeout:
				t.Fatalf("%q is not reported", want)
			}
		}
	}
	// Until the subscription is there.
	for seen := false; !seen; {
		l.foreign(bridgeNamed("probe"))
		l.remove("probe")
		select {
		case <-reasons:
			seen = true
			l.foreign(bridgeNamed("last"))
			for r := ""; r != "bridge last appeared"; r = <-reasons {
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
	n, e := network(1), endpoint(1, 1)
	l.apply(snapshot(n, e)) // of its own making it says nothing
	l.foreign(vethNamed("cable0", "cable1"))
	l.foreign(bridgeNamed("docker0"), "172.17.0.1/16")
	expect("bridge docker0 appeared")
	l.up("docker0") // again, but known
	must(t, netlink.LinkSetMaster(l.link("cable0"), bridgeWithIndex(l.link("docker0"))))
	must(t, netlink.LinkSetMaster(l.link("cable0"), bridgeWithIndex(l.link(n.Bridge))))
	expect("the ports of " + n.Bridge + " changed")
	l.remove("cable0")
	l.remove("docker0")
	expect("bridge docker0 was removed")
	l.remove(e.HostLink())
	expect("link " + e.HostLink() + " was removed")
	l.remove(n.Bridge)
	expect("link " + n.Bridge + " was removed")
	t.Run("and again a moment later", func(t *testing.T) {
		want := "link " + n.Bridge + " was removed a moment ago"
		for range len(again) {
			for got := ""; got != want; {
				select {
				case got = <-reasons:
				case <-time.After(10 * time.Second):
					t.Fatalf("%q is not reported again", want)
				}
			}
		}
	})
	stop()
}

func bridgeWithIndex(link netlink.Link) *netlink.Bridge {
	return &netlink.Bridge{LinkAttrs: *link.Attrs()}
}

// TestTogether lets passes and questions of the driver use the sockets at the same time, while
// links come and go beside them, which interrupts dumps.
func TestTogether(t *testing.T) {
	l := newLab(t)
	ns, err := netns.Get()
	must(t, err)
	defer ns.Close()
	stop, ended := make(chan struct{}), make(chan error, 2)
	go func() {
		h, err := netlink.NewHandleAt(ns)
		for err == nil {
			select {
			case <-stop:
				h.Close()
				ended <- nil
				return
			default:
				err = errors.Join(h.LinkAdd(bridgeNamed("busy")), h.LinkDel(bridgeNamed("busy")))
			}
		}
		ended <- err
	}()
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
				if _, err := l.links.FitNetwork(context.Background(), network(9)); err != nil {
					ended <- err
					return
				}
			}
		}
	}()
	for i := range 20 {
		l.apply(snapshot(network(1), endpoint(1, i), endpoint(1, i+1)))
	}
	close(stop)
	must(t, errors.Join(<-ended, <-ended))
}

// TestManyEndpoints prints how long passes take; machines differ, so it asserts nothing.
func TestManyEndpoints(t *testing.T) {
	l := newLab(t)
	parts := []any{network(1), network(2)}
	for i := range 200 {
		parts = append(parts, endpoint(1+i%2, i))
	}
	s := snapshot(parts...)
	for _, pass := range []string{"first pass", "second pass"} {
		began := time.Now()
		l.apply(s)
		t.Logf("200 endpoints on 2 networks, %s: %s", pass, time.Since(began).Round(time.Millisecond))
	}
	began := time.Now()
	l.apply(state.Snapshot{})
	t.Logf("their end: %s", time.Since(began).Round(time.Millisecond))
	l.same("links left", len(l.everything()), 1)
}

// TestLost: which endpoints are in no container.
func TestLost(t *testing.T) {
	l := newLab(t)
	n, inside, back, gone := network(1), endpoint(1, 1), endpoint(1, 2), endpoint(1, 3)
	all := []state.Endpoint{inside, back, gone}
	l.apply(snapshot(n, inside, back, gone))
	must(t, netlink.LinkSetNsFd(l.link(inside.ContainerLink()), int(l.namespace())))
	l.remove(gone.HostLink())
	lost, err := l.links.Lost(t.Context(), all)
	must(t, err)
	l.same("lost", slices.EqualFunc(lost, []state.Endpoint{back, gone}, func(a, b state.Endpoint) bool { return a.ID == b.ID }), true)
}

// TestForeignBridges: neither ours nor what is no bridge.
func TestForeignBridges(t *testing.T) {
	l := newLab(t)
	l.apply(snapshot(network(1), endpoint(1, 1)))
	l.foreign(bridgeNamed("docker0"))
	l.foreign(vethNamed("br-lan", "br-lan-peer"))
	got, err := l.links.ForeignBridges()
	must(t, err)
	l.same("foreign bridges", slices.Equal(got, []string{"docker0"}), true)
}
