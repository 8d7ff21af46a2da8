package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

const (
	netID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	epID  = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
)

func TestParseIDs(t *testing.T) {
	for name, c := range map[string]struct {
		in string
		ok bool
	}{
		"engine's":     {netID, true},
		"swarm's":      {"rqzcajw5yxqv1dcz9r6jyqyxa", true},
		"empty":        {"", false},
		"short":        {"0123456789a", false},
		"65 digits":    {netID + "0", false},
		"upper case":   {strings.ToUpper(netID), false},
		"path":         {"../../../etc/passwd", false},
		"with newline": {netID[:63] + "\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseNetworkID(c.in); (err == nil) != c.ok {
				t.Errorf("network: %v", err)
			}
			if _, err := ParseEndpointID(c.in); (err == nil) != c.ok {
				t.Errorf("endpoint: %v", err)
			}
		})
	}
	if _, err := ParseNetworkID(strings.Repeat("x", 1<<20)); err == nil || len(err.Error()) > 200 {
		t.Errorf("a huge id fills the error: %d bytes", len(err.Error()))
	}
}

func TestCheckLinkName(t *testing.T) {
	for name, ok := range map[string]bool{
		"br0": true, "my_bridge-1.2": true, "0abc": true, "exactly15chars_": true,
		"": false, ".": false, "..": false, "../x": false, "a;b": false, "a b": false, "a/b": false, "-x": false,
		"sixteen_chars_xx": false, "lo": false, "all": false, "default": false, "br+": false, "a%d": false, "ä": false, "a\x00": false, "a:1": false,
	} {
		if err := CheckLinkName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestLinkNames(t *testing.T) {
	e := Endpoint{ID: epID}
	n := Network{ID: netID, Bridge: DefaultBridgeName(netID)}
	for _, name := range []string{e.HostLink(), e.ContainerLink(), n.Bridge} {
		if err := CheckLinkName(name); err != nil {
			t.Error(err)
		}
	}
	if e.HostLink() == e.ContainerLink() {
		t.Error("both ends have one name")
	}
	if !OurAlias(n.Alias()) || !OurAlias(e.Alias()) || OurAlias("uplink") || OurAlias("") {
		t.Error("aliases are not told apart")
	}
}

func validNetwork() Network {
	return Network{
		ID: netID, Bridge: "br0",
		V4: Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")},
		V6: Subnet{Prefix: netip.MustParsePrefix("fd00:1::/64"), Gateway: netip.MustParseAddr("fd00:1::1")},
	}
}

func TestNetworkValidate(t *testing.T) {
	subnet := func(prefix, gateway string) Subnet {
		return Subnet{Prefix: netip.MustParsePrefix(prefix), Gateway: netip.MustParseAddr(gateway)}
	}
	for name, c := range map[string]struct {
		change func(*Network)
		want   string // part of the error; empty for none
	}{
		"both families":                    {func(*Network) {}, ""},
		"only IPv4":                        {func(n *Network) { n.V6 = Subnet{} }, ""},
		"only IPv6":                        {func(n *Network) { n.V4 = Subnet{} }, ""},
		"neither":                          {func(n *Network) { n.V4, n.V6 = Subnet{}, Subnet{} }, "neither"},
		"families swapped":                 {func(n *Network) { n.V4, n.V6 = n.V6, n.V4 }, "not an IPv4 prefix"},
		"mapped":                           {func(n *Network) { n.V6 = subnet("::ffff:10.1.0.0/120", "::ffff:10.1.0.1") }, "not an IPv6 prefix"},
		"host bits":                        {func(n *Network) { n.V4 = subnet("10.1.0.5/24", "10.1.0.1") }, "write 10.1.0.0/24"},
		"gateway outside":                  {func(n *Network) { n.V4 = subnet("10.1.0.0/24", "10.2.0.1") }, "outside"},
		"gateway with zone":                {func(n *Network) { n.V6.Gateway = n.V6.Gateway.WithZone("eth0") }, "gateway"},
		"no gateway":                       {func(n *Network) { n.V4.Gateway = netip.Addr{} }, "gateway"},
		"gateway is the network's address": {func(n *Network) { n.V4.Gateway = n.V4.Prefix.Addr() }, "broadcast"},
		"gateway is the broadcast address": {func(n *Network) { n.V4.Gateway = netip.MustParseAddr("10.1.0.255") }, "broadcast"},
		"gateway is the anycast address":   {func(n *Network) { n.V6.Gateway = n.V6.Prefix.Addr() }, "network"},
		"gateway is the last IPv6 address": {func(n *Network) { n.V6.Gateway = netip.MustParseAddr("fd00:1::ffff:ffff:ffff:ffff") }, ""},
		"gateway in a subnet of two":       {func(n *Network) { n.V4 = subnet("10.1.0.0/31", "10.1.0.0") }, ""},
		"multicast":                        {func(n *Network) { n.V4 = subnet("224.0.0.0/24", "224.0.0.1") }, "multicast"},
		"loopback":                         {func(n *Network) { n.V4 = subnet("127.1.0.0/24", "127.1.0.1") }, "loopback"},
		"everything":                       {func(n *Network) { n.V4 = subnet("0.0.0.0/0", "10.0.0.1") }, "whole"},
		"hostile bridge name":              {func(n *Network) { n.Bridge = "a;b" }, "link name"},
		"no id":                            {func(n *Network) { n.ID = "" }, "network id"},
		"MTU":                              {func(n *Network) { n.MTU = 1280 }, ""},
		"MTU for IPv6":                     {func(n *Network) { n.MTU = 1279 }, "1280"},
		"MTU for IPv4":                     {func(n *Network) { n.V6, n.MTU = Subnet{}, 68 }, ""},
		"MTU huge":                         {func(n *Network) { n.MTU = 65536 }, "65535"},
		"MTU negative":                     {func(n *Network) { n.MTU = -1 }, "-1"},
	} {
		t.Run(name, func(t *testing.T) {
			n := validNetwork()
			c.change(&n)
			wantError(t, n.Validate(), c.want)
		})
	}
}

func TestEndpointValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Endpoint)
		want   string
	}{
		"both families":   {func(*Endpoint) {}, ""},
		"only IPv6":       {func(e *Endpoint) { e.Addr4 = netip.Prefix{} }, ""},
		"no address":      {func(e *Endpoint) { e.Addr4, e.Addr6 = netip.Prefix{}, netip.Prefix{} }, "no address"},
		"outside":         {func(e *Endpoint) { e.Addr4 = netip.MustParsePrefix("10.2.0.2/24") }, "outside"},
		"broadcast":       {func(e *Endpoint) { e.Addr4 = netip.MustParsePrefix("10.1.0.255/24") }, "broadcast"},
		"anycast":         {func(e *Endpoint) { e.Addr6 = netip.MustParsePrefix("fd00:1::/64") }, "network"},
		"the gateway's":   {func(e *Endpoint) { e.Addr6 = netip.MustParsePrefix("fd00:1::1/64") }, "gateway"},
		"other network":   {func(e *Endpoint) { e.Network = epID }, "not of network"},
		"no MAC":          {func(e *Endpoint) { e.MAC = MAC{} }, "MAC"},
		"multicast MAC":   {func(e *Endpoint) { e.MAC[0] = 3 }, "MAC"},
		"id too short":    {func(e *Endpoint) { e.ID = "x" }, "endpoint id"},
		"IPv4 as IPv6":    {func(e *Endpoint) { e.Addr6 = e.Addr4 }, "outside"},
		"without IPv6":    {func(e *Endpoint) { e.Addr6 = netip.Prefix{} }, ""},
		"host bits kept":  {func(e *Endpoint) { e.Addr4 = netip.MustParsePrefix("10.1.0.200/24") }, ""},
		"the other range": {func(e *Endpoint) { e.Addr6 = netip.MustParsePrefix("fd00:2::2/64") }, "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			e := Endpoint{
				ID: epID, Network: netID, MAC: GenerateMAC(epID),
				Addr4: netip.MustParsePrefix("10.1.0.2/24"), Addr6: netip.MustParsePrefix("fd00:1::2/64"),
			}
			c.change(&e)
			wantError(t, e.Validate(validNetwork()), c.want)
		})
	}
}

func TestGenerateMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.String().Draw(t, "id")
		mac := GenerateMAC(id)
		if mac.isMulticast() || mac[0]&2 == 0 || mac != GenerateMAC(id) {
			t.Fatalf("%s for %q", mac, id)
		}
		back, err := ParseMAC(mac.String())
		if err != nil || back != mac {
			t.Fatalf("%v %v", back, err)
		}
	})
	for _, bad := range []string{"", "02:42", "02:42:0a:00:00:02:03:04", "zz:42:0a:00:00:02"} {
		if _, err := ParseMAC(bad); err == nil {
			t.Errorf("%q is taken for a MAC", bad)
		}
	}
}

func TestPortRequestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		in   PortRequest
		want string
	}{
		"exact":           {PortRequest{TCP, netip.Addr{}, 80, 80, 80}, ""},
		"ephemeral":       {PortRequest{UDP, netip.Addr{}, 0, 0, 80}, ""},
		"range":           {PortRequest{TCP, netip.Addr{}, 80, 90, 80}, ""},
		"backwards":       {PortRequest{TCP, netip.Addr{}, 90, 80, 80}, "ends before"},
		"range from 0":    {PortRequest{TCP, netip.Addr{}, 0, 80, 80}, "begin at 0"},
		"sctp":            {PortRequest{SCTP, netip.Addr{}, 80, 80, 80}, ""},
		"udplite":         {PortRequest{136, netip.Addr{}, 80, 80, 80}, "tcp, udp and sctp"},
		"no container":    {PortRequest{TCP, netip.Addr{}, 80, 80, 0}, "no container port"},
		"multicast":       {PortRequest{TCP, netip.MustParseAddr("224.0.0.1"), 80, 80, 80}, "host address"},
		"zone":            {PortRequest{TCP, netip.MustParseAddr("fe80::1%eth0"), 80, 80, 80}, "host address"},
		"every address":   {PortRequest{TCP, netip.IPv6Unspecified(), 80, 80, 80}, ""},
		"loopback":        {PortRequest{TCP, netip.MustParseAddr("127.0.0.1"), 80, 80, 80}, ""},
		"mapped address":  {PortRequest{TCP, netip.MustParseAddr("::ffff:10.0.0.1"), 80, 80, 80}, "host address"},
		"unknown number":  {PortRequest{0, netip.Addr{}, 80, 80, 80}, "tcp, udp and sctp"},
		"one of each":     {PortRequest{UDP, netip.MustParseAddr("10.0.0.1"), 1, 65535, 65535}, ""},
		"all of the host": {PortRequest{TCP, netip.IPv4Unspecified(), 80, 80, 80}, ""},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, c.in.Validate(), c.want) })
	}
}

