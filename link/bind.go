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

// On a network that keeps containers apart, who a packet comes from decides where it may go. So addresses are bound there: the bridge
// knows from us, and learns from nobody, which IP address has which MAC address, and behind which port that is. A port takes
// no frame with another container's (IFLA_BRPORT_LOCKED, Linux 5.18; older kernels go without).

// ntfSticky is NTF_STICKY of linux/neighbour.h: what the bridge hears elsewhere does not move the entry.
const ntfSticky = 0x40

// bindings are the addresses that are bound on the host.
type bindings struct {
	neighbours map[boundNeighbour]state.MAC // permanent ones
	stations   map[station]bool             // static ones
}

type boundNeighbour struct {
	link int // index of the bridge
	addr netip.Addr
}

type station struct {
	port int // index
	mac  state.MAC
}

// readBindings lists what is bound, if one of the networks needs that.
func (l *Links) readBindings(networks []state.Network) (bindings, error) {
	b := bindings{map[boundNeighbour]state.MAC{}, map[station]bool{}}
	for _, n := range networks {
		if binds(n) {
			return b, l.listBindings(b)
		}
	}
	return b, nil
}

// binds reports whether addresses are bound on the network. On an adopted bridge they are its owner's.
func binds(n state.Network) bool { return n.NoICC && !n.Adopted }

func (l *Links) listBindings(b bindings) error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6, unix.AF_BRIDGE} {
		list, err := dumped(func() ([]netlink.Neigh, error) { return l.handle.NeighList(0, family) })
		if err != nil {
			return fmt.Errorf("listing the host's neighbours: %w", err)
		}
		for _, n := range list {
			if len(n.HardwareAddr) != len(state.MAC{}) {
				continue
			}
			mac := state.MAC(n.HardwareAddr)
			switch addr, ok := netip.AddrFromSlice(n.IP); {
			case family == unix.AF_BRIDGE:
				if n.State&netlink.NUD_NOARP != 0 && n.Flags&ntfSticky != 0 {
					b.stations[station{n.LinkIndex, mac}] = true
				}
			case ok && n.State&netlink.NUD_PERMANENT != 0 && n.Flags&netlink.NTF_PROXY == 0:
				b.neighbours[boundNeighbour{n.LinkIndex, addr.Unmap()}] = mac
			}
		}
	}
	return nil
}

// bindStation ties the endpoint's MAC address to its port, and reports whether the port takes no other.
func (l *Links) bindStation(link netlink.Link, have bindings, now port, e state.Endpoint) (locked bool, err error) {
	if !have.stations[station{link.Attrs().Index, e.MAC}] {
		l.journal.note(link.Attrs().Name, "%s is not tied to bridge port %s", e.MAC, link.Attrs().Name)
		err := l.handle.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP,
			Flags: netlink.NTF_MASTER | ntfSticky, HardwareAddr: net.HardwareAddr(e.MAC[:]),
		})
		if err != nil {
			return now.locked, fmt.Errorf("tying %s to bridge port %s: %w", e.MAC, link.Attrs().Name, err)
		}
	}
	if now.locked {
		return true, nil
	}
	err = l.lock(link)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("locking bridge port %s: %w", link.Attrs().Name, err)
	}
	return true, nil
}

// bindNeighbours ties the IP addresses of the network's endpoints to their MAC addresses, and unties what is not theirs any more.
func (l *Links) bindNeighbours(inv inventory, have bindings, n state.Network, endpoints []state.Endpoint) error {
	bridge, ok := inv[n.Bridge]
	if !ok || !binds(n) || !carries(bridge, n) {
		return nil
	}
	index := bridge.Attrs().Index
	wanted := map[netip.Addr]state.MAC{}
	for _, e := range endpoints {
		if e.Network == n.ID {
			for _, a := range e.Addrs() {
				wanted[a] = e.MAC
			}
		}
	}
	var errs []error
	for key := range have.neighbours {
		if _, keep := wanted[key.addr]; key.link == index && !keep {
			l.journal.note(n.Bridge, "%s is tied to %s on %s", key.addr, have.neighbours[key], n.Bridge)
			errs = append(errs, l.unbind(index, key.addr))
		}
	}
	for a, mac := range wanted {
		if have.neighbours[boundNeighbour{index, a}] != mac {
			l.journal.note(n.Bridge, "%s is not tied to %s on %s", a, mac, n.Bridge)
			errs = append(errs, l.bind(index, a, mac))
		}
	}
	return errors.Join(errs...)
}

func (l *Links) bind(bridge int, a netip.Addr, mac state.MAC) error {
	err := l.handle.NeighSet(&netlink.Neigh{
		LinkIndex: bridge, Family: familyOf(a), State: netlink.NUD_PERMANENT,
		IP: a.AsSlice(), HardwareAddr: net.HardwareAddr(mac[:]),
	})
	if err != nil {
		return fmt.Errorf("tying %s to %s: %w", a, mac, err)
	}
	return nil
}

func (l *Links) unbind(bridge int, a netip.Addr) error {
	err := l.handle.NeighDel(&netlink.Neigh{LinkIndex: bridge, Family: familyOf(a), IP: a.AsSlice()})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("untying %s: %w", a, err)
	}
	return nil
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
