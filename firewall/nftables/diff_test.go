package nftables

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// drawFamily returns a policy that nobody validated: prefixes within each other, ports that are said twice.
func drawFamily(t *rapid.T, v6 bool) firewall.Family {
	f := firewall.Family{
		V6: v6, Guard: rapid.Bool().Draw(t, "guard"), Loopback: rapid.Bool().Draw(t, "loopback"),
		Strangers: rapid.Bool().Draw(t, "strangers"), BridgeNetfilter: rapid.Bool().Draw(t, "netfilter"),
		Limited: rapid.Bool().Draw(t, "limited"), Learns: rapid.Bool().Draw(t, "learns"),
	}
	if f.Learns {
		f.LearnedTime = rapid.SampledFrom([]time.Duration{0, time.Second, 1500 * time.Millisecond}).Draw(t, "time")
	}
	addr := func(n int) netip.Addr {
		if v6 {
			return address(fmt.Sprintf("fd00::%x:0", n))
		}
		return address(fmt.Sprintf("10.0.%d.0", n))
	}
	is := func(what string) bool { return rapid.IntRange(0, 2).Draw(t, what) == 0 }
	for range rapid.IntRange(0, 5).Draw(t, "networks") {
		bits := rapid.IntRange(1, 8).Draw(t, "bits")
		a := addr(rapid.IntRange(0, 255).Draw(t, "subnet"))
		n := firewall.Network{
			Prefix: netip.PrefixFrom(a, a.BitLen()-16*(1+a.BitLen()/128)+bits-8*(a.BitLen()/128)).Masked(), Bridge: rapid.SampledFrom([]string{"br-a", "br-b"}).Draw(t, "bridge"),
			Masquerade: is("masquerade"), NoICC: is("icc"), Routed: is("routed"), Unprotected: is("unprotected"),
		}
		if n.Masquerade && is("snat") {
			n.SNAT = addr(200)
		}
		if is("trusted") {
			n.Trusted = []string{"eth0"}
		}
		f.Networks = append(f.Networks, n)
	}
	sortNetworks(f.Networks)
	for range rapid.IntRange(0, 3).Draw(t, "ports") {
		p := firewall.Port{Proto: rapid.SampledFrom([]state.Proto{state.TCP, state.UDP}).Draw(t, "proto")}
		if is("host") {
			p.Host = addr(100)
		} else {
			p.Proxied = f.Loopback && is("proxied")
		}
		p.Inside = is("inside")
		p.Learned = p.Inside && f.Learns && is("learned")
		target := addr(rapid.IntRange(1, 2).Draw(t, "target"))
		first := rapid.IntRange(1, 30).Draw(t, "first")
		shift := rapid.IntRange(0, 1).Draw(t, "shift")
		for port := first; port < first+rapid.IntRange(1, 20).Draw(t, "length"); port++ {
			p.HostPort, p.Target = uint16(port), netip.AddrPortFrom(target, uint16(port+shift))
			f.Ports = append(f.Ports, p)
		}
	}
	if f.Limited {
		f.Limits = drawLimits(t, f.V6, addr)
	}
	if rapid.Bool().Draw(t, "docker") {
		f.DockerBridges = []string{"docker0"}
	}
	return f
}

// drawLimits returns rows of limits, no two of one place, in the order in which a policy has them.
func drawLimits(t *rapid.T, v6 bool, addr func(int) netip.Addr) []firewall.Limit {
	var out []firewall.Limit
	for i := range rapid.IntRange(0, 3).Draw(t, "limits") {
		l := firewall.Limit{
			Proto: rapid.SampledFrom([]state.Proto{state.TCP, state.UDP}).Draw(t, "proto"),
			Of:    state.EndpointID(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "of")),
			Links: rapid.SampledFrom([]state.LinkNames{"", "eth0", "eth1:eth0:eth1"}).Draw(t, "by"),
		}
		l.BySource = l.Links == "" || rapid.Bool().Draw(t, "by source")
		if l.BySource {
			l.From = rapid.SampledFrom(map[bool][]state.Prefixes{
				false: {"", "0.0.0.0/0", "192.0.2.0/24,192.0.2.7/32,198.51.100.7/32"}, true: {"", "::/0", "2001:db8::/32,2001:db8::1/128,2001:db9::1/128"},
			}[v6]).Draw(t, "from")
		}
		if host := rapid.IntRange(0, 2).Draw(t, "host"); host > 0 {
			l.Host = addr(100 + host)
		}
		first := 100*i + rapid.IntRange(1, 30).Draw(t, "first")
		for port := range rapid.IntRange(1, 5).Draw(t, "length") {
			l.Port = uint16(first + port)
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b firewall.Limit) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), b.Host.Compare(a.Host))
	})
	return out
}