func TestSortPortRequests(t *testing.T) {
	sorted := []PortRequest{
		{TCP, netip.Addr{}, 443, 443, 443},
		{UDP, netip.Addr{}, 53, 53, 53},
		{SCTP, netip.Addr{}, 9, 9, 9},
		{TCP, netip.Addr{}, 8000, 8010, 80},
		{TCP, netip.Addr{}, 0, 0, 80},
		{TCP, netip.Addr{}, 0, 0, 81},
	}
	rapid.Check(t, func(t *rapid.T) {
		got := rapid.Permutation(sorted).Draw(t, "order")
		SortPortRequests(got)
		if !slices.Equal(got, sorted) {
			t.Fatalf("%v", got)
		}
	})
}

func TestTarget(t *testing.T) {
	dual := Endpoint{Addr4: netip.MustParsePrefix("10.1.0.2/24"), Addr6: netip.MustParsePrefix("fd00:1::2/64")}
	four, six := dual, dual
	four.Addr6, six.Addr4 = netip.Prefix{}, netip.Prefix{}
	for name, c := range map[string]struct {
		host   string
		e      Endpoint
		v4, v6 string
	}{
		"any, dual":      {"", dual, "10.1.0.2:80", "[fd00:1::2]:80"},
		"any, IPv4 only": {"", four, "10.1.0.2:80", ""},
		"any, IPv6 only": {"", six, "", "[fd00:1::2]:80"},
		"0.0.0.0":        {"0.0.0.0", dual, "10.1.0.2:80", ""},
		"::":             {"::", dual, "", "[fd00:1::2]:80"},
		"an address":     {"192.0.2.1", dual, "10.1.0.2:80", ""},
		"IPv6 on IPv4":   {"::1", four, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := Port{Proto: TCP, HostPort: 8080, ContainerPort: 80}
			if c.host != "" {
				p.HostIP = netip.MustParseAddr(c.host)
			}
			for v6, want := range map[bool]string{false: c.v4, true: c.v6} {
				got, ok := p.Target(c.e, v6)
				if ok != (want != "") || ok && got.String() != want {
					t.Errorf("v6=%t: %v %t, want %q", v6, got, ok, want)
				}
			}
		})
	}
}

func TestJSONRoundTrip(t *testing.T) {
	in := Endpoint{
		ID: epID, Network: netID, MAC: GenerateMAC(epID), Addr6: netip.MustParsePrefix("fd00:1::2/64"), Sandbox: "/run/x",
		Ports: []Port{{UDP, netip.MustParseAddr("::1"), 53, 53}, {TCP, netip.Addr{}, 80, 8080}, {SCTP, netip.Addr{}, 3868, 3868}},
	}
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out Endpoint
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
}

