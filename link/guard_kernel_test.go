//go:build kernel

package link

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// loopbackLab is a host without any rule, with a network that leads loopback connections, and a container on it.
type loopbackLab struct {
	*lab
	n         state.Network
	e         state.Endpoint
	container netns.NsHandle
	told      []string // by Links
}

func newLoopbackLab(t *testing.T) *loopbackLab {
	l := &loopbackLab{lab: newLab(t), n: network(1), e: endpoint(1, 2)}
	l.container = l.namespace()
	l.links.RouteLocalnet = true
	l.links.Report = func(reason string) { l.told = append(l.told, reason) }
	l.n.V6 = state.Subnet{}
	l.e.Addr6 = netip.Prefix{}
	l.apply(snapshot(l.n, l.e))
	must(t, netlink.LinkSetNsFd(l.link(l.e.ContainerLink()), int(l.container)))
	l.inside(l.container, func() { l.up(l.e.ContainerLink()) })
	return l
}

func (l *loopbackLab) localnet() string { return l.sysctl(routeLocalnet(l.n.Bridge)) }

// unguard takes the guard away, as whoever uses tc may.
func (l *loopbackLab) unguard(port string) {
	l.Helper()
	q := l.links.traffic(unix.RTM_DELQDISC, unix.NLM_F_ACK, l.link(port))
	q.msg.Handle, q.msg.Parent = clsactHandle, netlink.HANDLE_CLSACT
	_, err := q.Execute(unix.NETLINK_ROUTE, 0)
	must(l, err)
}

// send sends a frame from the container.
func (l *loopbackLab) send(frame []byte) {
	l.Helper()
	l.inside(l.container, func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(l, err)
		defer unix.Close(fd)
		must(l, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.link(l.e.ContainerLink()).Attrs().Index}))
	})
}

// frame is one from the container to the bridge; types are those of its tags and of what it carries.
func (l *loopbackLab) frame(payload []byte, types ...uint16) []byte {
	f := append(append([]byte(nil), l.link(l.n.Bridge).Attrs().HardwareAddr...), l.e.MAC[:]...)
	for i, kind := range types {
		f = binary.BigEndian.AppendUint16(f, kind)
		if i < len(types)-1 {
			f = append(f, 0, 0) // a tag of no VLAN
		}
	}
	return append(f, payload...)
}

// datagram is a packet of UDP to port 9.
func datagram(from, to string) []byte {
	udp := append(binary.BigEndian.AppendUint16(nil, 1000), 0, 9, 0, 10, 0, 0, 'h', 'i') // no checksum
	ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, addr4(from)...), addr4(to)...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum))
	return append(ip, udp...)
}

func addr4(text string) []byte { return netip.MustParseAddr(text).AsSlice() }

// question asks by ARP who has an address.
func (l *loopbackLab) question(from, of string) []byte {
	q := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, l.e.MAC[:]...)
	return append(append(append(q, addr4(from)...), make([]byte, 6)...), addr4(of)...)
}

