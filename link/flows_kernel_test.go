//go:build kernel

package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/sctp"
)

// tracked makes the kernel track connections and translate what goes to port 7000.
const tracked = `
table inet tracked {
	chain output { type filter hook output priority filter; ct state new accept; }
	chain nat {
		type nat hook output priority -100;
		meta nfproto ipv4 meta l4proto { udp, sctp } th dport 7000 dnat ip to 10.9.0.2:70
		meta nfproto ipv6 meta l4proto { udp, sctp } th dport 7000 dnat ip6 to [fd09::2]:70
	}
}
`

func newFlowLab(t *testing.T) (*lab, *Flows) {
	l := newLab(t)
	l.foreign(vethNamed("lan0", "lan1"), "10.9.0.1/24", "fd09::1/64")
	l.up("lan0")
	l.up("lan1")
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(tracked)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	flows, err := NewFlows(func(err error) { t.Error(err) })
	must(t, err)
	t.Cleanup(flows.Close)
	return l, flows
}

// send sends one packet of UDP or SCTP, which makes one flow.
func (l *lab) send(proto, to string) {
	l.Helper()
	var conn net.Conn
	var err error
	if proto == "sctp" {
		conn, err = sctp.Dial(l.Context(), net.Dialer{}, to)
	} else {
		conn, err = net.Dial(proto, to)
	}
	must(l, err)
	defer conn.Close()
	_, err = conn.Write([]byte("x"))
	must(l, err)
}

// flows lists the tracked flows by protocol and destination.
func (l *lab) flows() []string {
	l.Helper()
	var out []string
	for _, f := range l.tracked() {
		out = append(out, f.proto.String()+" "+f.sent.to.String())
	}
	slices.Sort(out)
	return out
}

// tracked lists the flows of the protocols that can be published.
func (l *lab) tracked() []flow {
	l.Helper()
	c, err := newConntrack()
	must(l, err)
	defer c.close()
	flows, err := c.list()
	must(l, err)
	return slices.DeleteFunc(flows, func(f flow) bool {
		return !slices.Contains([]state.Proto{state.TCP, state.UDP, state.SCTP}, f.proto)
	})
}

func TestFlows(t *testing.T) {
	all := []string{
		"sctp 10.9.0.1:5353", "sctp 10.9.0.1:7000", "sctp 10.9.0.77:5353",
		"sctp [fd09::1]:53", "sctp [fd09::1]:5353", "sctp [fd09::1]:7000",
		"tcp 10.9.0.1:5353",
		"udp 10.9.0.1:53", "udp 10.9.0.1:5353", "udp 10.9.0.1:7000", "udp 10.9.0.77:5353",
		"udp 127.0.0.1:5353", "udp [::1]:5353",
		"udp [fd09::1]:53", "udp [fd09::1]:5353", "udp [fd09::1]:7000", "udp [fd09::77]:5353",
	}
	udp := func(ip string, number uint16) state.Port {
		p := state.Port{Proto: state.UDP, HostPort: number, ContainerPort: 1}
		if ip != "" {
			p.HostIP = netip.MustParseAddr(ip)
		}
		return p
	}
	sctp := func(ip string, number uint16) state.Port {
		p := udp(ip, number)
		p.Proto = state.SCTP
		return p
	}
	ports := func(ports ...state.Port) func(*Flows, context.Context) error {
		return func(f *Flows, ctx context.Context) error { f.ForgetPorts(ports); return f.Settle(ctx) }
	}
	outwards := func(subnets ...string) func(*Flows, context.Context) error {
		var parsed []netip.Prefix
		for _, p := range subnets {
			parsed = append(parsed, netip.MustParsePrefix(p))
		}
		return func(f *Flows, ctx context.Context) error { f.ForgetOutwards(parsed); return f.Settle(ctx) }
	}
	addrs := func(addrs ...string) func(*Flows, context.Context) error {
		var parsed []netip.Addr
		for _, a := range addrs {
			parsed = append(parsed, netip.MustParseAddr(a))
		}
		return func(f *Flows, ctx context.Context) error { f.Forget(parsed); return f.Settle(ctx) }
	}
	tests := []struct {
		name   string
		forget func(*Flows, context.Context) error
		gone   []string
	}{
		{"port on every address", ports(udp("", 5353)), []string{"udp 10.9.0.1:5353", "udp 127.0.0.1:5353", "udp [::1]:5353", "udp [fd09::1]:5353"}},
		{"port on every IPv4 address", ports(udp("0.0.0.0", 5353)), []string{"udp 10.9.0.1:5353", "udp 127.0.0.1:5353"}},
		{"port on every IPv6 address", ports(udp("::", 5353)), []string{"udp [::1]:5353", "udp [fd09::1]:5353"}},
		{"port on one address", ports(udp("10.9.0.1", 5353)), []string{"udp 10.9.0.1:5353"}},
		{"port on one IPv6 address", ports(udp("fd09::1", 5353)), []string{"udp [fd09::1]:5353"}},
		{"two ports", ports(udp("10.9.0.1", 5353), udp("fd09::1", 53)), []string{"udp 10.9.0.1:5353", "udp [fd09::1]:53"}},
		{"outwards, untranslated", outwards("10.9.0.0/28", "fd09::/124"), []string{"sctp 10.9.0.77:5353", "udp 10.9.0.77:5353", "udp [fd09::77]:5353"}},
		{"outwards, from another subnet", outwards("10.8.0.0/16"), nil},
		{"port that is translated already", ports(udp("", 7000)), nil},
		{"SCTP port on every address", ports(sctp("", 5353)), []string{"sctp 10.9.0.1:5353", "sctp [fd09::1]:5353"}},
		{"SCTP port on one address", ports(sctp("10.9.0.1", 5353)), []string{"sctp 10.9.0.1:5353"}},
		{"SCTP port that is translated already", ports(sctp("", 7000)), nil},
		{"an SCTP and a UDP port", ports(sctp("::", 53), udp("10.9.0.1", 53)), []string{"sctp [fd09::1]:53", "udp 10.9.0.1:53"}},
		{"TCP port", ports(state.Port{Proto: state.TCP, HostPort: 5353, ContainerPort: 1}), nil},
		{"no ports", ports(), nil},
		{"addresses behind a translation", addrs("10.9.0.2", "fd09::2"), []string{
			"sctp 10.9.0.1:7000", "sctp [fd09::1]:7000", "udp 10.9.0.1:7000", "udp [fd09::1]:7000",
		}},
		{"address", addrs("10.9.0.77"), []string{"sctp 10.9.0.77:5353", "udp 10.9.0.77:5353"}},
		{"address, IPv6", addrs("fd09::77"), []string{"udp [fd09::77]:5353"}},
		{"no flows", addrs("10.9.0.99", "fd09::99"), nil},
		{"no addresses", addrs(), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, flows := newFlowLab(t)
			listener, err := net.Listen("tcp4", "10.9.0.1:5353")
			must(t, err)
			defer listener.Close()
			conn, err := net.Dial("tcp4", "10.9.0.1:5353")
			must(t, err)
			defer conn.Close()
			for _, flow := range all {
				if proto, to, _ := strings.Cut(flow, " "); proto != "tcp" {
					l.send(proto, to)
				}
			}
			if d := cmp.Diff(all, l.flows()); d != "" {
				t.Fatalf("flows before (-want +got):\n%s", d)
			}
			for range 2 {
				must(t, tt.forget(flows, t.Context()))
				want := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(tt.gone, s) })
				if d := cmp.Diff(want, l.flows()); d != "" {
					t.Errorf("flows left (-want +got):\n%s", d)
				}
			}
		})
	}
}