// TestProtoNames: what is stored and shown is a name, and only names of what can be published are read.
func TestProtoNames(t *testing.T) {
	for p, want := range map[Proto]string{TCP: "tcp", UDP: "udp", SCTP: "sctp"} {
		raw, err := json.Marshal(Port{Proto: p})
		if err != nil || !strings.Contains(string(raw), `"proto":"`+want+`"`) {
			t.Errorf("%s %v, want the name %s", raw, err, want)
		}
		var back Port
		if err := json.Unmarshal(raw, &back); err != nil || back.Proto != p {
			t.Errorf("%s is read as %v (%v)", want, back.Proto, err)
		}
	}
	for _, bad := range []string{"icmp", "SCTP", "132", ""} {
		var p Proto
		if err := p.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a protocol that can be published", bad)
		}
	}
}

func TestLeaseJSON(t *testing.T) {
	addr := netip.MustParseAddr("fd00:1::2")
	for name, c := range map[string]struct {
		lease Lease
		want  string
	}{
		"container's": {Lease{Pool: "p", Addr: addr}, `{"pool":"p","addr":"fd00:1::2"}`},
		"gateway":     {Lease{Pool: "p", Addr: addr, Gateway: true}, `{"pool":"p","addr":"fd00:1::2","gateway":true}`},
		"reserved":    {Lease{Pool: "p", Addr: addr, Reserved: true}, `{"pool":"p","addr":"fd00:1::2","reserved":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(c.lease)
			if err != nil || string(raw) != c.want {
				t.Errorf("%s %v, want %s", raw, err, c.want)
			}
			var back Lease
			if err := json.Unmarshal(raw, &back); err != nil || back != c.lease {
				t.Errorf("%+v %v", back, err)
			}
		})
	}
}

func TestSnapshotLookUp(t *testing.T) {
	s := Snapshot{Networks: []Network{{ID: "b"}, {ID: "a"}}, Endpoints: []Endpoint{{ID: "d"}, {ID: "c"}}}
	s.Sort()
	for _, id := range []NetworkID{"a", "b"} {
		if n, ok := s.Network(id); !ok || n.ID != id {
			t.Errorf("%s: %v %t", id, n, ok)
		}
	}
	if e, ok := s.Endpoint("c"); !ok || e.ID != "c" {
		t.Errorf("%v %t", e, ok)
	}
	if _, ok := s.Network("z"); ok {
		t.Error("found what is not there")
	}
	if _, ok := s.Endpoint("a"); ok {
		t.Error("found what is not there")
	}
}

func TestScopeSelect(t *testing.T) {
	whole := errors.New("plane is broken")
	netA := &ObjectError{Network: "a", Err: errors.New("a is broken")}
	netB := &ObjectError{Network: "b", Err: errors.New("b is broken")}
	a1 := &ObjectError{Network: "a", Endpoint: "1", Err: errors.New("a1 is broken")}
	a2 := &ObjectError{Network: "a", Endpoint: "2", Err: errors.New("a2 is broken")}
	all := errors.Join(netA, errors.Join(netB, a1), fmt.Errorf("wrapped: %w", a2))
	for name, c := range map[string]struct {
		scope Scope
		in    error
		want  string
	}{
		"nothing":              {Scope{}, nil, ""},
		"everything":           {Scope{}, all, "a is broken\nb is broken\na1 is broken\nwrapped: a2 is broken"},
		"network":              {Scope{Network: "a"}, all, "a is broken"},
		"endpoint":             {Scope{Network: "a", Endpoint: "2"}, all, "a is broken\nwrapped: a2 is broken"},
		"other endpoint":       {Scope{Network: "b", Endpoint: "9"}, all, "b is broken"},
		"none of mine":         {Scope{Network: "c"}, all, ""},
		"the whole plane":      {Scope{Network: "c"}, errors.Join(all, whole), "plane is broken"},
		"wrapped whole":        {Scope{Network: "c"}, fmt.Errorf("x: %w", whole), "x: plane is broken"},
		"wrapped join, others": {Scope{Network: "c"}, fmt.Errorf("x: %w", errors.Join(netA, a1)), ""},
		"wrapped join, mixed":  {Scope{Network: "c"}, fmt.Errorf("x: %w", errors.Join(netA, whole)), "x: a is broken\nplane is broken"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := c.scope.Select(c.in); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("unexpected: %v", err)
	case want != "" && err == nil:
		t.Errorf("no error, want %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%v, want %q", err, want)
	}
}
