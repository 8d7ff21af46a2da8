package nftables

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// Purge implements firewall.Backend. What fails in one place does not spare the other.
func (b *Backend) Purge(ctx context.Context) error {
	return errors.Join(b.RemoveTable(ctx), b.neighbour.Purge(ctx))
}

// RemoveTable removes the table and nothing of iptables, for a host on which that has taken over. A table of that name
// that is not ours stays.
func (b *Backend) RemoveTable(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.looked = time.Time{} // what iptables has by now is not known
	var err error
	for range attempts {
		if err = b.removeTable(); !errors.Is(err, errChanged) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (b *Backend) removeTable() error {
	gen, err := b.kernel.generation()
	if lacking(err) {
		return nil
	}
	if err == nil {
		err = b.reread(gen)
	}
	if errors.Is(err, foreign(tableName)) {
		return nil
	}
	if err != nil {
		return err
	}
	return b.apply(difference(b.have(), Ruleset{}), firewall.Wanted{Policy: func(firewall.Host) firewall.Policy { return firewall.Policy{} }})
}

// lacking reports whether an error says that the kernel has no nftables: then there is no table either.
func lacking(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT)
}

// Leftover reports whether our table is on the host.
func (b *Backend) Leftover(context.Context) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	have, err := b.kernel.read()
	return err == nil && have != nil
}

// sample is a policy that has a use for every kind of rule and element.
func sample() firewall.Policy {
	family := func(v6 bool, prefix, one, two, host string) firewall.Family {
		addr := netip.MustParseAddr
		f := firewall.Family{
			V6: v6, Guard: true, Loopback: !v6, Divert: true, Inquire: true, DockerBridges: []string{"docker0"},
			Networks: []firewall.Network{{
				Prefix: netip.MustParsePrefix(prefix), Bridge: "br-one", Masquerade: true, SNAT: addr(host),
				NoICC: true, Routed: true, Unprotected: true, Trusted: []string{"eth0"},
			}},
			Links: []firewall.Link{{From: addr(one), To: firewall.Target{Proto: state.TCP, Addr: netip.AddrPortFrom(addr(two), 80)}}},
			Open:  []firewall.Target{{Proto: state.TCP, Addr: netip.AddrPortFrom(addr(one), 80)}},
		}
		for _, at := range []netip.Addr{{}, addr(host)} {
			f.Ports = append(f.Ports, firewall.Port{Proto: state.UDP, Host: at, HostPort: 53, Target: netip.AddrPortFrom(addr(two), 5353)})
			for port := uint16(8000); port < 8000+leastRange; port++ {
				f.Ports = append(f.Ports, firewall.Port{Proto: state.TCP, Host: at, HostPort: port, Target: netip.AddrPortFrom(addr(two), port)})
			}
		}
		f.Limited, f.Learns = true, true
		for port := uint16(9000); port < 9000+leastRange; port++ { // a single one, and a range
			for _, at := range []netip.Addr{{}, addr(host)} {
				f.Ports = append(f.Ports, firewall.Port{Proto: state.TCP, Host: at, HostPort: port, Target: netip.AddrPortFrom(addr(two), port), Inside: true, Learned: true})
				f.Limits = append(f.Limits, firewall.Limit{Proto: state.TCP, Host: at, Port: port, BySource: true, From: state.JoinPrefixes([]netip.Prefix{netip.MustParsePrefix(prefix)}), Links: "eth0"})
			}
		}
		f.Ports = append(f.Ports, firewall.Port{Proto: state.UDP, HostPort: 55, Target: netip.AddrPortFrom(addr(two), 5353), Inside: true, Learned: true})
		if f.Loopback {
			f.Ports = append(f.Ports, firewall.Port{Proto: state.UDP, Proxied: true, HostPort: 54, Target: netip.AddrPortFrom(addr(two), 5353)})
		}
		return f
	}
	return firewall.Policy{
		V4: family(false, "10.1.0.0/24", "10.1.0.2", "10.1.0.3", "192.0.2.1"),
		V6: family(true, "fd00:1::/64", "fd00:1::2", "fd00:1::3", "2001:db8::1"),
	}
}