func drawPolicy(t *rapid.T) firewall.Policy {
	p := firewall.Policy{V6: firewall.Family{V6: true}}
	if rapid.Bool().Draw(t, "v4") {
		p.V4 = drawFamily(t, false)
	}
	if rapid.Bool().Draw(t, "v6") {
		p.V6 = drawFamily(t, true)
	}
	return p
}

// TestDifference goes from policy to policy: the kernel takes each step, has then what was wanted, and as much as if
// it never had anything else.
func TestDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &fakeKernel{}
		alone := rapid.Bool().Draw(t, "alone")
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			want := Render(drawPolicy(t), alone)
			have, _ := k.read()
			if _, err := k.commit(k.gen, difference(have, want)); err != nil {
				t.Fatal(err)
			}
			have, _ = k.read()
			if edits := difference(have, want); len(edits) > 0 {
				t.Fatalf("still to do: %v", edits)
			}
			if edits := difference(want.holds(), want); len(edits) > 0 {
				t.Fatalf("not known to be done: %v", edits)
			}
		}
	})
}

// TestMembership: sets of intervals leave out what others hold, and hold no address less or more.
func TestMembership(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFamily(t, false)
		f.Strangers = true
		n := namesOf(false)
		in := func(set string, key string) bool {
			for _, s := range sets(f, n) {
				if s.Name == set {
					for _, e := range s.Elements {
						if s.overlap(e, Element{Key: key, End: key}) {
							return true
						}
					}
				}
			}
			return false
		}
		a := address(fmt.Sprintf("10.0.%d.%d", rapid.IntRange(0, 255).Draw(t, "c"), rapid.IntRange(0, 255).Draw(t, "d")))
		var member, masqueraded, apart, published bool
		for _, network := range f.Networks {
			if network.Prefix.Contains(a) {
				member = true
				masqueraded = masqueraded || network.Masquerade
				apart = apart || network.NoICC && network.Bridge == "br-a"
			}
		}
		port := uint16(rapid.IntRange(1, 50).Draw(t, "port"))
		target := address("10.0.1.0")
		for _, r := range runs(f.Ports) {
			first := r.Target.Port()
			published = published || r.Proto == state.TCP && r.Target.Addr() == target && first <= port && port <= first+r.last-r.HostPort
		}
		key := pack(packAddr(target), packProto(state.TCP), packPort(port))
		for name, pair := range map[string][2]bool{
			n.subnets:    {member, in(n.subnets, packAddr(a))},
			n.masquerade: {masqueraded, in(n.masquerade, packAddr(a))},
			n.apart:      {apart, in(n.apart, pack(packAddr(a), packName("br-a")))},
			n.ports:      {published, in(n.ports, key) || in(n.portRanges, key)},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s: %v, wanted %v", name, pair[1], pair[0])
			}
		}
	})
}

// TestForgetsVisits: with a port that is learned no more goes the knowledge of who was let in to it, and with no other change.
func TestForgetsVisits(t *testing.T) {
	b := newBed()
	p := sample()
	b.sync(t, p)
	for _, v6 := range []bool{false, true} {
		n := namesOf(v6)
		for _, name := range []string{n.asked, n.learned} {
			s := b.kernel.table.sets[name]
			s.Elements = []Element{{}}
			b.kernel.table.sets[name] = s
		}
	}
	left := func() (sets []string) {
		for _, name := range []string{"asked4", "asked6", "learned4", "learned6"} {
			if len(b.kernel.table.sets[name].Elements) > 0 {
				sets = append(sets, name)
			}
		}
		return sets
	}
	b.sync(t, oneMore(p))
	b.sync(t, p)
	if got := left(); len(got) != 4 {
		t.Fatalf("after a port that nobody learns: %v", got)
	}
	p.V4.Ports = slices.Clone(p.V4.Ports)
	i := slices.IndexFunc(p.V4.Ports, func(p firewall.Port) bool { return p.Learned })
	p.V4.Ports[i].Learned = false
	b.sync(t, p)
	b.check(t, p)
	if got := left(); !slices.Equal(got, []string{"asked6", "learned6"}) {
		t.Errorf("after a port of IPv4 that is learned no more: %v", got)
	}
}
