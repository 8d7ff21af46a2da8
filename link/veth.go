package link

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// ensureVeth makes the endpoint's veth pair, its host's end a port of the bridge.
func (l *Links) ensureVeth(have inventory, n state.Network, e state.Endpoint) error {
	bridge, ok := have[n.Bridge]
	if !ok || !carries(bridge, n) {
		return nil // the network's own failure has been reported
	}
	link, ok := have[e.HostLink()]
	switch {
	case !ok && e.Joined():
		return nil // rewire's, if its container is still there
	case !ok:
		link, err := l.addVeth(bridge, n, e)
		if link != nil { // also one that lacks something: it is to be guarded
			have[e.HostLink()] = link
		}
		return err
	case !e.Carries(link.Attrs().Alias):
		return fmt.Errorf("a link named %s exists already on this host and is not ours: rename it", e.HostLink())
	}
	return l.adjustVeth(link, bridge, n, e)
}

// addVeth creates both ends with one request. The host's end is born in its group and as a
// port of the bridge.
func (l *Links) addVeth(bridge netlink.Link, n state.Network, e state.Endpoint) (netlink.Link, error) {
	veth := newVeth(bridge, n, e)
	veth.PeerName = e.ContainerLink()
	switch err := l.handle.LinkAdd(veth); {
	case errors.Is(err, unix.EEXIST):
		return nil, fmt.Errorf("a link named %s or %s exists already on this host and is not ours: rename it", e.HostLink(), e.ContainerLink())
	case err != nil:
		return nil, fmt.Errorf("creating the veth pair %s: %w", e.HostLink(), err)
	}
	link, err := l.named(e.HostLink(), e.Alias())
	if err != nil {
		return nil, err
	}
	return link, l.silence(e)
}

// newVeth is the pair with all that the kernel takes in the request that makes it, but for the name of the container's end.
func newVeth(bridge netlink.Link, n state.Network, e state.Endpoint) *netlink.Veth {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = e.HostLink(), state.GroupPort
	attrs.MTU, attrs.MasterIndex = n.LinkMTU(), bridge.Attrs().Index
	mac := hostMAC(e)
	attrs.HardwareAddr = mac[:]
	veth := netlink.NewVeth(attrs)
	veth.PeerHardwareAddr = net.HardwareAddr(e.MAC[:])
	veth.PeerMTU = uint32(n.LinkMTU())
	return veth
}

// silence keeps the host's end from having an address, which a bridge port does not need: it would announce itself.
func (l *Links) silence(e state.Endpoint) error {
	return l.set(e.HostLink(), disableIPv6(e.HostLink()), "1")
}

// hostMAC is the address of the host's end. A bridge that was given none, as an adopted one may be, has the lowest of
// its ports' addresses: none that begins with fe is the lowest beside a real network card.
func hostMAC(e state.Endpoint) state.MAC {
	mac := state.GenerateMAC("host " + string(e.ID))
	mac[0] = 0xfe
	return mac
}

func (l *Links) adjustVeth(link, bridge netlink.Link, n state.Network, e state.Endpoint) error {
	if err := l.setAlias(link, e.Alias()); err != nil {
		return err
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := l.attach(link, bridge, n); err != nil {
			return err
		}
	}
	if err := l.setGroup(link, state.GroupPort); err != nil {
		return err
	}
	if err := l.setMTU(link, n.LinkMTU()); err != nil {
		return err
	}
	return l.silence(e)
}

// attach makes the link a port of the bridge. It is down meanwhile, so that no frame passes before the port is isolated where it
// has to be; Activate brings it up again.
func (l *Links) attach(link, bridge netlink.Link, n state.Network) error {
	if n.NoICC {
		l.take(link)
		if err := l.handle.LinkSetDown(link); err != nil {
			return fmt.Errorf("taking %s down: %w", link.Attrs().Name, err)
		}
	}
	if err := l.handle.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("attaching %s to %s: %w", link.Attrs().Name, bridge.Attrs().Name, err)
	}
	return nil
}