// TestFlowsToRoutes: an address may be the host's by a route alone, and a whole prefix. What only another table says does not count.
func TestFlowsToRoutes(t *testing.T) {
	l, flows := newFlowLab(t)
	for _, r := range [][]string{
		{"-4", "192.0.2.80/32"},
		{"-4", "198.51.100.0/24"},
		{"-4", "10.9.0.64/26", "table", "1000"},
		{"-6", "2001:db8::80/128"},
		{"-6", "2001:db8:1::/64"},
		{"-6", "fd09::70/124", "table", "1000"},
	} {
		args := append([]string{r[0], "route", "add", "local", r[1], "dev", "lo"}, r[2:]...)
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	stay := []string{"udp 10.9.0.77:5353", "udp 192.0.2.80:53", "udp [fd09::77]:5353"}
	go4 := []string{"udp 127.0.0.9:5353", "udp 192.0.2.80:5353", "udp 198.51.100.7:5353"}
	go6 := []string{"udp [2001:db8:1::7]:5353", "udp [2001:db8::80]:5353"}
	for _, flow := range slices.Concat(stay, go4, go6) {
		_, to, _ := strings.Cut(flow, " ")
		l.send("udp", to)
	}
	for _, step := range []struct {
		at   netip.Addr
		want []string
	}{
		{netip.MustParseAddr("198.51.100.8"), slices.Concat(stay, go4, go6)},
		{netip.IPv4Unspecified(), slices.Concat(stay, go6)},
		{netip.IPv6Unspecified(), stay},
	} {
		flows.ForgetPorts([]state.Port{{Proto: state.UDP, HostIP: step.at, HostPort: 5353, ContainerPort: 1}})
		must(t, flows.Settle(t.Context()))
		slices.Sort(step.want)
		if d := cmp.Diff(step.want, l.flows()); d != "" {
			t.Errorf("port on %s: flows left (-want +got):\n%s", step.at, d)
		}
	}
}

// TestForgetAnswered: a flow that began with an answer of the port's socket goes as well, and so does one that begins with the answer that was under
// way.
func TestForgetAnswered(t *testing.T) {
	l, flows := newFlowLab(t)
	answer := func() {
		for _, from := range []string{"10.9.0.1:5353", "10.9.0.1:53", "[fd09::1]:5353"} {
			local := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
			to := "10.9.0.77:9999"
			if local.IP.To4() == nil {
				to = "[fd09::77]:9999"
			}
			c, err := (&net.Dialer{LocalAddr: local}).Dial("udp", to)
			must(t, err)
			_, err = c.Write([]byte("x"))
			must(t, errors.Join(err, c.Close()))
		}
	}
	answer()
	flows.ForgetPorts([]state.Port{{Proto: state.UDP, HostPort: 5353, ContainerPort: 1}})
	must(t, flows.Settle(t.Context()))
	if left := l.tracked(); len(left) != 1 || left[0].sent.from.String() != "10.9.0.1:53" {
		t.Errorf("left: %v", left)
	}
	answer()
	for began := time.Now(); len(l.tracked()) > 1; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("what was under way goes on: %v", l.tracked())
		}
	}
}