// TestGuard sends to the host's loopback addresses, and from them, what a container can make, and no rule is there.
func TestGuard(t *testing.T) {
	const tag, tag2, ip, arp = unix.ETH_P_8021Q, unix.ETH_P_8021AD, unix.ETH_P_IP, unix.ETH_P_ARP
	for _, bridged := range []string{"0", "1"} {
		t.Run("br_netfilter "+bridged, func(t *testing.T) {
			l := newLoopbackLab(t)
			if _, err := os.Stat("/proc/sys/net/bridge"); err == nil {
				l.setSysctl("net/bridge/bridge-nf-call-iptables", bridged)
			} else if bridged == "1" {
				t.Skip("the kernel has no br_netfilter")
			}
			l.same("route_localnet", l.localnet(), "1")
			// Without, what has an address of the host as its source is refused by that alone.
			l.setSysctl("net/ipv4/conf/"+l.n.Bridge+"/accept_local", "1")
			server, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 9})
			must(t, err)
			defer server.Close()
			// What reaches the host does so within microseconds, but perhaps on a busy machine.
			patience := func(want bool) time.Duration {
				if want {
					return 5 * time.Second
				}
				return 50 * time.Millisecond
			}
			received := func(want bool, payload []byte, types ...uint16) bool {
				t.Helper()
				l.send(l.frame(payload, types...))
				must(t, server.SetReadDeadline(time.Now().Add(patience(want))))
				var b [8]byte
				_, _, err := server.ReadFrom(b[:])
				return err == nil
			}
			answered := func(want bool, payload []byte, types ...uint16) bool {
				t.Helper()
				var fd int
				l.inside(l.container, func() {
					var err error
					fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(arp)))
					must(t, err)
				})
				defer unix.Close(fd)
				wait := unix.NsecToTimeval(patience(want).Nanoseconds())
				must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
				l.send(l.frame(payload, types...))
				var b [64]byte
				for {
					n, _, err := unix.Recvfrom(fd, b[:], 0)
					if err != nil {
						return false
					}
					if n >= 8 && b[7] == 2 {
						return true
					}
				}
			}
			own := l.e.Addr4.Addr().String()
			gateway := l.n.V4.Gateway.String()
			for deadline := time.Now().Add(5 * time.Second); !received(false, datagram(own, gateway), ip); {
				if time.Now().After(deadline) {
					t.Fatal("the link does not come up")
				}
			}
			tests := []struct {
				name    string
				reaches func(bool, []byte, ...uint16) bool
				payload []byte
				types   []uint16
				without bool // the guard, it reaches the host
				with    bool
			}{
				{"to the gateway", received, datagram(own, gateway), []uint16{ip}, true, true},
				{"to the gateway, tagged", received, datagram(own, gateway), []uint16{tag, ip}, true, true},
				{"to the gateway, tagged twice", received, datagram(own, gateway), []uint16{tag, tag, ip}, true, true},
				{"to 127.0.0.1", received, datagram(own, "127.0.0.1"), []uint16{ip}, true, false},
				{"to 127.9.9.9", received, datagram(own, "127.9.9.9"), []uint16{ip}, true, false},
				{"tagged", received, datagram(own, "127.0.0.1"), []uint16{tag, ip}, true, false},
				{"tagged by a provider", received, datagram(own, "127.0.0.1"), []uint16{tag2, ip}, true, false},
				{"tagged twice", received, datagram(own, "127.0.0.1"), []uint16{tag, tag, ip}, true, false},
				{"tagged twice, by a provider", received, datagram(own, "127.0.0.1"), []uint16{tag2, tag, ip}, true, false},
				{"tagged twice, by a provider within", received, datagram(own, "127.0.0.1"), []uint16{tag, tag2, ip}, true, false},
				{"tagged three times", received, datagram(own, "127.0.0.1"), []uint16{tag, tag, tag, ip}, true, false},
				{"from 127.0.0.1", received, datagram("127.0.0.1", gateway), []uint16{ip}, true, false},
				{"from 127.0.0.1, tagged twice", received, datagram("127.0.0.1", gateway), []uint16{tag, tag, ip}, true, false},
				{"from and to 127.0.0.1", received, datagram("127.0.0.1", "127.0.0.1"), []uint16{ip}, true, false},
				{"ARP for the gateway", answered, l.question(own, gateway), []uint16{arp}, true, true},
				{"ARP for 127.0.0.1", answered, l.question(own, "127.0.0.1"), []uint16{arp}, true, false},
				{"ARP for 127.0.0.1, tagged twice", answered, l.question(own, "127.0.0.1"), []uint16{tag, tag, arp}, true, false},
				{"ARP from 127.0.0.1", answered, l.question("127.0.0.1", gateway), []uint16{arp}, true, false},
			}
			for _, tt := range tests {
				if got := tt.reaches(tt.with, tt.payload, tt.types...); got != tt.with {
					t.Errorf("%s: %v, want %v", tt.name, got, tt.with)
				}
			}
			l.unguard(l.e.HostLink())
			for _, tt := range tests {
				if got := tt.reaches(tt.without, tt.payload, tt.types...); got != tt.without {
					t.Errorf("%s, without the guard: %v, want %v", tt.name, got, tt.without)
				}
			}
		})
	}
}

