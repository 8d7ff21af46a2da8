//go:build kernel

package link

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostPrefixesEnv is set in the environment of the test binary that runs in a network
// namespace of its own; its value is the machine's namespace, so that the test can make
// sure that it is not there.
const hostPrefixesEnv = "DRAWBRIDGE_TEST_HOST_PREFIXES"

func TestHostPrefixesOfKernel(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	switch os.Getenv(hostPrefixesEnv) {
	case "":
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), hostPrefixesEnv+"="+own)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		t.Logf("in the namespace:\n%s", out)
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Fatalf("the test failed or did not run: %v", err)
		}
	case own:
		t.Fatal("the test is in the machine's network namespace")
	default:
		testHostPrefixes(t)
	}
}

func testHostPrefixes(t *testing.T) {
	resolvConf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolvConf, []byte("nameserver 192.0.2.53\nnameserver 2001:db8:53::53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	occupied := func() []netip.Prefix {
		t.Helper()
		var got []netip.Prefix
		for _, v6 := range []bool{false, true} {
			of, err := HostPrefixes{ResolvConf: []string{resolvConf}}.OccupiedPrefixes(t.Context(), v6)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range of {
				// The nameservers are in both.
				if strings.Contains(p.String(), "53/") && slices.Contains(got, p) {
					continue
				}
				if p.Addr().Is6() != v6 && !strings.Contains(p.String(), "53/") {
					t.Errorf("%s is not of the family", p)
				}
				got = append(got, p)
			}
		}
		slices.SortFunc(got, netip.Prefix.Compare)
		return got
	}
	if got := occupied(); len(got) != 2 {
		t.Errorf("in an empty namespace %v is occupied, want the two nameservers", got)
	}
	makeOccupied(t)
	got := occupied()

	want := map[string]string{
		"192.0.2.53/32":       "nameserver",
		"2001:db8:53::53/128": "nameserver",
		"10.1.0.0/24":         "address",
		"2001:db8:1::/64":     "address",
		"10.2.0.9/32":         "peer of an address",
		"10.3.0.0/16":         "route of the main table",
		"10.4.0.0/16":         "route of table 100",
		"2001:db8:4::/48":     "route of table 100",
		"10.5.0.0/16":         "route of table 51820",
		"10.6.0.0/16":         "blackhole",
		"2001:db8:6::/48":     "blackhole",
		"10.7.0.0/16":         "unreachable",
		"2001:db8:7::/48":     "unreachable",
		"10.8.0.0/16":         "prohibit",
		"10.9.0.0/16":         "throw",
		"10.10.0.0/16":        "route by two gateways",
	}
	for p, what := range want {
		if !slices.Contains(got, netip.MustParsePrefix(p)) {
			t.Errorf("%s (%s) is missing", p, what)
		}
	}
	for i, p := range got {
		if p != p.Masked() || i > 0 && got[i-1] == p {
			t.Errorf("%s has host bits or is there twice", p)
		}
		if p.Bits() <= 1 || p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			t.Errorf("%s says nothing about a use and is there", p)
		}
	}
}

// makeOccupied gives the namespace an interface and routes of every kind.
func makeOccupied(t *testing.T) {
	t.Helper()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	must("adding a veth pair", netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "cable"}))
	for _, name := range []string{"lo", "lan"} {
		l, err := netlink.LinkByName(name)
		must("finding "+name, err)
		must("raising "+name, netlink.LinkSetUp(l))
	}
	lan, err := netlink.LinkByName("lan")
	must("finding lan", err)
	for _, a := range []string{"10.1.0.1/24", "2001:db8:1::1/64"} {
		addr, err := netlink.ParseAddr(a)
		must("parsing", err)
		must("adding "+a, netlink.AddrAdd(lan, addr))
	}
	// Of a link that is down there are no routes that would show the peer.
	down, err := netlink.LinkByName("cable")
	must("finding cable", err)
	must("adding a peer", netlink.AddrAdd(down, &netlink.Addr{IPNet: hostCIDR(t, "10.2.0.1/32"), Peer: hostCIDR(t, "10.2.0.9/32")}))

	for _, r := range []struct {
		dst   string
		table int
		kind  int
	}{
		{"0.0.0.0/0", unix.RT_TABLE_MAIN, unix.RTN_UNICAST},
		{"::/0", unix.RT_TABLE_MAIN, unix.RTN_UNICAST},
		{"0.0.0.0/1", unix.RT_TABLE_MAIN, unix.RTN_UNICAST},
		{"128.0.0.0/1", unix.RT_TABLE_MAIN, unix.RTN_UNICAST},
		{"0.0.0.0/0", 100, unix.RTN_UNICAST},
		{"10.3.0.0/16", unix.RT_TABLE_MAIN, unix.RTN_UNICAST},
		{"10.4.0.0/16", 100, unix.RTN_UNICAST},
		{"2001:db8:4::/48", 100, unix.RTN_UNICAST},
		{"10.5.0.0/16", 51820, unix.RTN_UNICAST},
		{"10.6.0.0/16", unix.RT_TABLE_MAIN, unix.RTN_BLACKHOLE},
		{"2001:db8:6::/48", unix.RT_TABLE_MAIN, unix.RTN_BLACKHOLE},
		{"10.7.0.0/16", unix.RT_TABLE_MAIN, unix.RTN_UNREACHABLE},
		{"2001:db8:7::/48", 100, unix.RTN_UNREACHABLE},
		{"10.8.0.0/16", unix.RT_TABLE_MAIN, unix.RTN_PROHIBIT},
		{"10.9.0.0/16", 100, unix.RTN_THROW},
	} {
		route := &netlink.Route{Dst: hostCIDR(t, r.dst), Table: r.table, Type: r.kind}
		if r.kind == unix.RTN_UNICAST {
			route.LinkIndex = lan.Attrs().Index
		}
		must("adding route "+r.dst, netlink.RouteAdd(route))
	}
	must("adding a route by two gateways", netlink.RouteAdd(&netlink.Route{Dst: hostCIDR(t, "10.10.0.0/16"), MultiPath: []*netlink.NexthopInfo{
		{LinkIndex: lan.Attrs().Index, Gw: net.IPv4(10, 1, 0, 2)}, {LinkIndex: lan.Attrs().Index, Gw: net.IPv4(10, 1, 0, 3)},
	}}))
}

func hostCIDR(t *testing.T, s string) *net.IPNet {
	t.Helper()
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	n.IP = ip
	return n
}