// TestForgetShown: the flows go in which the host speaks as somebody else to one port of a container, and no others to there.
func TestForgetShown(t *testing.T) {
	l, flows := newFlowLab(t)
	as := func(from, to string) {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}, Control: func(network, _ string, c syscall.RawConn) error {
			level, option := unix.SOL_IP, unix.IP_TRANSPARENT
			if network == "udp6" {
				level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			}
			var failed error
			err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, 1) })
			return errors.Join(err, failed)
		}}
		c, err := d.Dial("udp", to)
		must(t, err)
		defer c.Close()
		_, err = c.Write([]byte("x"))
		must(t, err)
	}
	as("203.0.113.9", "10.9.0.77:53")
	as("203.0.113.9", "10.9.0.77:54")
	as("203.0.113.9", "10.9.0.1:7000") // which is translated to the first of the targets
	as("2001:db8::9", "[fd09::77]:53")
	l.send("udp", "10.9.0.77:53")
	l.send("udp", "[fd09::77]:53")
	flows.ForgetShown([]netip.AddrPort{netip.MustParseAddrPort("10.9.0.2:70"), netip.MustParseAddrPort("10.9.0.77:53"), netip.MustParseAddrPort("[fd09::77]:53")})
	must(t, flows.Settle(t.Context()))
	want := []string{"10.9.0.1 10.9.0.77:53", "203.0.113.9 10.9.0.1:7000", "203.0.113.9 10.9.0.77:54", "fd09::1 [fd09::77]:53"}
	var got []string
	for _, f := range l.tracked() {
		got = append(got, f.sent.from.Addr().String()+" "+f.sent.to.String())
	}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("flows left (-want +got):\n%s", d)
	}
}

// TestForgetQueued: datagrams that wait for an address to be resolved go with the flows of its last owner.
func TestForgetQueued(t *testing.T) {
	for _, tt := range []struct{ family, to, addr string }{
		{"-4", "10.9.0.77:5353", "10.9.0.77"},
		{"-6", "[fd09::77]:5353", "fd09::77"},
	} {
		t.Run(tt.addr, func(t *testing.T) {
			l, flows := newFlowLab(t)
			waiting := func() string {
				out, err := exec.CommandContext(t.Context(), "ip", tt.family, "neigh", "show", "nud", "all", tt.addr).CombinedOutput()
				must(t, err)
				return string(out)
			}
			for range 3 {
				l.send("udp", tt.to)
			}
			if waiting() == "" {
				t.Fatal("nobody resolves the address")
			}
			flows.Forget([]netip.Addr{netip.MustParseAddr(tt.addr)})
			must(t, flows.Settle(t.Context()))
			if left := waiting(); left != "" {
				t.Errorf("still waiting: %s", left)
			}
		})
	}
}

// TestStuck: of TCP a flow goes on as it began while nobody has answered, but for the host's own.
func TestStuck(t *testing.T) {
	l, _ := newFlowLab(t)
	listener, err := net.Listen("tcp4", "10.9.0.1:5353")
	must(t, err)
	defer listener.Close()
	conn, err := net.Dial("tcp4", "10.9.0.1:5353")
	must(t, err)
	defer conn.Close()
	if conn, err := net.DialTimeout("tcp4", "10.9.0.77:5353", 50*time.Millisecond); err == nil { // nobody has the address
		conn.Close()
		t.Fatal("somebody answers")
	}
	l.send("udp", "10.9.0.77:53")
	host := own{addrs: map[netip.Addr]bool{netip.MustParseAddr("10.9.0.1"): true}}
	want := map[string][2]bool{"tcp 10.9.0.1:5353": {false, false}, "tcp 10.9.0.77:5353": {true, false}, "udp 10.9.0.77:53": {true, true}}
	got := map[string][2]bool{}
	for _, f := range l.tracked() {
		got[f.proto.String()+" "+f.sent.to.String()] = [2]bool{f.stuck(own{}), f.stuck(host)}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stuck, if it is another's and if it is the host's (-want +got):\n%s", d)
	}
}