// TestGuardIsMended: whatever somebody does to a guard, the next whole pass makes it as it was, and events tell of it.
func TestGuardIsMended(t *testing.T) {
	l := newLoopbackLab(t)
	reasons, stop := l.watching(l.links.Watch)
	name := l.e.HostLink()
	for seen := false; !seen; { // until the subscription is there
		l.unguard(name)
		l.apply(snapshot(l.n, l.e))
		select {
		case <-reasons:
			seen = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	for what, harm := range map[string]func(){
		"no qdisc":  func() { l.unguard(name) },
		"no filter": func() { l.tc("filter", "del", "dev", name, "ingress") },
		"another program": func() {
			l.tc("filter", "replace", "dev", name, "ingress", "pref", "1", "handle", "0xd0c", "protocol", "all", "bpf", "da", "bytecode", "1,6 0 0 0")
		},
		"another qdisc, with a filter of its own": func() {
			l.unguard(name)
			l.tc("qdisc", "add", "dev", name, "ingress")
			l.tc("filter", "add", "dev", name, "ingress", "pref", "9", "protocol", "ip", "u32", "match", "u32", "0", "0", "flowid", "1:1")
		},
	} {
		for len(reasons) > 0 {
			<-reasons
		}
		harm()
		if l.links.guarded(l.link(name)) {
			t.Errorf("%s: still guarded", what)
		}
		if what != "another program" { // of which nobody is told that anything went
			select {
			case got := <-reasons:
				l.same(what, got, "link "+name+" lost a filter")
			case <-time.After(5 * time.Second):
				t.Errorf("%s: no event", what)
			}
		}
		l.apply(snapshot(l.n, l.e))
		if !l.links.guarded(l.link(name)) {
			t.Errorf("%s: not guarded again", what)
		}
		l.same(what, l.localnet(), "1")
	}
	stop()
	l.same("reasons to tell of", len(l.told), 0)
}

// tc is what somebody else does.
func (l *loopbackLab) tc(args ...string) {
	l.Helper()
	if out, err := exec.Command("tc", args...).CombinedOutput(); err != nil {
		l.Fatalf("tc %v: %v: %s", args, err, out)
	}
}

// TestGuardOfOthers: filters of others stay, and where there is no place for ours the bridge is closed.
func TestGuardOfOthers(t *testing.T) {
	l := newLoopbackLab(t)
	name := l.e.HostLink()
	l.tc("filter", "add", "dev", name, "ingress", "pref", "7", "protocol", "ip", "u32", "match", "u32", "0", "0", "flowid", "1:1")
	l.tc("filter", "del", "dev", name, "ingress", "pref", "1")
	l.apply(snapshot(l.n, l.e))
	out, err := exec.Command("tc", "filter", "show", "dev", name, "ingress").CombinedOutput()
	must(t, err)
	if text := string(out); !strings.Contains(text, "pref 7 u32") || !strings.Contains(text, "pref 1 bpf") {
		t.Errorf("filters: %s", text)
	}

	l.tc("filter", "del", "dev", name, "ingress", "pref", "1")
	l.tc("filter", "add", "dev", name, "ingress", "pref", "1", "protocol", "ip", "u32", "match", "u32", "0", "0", "flowid", "1:1")
	for range 2 {
		must(t, l.links.Prepare().Apply(t.Context(), snapshot(l.n, l.e)))
		l.same("closed ahead of the firewall", l.localnet(), "0")
		must(t, l.links.Activate().Apply(t.Context(), snapshot(l.n, l.e)))
		l.same("and after it", l.localnet(), "0")
	}
	l.same("leads", l.links.LeadsLoopback(l.n), false)
	if len(l.told) != 1 || !strings.Contains(l.told[0], "no filter (bpf)") || l.links.Unguarded()[l.n.ID] != l.told[0] {
		t.Errorf("told %q, unguarded %q", l.told, l.links.Unguarded())
	}
	l.tc("filter", "del", "dev", name, "ingress", "pref", "1")
	l.apply(snapshot(l.n, l.e))
	l.same("open again", l.localnet(), "1")
	l.same("unguarded", len(l.links.Unguarded()), 0)
}

// TestNoClassifier: on a kernel that lacks the filter the bridge stays closed. The reason is told once, however many links there are.
func TestNoClassifier(t *testing.T) {
	l := newLab(t)
	l.links.RouteLocalnet, l.links.classifier = true, "nobpf"
	var told []string
	l.links.Report = func(reason string) { told = append(told, reason) }
	n, one, two := network(1), endpoint(1, 2), endpoint(1, 3)
	must(t, l.links.Prepare().Apply(t.Context(), snapshot(n, one)))
	must(t, l.links.Activate().Apply(t.Context(), snapshot(n, one)))
	l.same("closed", l.sysctl(routeLocalnet(n.Bridge)), "0")
	l.setSysctl(routeLocalnet(n.Bridge), "1")
	l.follow(snapshot(n, one), snapshot(n, one, two))
	l.same("closed again", l.sysctl(routeLocalnet(n.Bridge)), "0")
	l.same("leads", l.links.LeadsLoopback(n), false)
	if len(told) != 1 || !strings.Contains(told[0], "no such file or directory") {
		t.Errorf("told %q", told)
	}
}

// TestForeignPort: what somebody else puts on a bridge of ours is not ours to guard.
func TestForeignPort(t *testing.T) {
	l := newLoopbackLab(t)
	s := snapshot(l.n, l.e)
	nic := l.foreign(vethNamed("nic0", "nic1"))
	must(t, netlink.LinkSetMaster(nic, l.link(l.n.Bridge)))
	must(t, l.links.Prepare().Apply(t.Context(), s))
	l.same("closed ahead of the firewall", l.localnet(), "0")
	l.apply(s)
	l.same("closed", l.localnet(), "0")
	l.same("guard of another's link", l.links.guarded(l.link("nic0")), false)
	l.same("told", strings.Join(l.told, "; "), "nic0, a port of bridge br1, is not drawbridge's to guard")
	must(t, netlink.LinkSetNoMaster(nic))
	l.apply(s)
	l.same("open again", l.localnet(), "1")
}

// TestLocalnet: which bridges are opened, and closed.
func TestLocalnet(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*state.Network)
		want   string
	}{
		"nat":       {func(*state.Network) {}, "1"},
		"routed":    {func(n *state.Network) { n.V4.Mode = state.ModeRouted }, "1"},
		"dual":      {func(n *state.Network) { n.V6 = network(1).V6 }, "1"},
		"apart":     {func(n *state.Network) { n.NoICC = true }, "1"},
		"internal":  {func(n *state.Network) { n.Internal = true }, "0"},
		"IPv6 only": {func(n *state.Network) { n.V4, n.V6 = state.Subnet{}, network(1).V6 }, "0"},
		"inhibited": {func(n *state.Network) { n.V4.NoAddress = true }, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.links.RouteLocalnet = true
			n := network(1)
			n.V6 = state.Subnet{}
			tt.change(&n)
			one, two := endpoint(1, 2), endpoint(1, 3)
			if n.V6.IsZero() {
				one.Addr6, two.Addr6 = netip.Prefix{}, netip.Prefix{}
			}
			l.apply(snapshot(n, one))
			l.follow(snapshot(n, one), snapshot(n, one, two))
			for _, e := range []state.Endpoint{one, two} {
				l.same("guard of "+e.HostLink(), l.links.guarded(l.link(e.HostLink())), tt.want == "1")
			}
			key := routeLocalnet(n.Bridge)
			l.same("route_localnet", l.sysctl(key), tt.want)
			l.same("accept_source_route", l.sysctl("net/ipv4/conf/"+n.Bridge+"/accept_source_route"), "0")
			l.setSysctl(key, "1")
			must(t, l.links.CloseLoopback())
			l.same("closed for purge", l.sysctl(key), "0")
			l.setSysctl(key, "1")
			l.links.RouteLocalnet = false
			must(t, l.links.Prepare().Apply(t.Context(), snapshot(n, one, two)))
			l.same("closed by a daemon that does not open it", l.sysctl(key), "0")
		})
	}
}
