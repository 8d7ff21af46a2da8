package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// ensureBridge makes the network's bridge, or takes over the one it adopted, and gives it its addresses.
func (l *Links) ensureBridge(have inventory, addrs map[int][]netlink.Addr, n state.Network) error {
	if n.Adopted {
		return l.ensureAdopted(have, addrs, n)
	}
	link, ok := have[n.Bridge]
	if !ok {
		var err error
		if link, err = l.addBridge(n); err != nil {
			return err
		}
		have[n.Bridge] = link
	}
	if !carries(link, n) {
		return fmt.Errorf("a link named %s exists already on this host: choose another name with -o com.docker.network.bridge.name=…", n.Bridge)
	}
	if err := l.setGroup(link, n.Group()); err != nil {
		return err
	}
	if err := l.setMTU(link, n.LinkMTU()); err != nil {
		return err
	}
	if err := l.configureIPv6(n); err != nil {
		return err
	}
	// By a source route, an option of IPv4, a packet would get to the host's loopback addresses that names another destination,
	// for which no guard looks.
	if err := l.set(n.Bridge, "net/ipv4/conf/"+n.Bridge+"/accept_source_route", "0"); err != nil {
		return err
	}
	return l.ensureAddresses(link, addrs[link.Attrs().Index], n)
}

// carries reports whether the link is the bridge of the network.
func carries(link netlink.Link, n state.Network) bool {
	if n.Adopted {
		a, ok := parseAdoption(link.Attrs().Alias)
		return ok && a.network == n.ID
	}
	return link.Attrs().Alias == n.Alias()
}

// addBridge creates the bridge, down and in its group, by which it is ours from the first moment. The
// MAC address is made from the id: left to the kernel it would change with the ports.
//
// The MTU is not given here: only one that is set afterwards is kept, any other the bridge
// adjusts to its ports (br_mtu_auto_adjust).
func (l *Links) addBridge(n state.Network) (netlink.Link, error) {
	mac := bridgeMAC(n)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = n.Bridge, n.Group()
	attrs.HardwareAddr = net.HardwareAddr(mac[:])
	if err := l.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("creating bridge %s: %w", n.Bridge, err)
	}
	return l.named(n.Bridge, n.Alias())
}

// bridgeMAC is the address of a bridge that is ours.
func bridgeMAC(n state.Network) state.MAC { return state.GenerateMAC(string(n.ID)) }

// named gives a link that was just made its alias, which the kernel takes only for
// links that exist, and returns it.
func (l *Links) named(name, alias string) (netlink.Link, error) {
	link, err := l.handle.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("reading link %s: %w", name, err)
	}
	if err := l.handle.LinkSetAlias(link, alias); err != nil {
		return nil, fmt.Errorf("setting the alias of %s: %w", name, err)
	}
	link.Attrs().Alias = alias
	return link, nil
}

func (l *Links) setGroup(link netlink.Link, group uint32) error {
	if link.Attrs().Group == group {
		return nil
	}
	if err := l.handle.LinkSetGroup(link, int(group)); err != nil {
		return fmt.Errorf("setting the group of %s: %w", link.Attrs().Name, err)
	}
	link.Attrs().Group = group
	return nil
}

func (l *Links) setMTU(link netlink.Link, mtu int) error {
	if mtu == 0 || link.Attrs().MTU == mtu {
		return nil
	}
	if err := l.handle.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("setting the MTU of %s to %d: %w", link.Attrs().Name, mtu, err)
	}
	return nil
}

// configureIPv6 switches IPv6 on the bridge on or off, and router advertisements off: what a
// container advertises must not give the host a route. Off, the bridge still carries the
// containers' packets; the host has no part in it, not even by link-local addresses.
//
// Nor is there anybody to have the bridge's own link-local address, which is made from its MAC address: without asking around for it
// (accept_dad), the host can look for containers at once on behalf of others, and not seconds after the bridge is up.
func (l *Links) configureIPv6(n state.Network) error {
	if n.V6.IsZero() || n.V6.Mode == state.ModeIsolated {
		return l.set(n.Bridge, disableIPv6(n.Bridge), "1")
	}
	if err := l.set(n.Bridge, disableIPv6(n.Bridge), "0"); err != nil {
		return fmt.Errorf("enabling IPv6 on %s: %w", n.Bridge, err)
	}
	if err := l.set(n.Bridge, "net/ipv6/conf/"+n.Bridge+"/accept_dad", "0"); err != nil {
		return err
	}
	return l.set(n.Bridge, "net/ipv6/conf/"+n.Bridge+"/accept_ra", "0")
}

// ensureAddresses puts the gateway addresses on the bridge and takes off addresses that are
// neither those nor link-local.
func (l *Links) ensureAddresses(link netlink.Link, current []netlink.Addr, n state.Network) error {
	wanted := bridgeAddrs(n)
	for _, a := range current {
		p := prefixOf(a.IPNet)
		if wanted[p] || p.Addr().IsLinkLocalUnicast() && p.Addr().Is6() {
			delete(wanted, p)
			continue
		}
		l.journal.note(n.Bridge, "link %s has the address %s, which is not its network's", n.Bridge, p)
		if err := l.handle.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("removing address %s from %s: %w", p, n.Bridge, err)
		}
	}
	for p := range wanted {
		if err := l.addAddress(link, p); err != nil {
			return err
		}
	}
	return nil
}

// bridgeAddrs are the addresses that the network's bridge shall have.
func bridgeAddrs(n state.Network) map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	for _, s := range n.Subnets() {
		if p, ok := s.BridgeAddr(); ok {
			out[p] = true
		}
	}
	return out
}

// addAddress skips duplicate address detection: the address is the gateway's whatever
// others say, and must work at once (RFC 4862 would hold it back for a second).
func (l *Links) addAddress(link netlink.Link, p netip.Prefix) error {
	return addAddress(l.handle, link, p)
}

func addAddress(handle editor, link netlink.Link, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := handle.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding address %s to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

// raiseBridge brings the bridge up.
func (l *Links) raiseBridge(have inventory, n state.Network) error {
	link, ok := have[n.Bridge]
	if !ok || !carries(link, n) {
		return nil // Prepare has said why
	}
	if err := l.openLoopback(n); err != nil {
		return err
	}
	if err := l.raise(link); err != nil {
		return err
	}
	l.leave(link.Attrs().Index, bridgeCondition(n, link.Attrs().Alias))
	return nil
}

func (l *Links) raise(link netlink.Link) error {
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := l.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %s up: %w", link.Attrs().Name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

func gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}