// raiseVeth brings the host's end up. Its port is isolated before, where the network keeps containers
// apart, and lets frames back where they came from if that is what a container needs to reach
// itself by a published port.
func (l *Links) raiseVeth(have inventory, ports map[int]port, bound bindings, n state.Network, e state.Endpoint) error {
	link, ok := have[e.HostLink()]
	if !ok || !e.Carries(link.Attrs().Alias) {
		return nil // the container took it with it, or Prepare has said why
	}
	now, isPort := ports[link.Attrs().Index]
	if !isPort {
		return nil // it has just been taken off the bridge, and will be put back
	}
	hairpin := e.Publishes() && l.bridgeNetfilter()
	index, master := link.Attrs().Index, link.Attrs().MasterIndex
	left := portCondition(n, e, master, port{hairpin: hairpin, isolated: n.NoICC, locked: now.locked})
	l.takeUnless(index, left)
	if now.isolated != n.NoICC {
		if err := l.handle.LinkSetIsolated(link, n.NoICC); err != nil {
			return fmt.Errorf("isolating bridge port %s: %w", link.Attrs().Name, err)
		}
	}
	if binds(n) {
		var err error
		if left.port.locked, err = l.bindStation(link, bound, now, e); err != nil {
			return err
		}
	}
	if now.hairpin != hairpin {
		if err := l.setHairpin(link, hairpin); err != nil {
			return err
		}
	}
	if err := l.raise(link); err != nil {
		return err
	}
	l.leave(index, left)
	return nil
}

// port is the settings of a bridge port that are ours to make.
type port struct{ hairpin, isolated, locked bool }

// setHairpin is needed only where br_netfilter translates addresses within the bridge: otherwise
// such packets are routed, and leave the bridge itself.
func (l *Links) setHairpin(link netlink.Link, on bool) error {
	if err := l.handle.LinkSetHairpin(link, on); err != nil {
		return fmt.Errorf("setting hairpin mode of %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// bridgePorts reads the settings of the part's bridge ports by the index of their link. The library has this for one
// port only, and lists all of them each time.
func (l *Links) bridgePorts(p part, have inventory) (map[int]port, error) {
	out := map[int]port{}
	if p.whole {
		return out, l.readPorts(out, unix.NLM_F_DUMP, 0)
	}
	for _, link := range have {
		if link.Type() != "veth" {
			continue
		}
		if err := l.readPorts(out, 0, link.Attrs().Index); err != nil && !gone(err) {
			return nil, err
		}
	}
	return out, nil
}

// readPorts adds the bridge ports among the link with the index, or among all links.
func (l *Links) readPorts(ports map[int]port, flags, index int) error {
	messages, err := dumped(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, flags)
		req.Sockets = l.ports
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(index)
		req.AddData(msg)
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return fmt.Errorf("listing the bridge ports: %w", err)
	}
	for _, m := range messages {
		info := first(m[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO)
		if text(first(info, nl.IFLA_INFO_SLAVE_KIND)) == "bridge" {
			ports[int(nl.DeserializeIfInfomsg(m).Index)] = portOf(first(info, nl.IFLA_INFO_SLAVE_DATA))
		}
	}
	return nil
}

func portOf(settings []byte) port {
	is := func(kind uint16) bool {
		value := first(settings, kind)
		return len(value) > 0 && value[0] != 0
	}
	return port{hairpin: is(nl.IFLA_BRPORT_MODE), isolated: is(nl.IFLA_BRPORT_ISOLATED), locked: is(brportLocked)}
}

// brportLocked is IFLA_BRPORT_LOCKED of linux/if_link.h, which the library lacks.
const brportLocked = 39

// lock has the port take no frame but from the addresses that are tied to it. That it does so already is no difference where the
// kernel cannot do it.
func (l *Links) lock(link netlink.Link) error {
	if l.locks {
		l.journal.noteOpen(link.Attrs().Name, "bridge port %s is not locked", link.Attrs().Name)
	}
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.Sockets = l.ports
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(link.Attrs().Index)
	req.AddData(msg)
	settings := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	settings.AddRtAttr(brportLocked, []byte{1})
	req.AddData(settings)
	if err := l.journal.execute("port.lock", req); err != nil || l.journal.looking {
		return err
	}
	// Older kernels pass over settings that they do not know.
	now := map[int]port{}
	if err := l.readPorts(now, 0, link.Attrs().Index); err != nil {
		return err
	}
	if !now[link.Attrs().Index].locked {
		return unix.EOPNOTSUPP
	}
	l.locks = true
	return nil
}

// bridgeNetfilter reports whether bridged packets of either family pass iptables on this host.
func (l *Links) bridgeNetfilter() bool {
	v4, _ := l.sysctl.get("net/bridge/bridge-nf-call-iptables") // absent without br_netfilter
	v6, _ := l.sysctl.get("net/bridge/bridge-nf-call-ip6tables")
	return v4 == "1" || v6 == "1"
}
