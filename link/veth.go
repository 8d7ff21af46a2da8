package link

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// ensureVeth makes the endpoint's veth pair, its host's end a port of the bridge.
func (l *Links) ensureVeth(have inventory, n state.Network, e state.Endpoint) error {
	bridge, ok := have[n.Bridge]
	if !ok {
		return nil // the network's own failure has been reported
	}
	link, ok := have[e.HostLink()]
	switch {
	case !ok && e.Joined():
		return nil // the container took its end with it
	case !ok:
		return l.addVeth(have, bridge, n, e)
	case link.Attrs().Alias != e.Alias():
		return fmt.Errorf("a link named %s exists already on this host and is not ours", e.HostLink())
	}
	return l.adjustVeth(link, bridge, n, e)
}

// addVeth creates both ends with one request. The host's end is born in its group and as a
// port of the bridge.
func (l *Links) addVeth(have inventory, bridge netlink.Link, n state.Network, e state.Endpoint) error {
	if stray, ok := have[e.ContainerLink()]; ok {
		if err := l.remove(stray); err != nil {
			return err
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = e.HostLink(), state.GroupPort
	attrs.MTU, attrs.MasterIndex = n.MTU, bridge.Attrs().Index
	veth := netlink.NewVeth(attrs)
	veth.PeerName = e.ContainerLink()
	veth.PeerHardwareAddr = net.HardwareAddr(e.MAC[:])
	veth.PeerMTU = uint32(n.MTU)
	if err := l.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("creating the veth pair %s: %w", e.HostLink(), err)
	}
	if _, err := l.named(e.HostLink(), e.Alias()); err != nil {
		return err
	}
	// A bridge port needs no address; without this it would announce itself.
	return l.sysctl.set("net/ipv6/conf/"+e.HostLink()+"/disable_ipv6", "1")
}

func (l *Links) adjustVeth(link, bridge netlink.Link, n state.Network, e state.Endpoint) error {
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := l.handle.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("attaching %s to %s: %w", e.HostLink(), n.Bridge, err)
		}
	}
	if err := l.setGroup(link, state.GroupPort); err != nil {
		return err
	}
	return l.setMTU(link, n.MTU)
}

// raiseVeth brings the host's end up, and lets its port send a frame back where it came
// from if that is what a container needs to reach itself by a published port.
func (l *Links) raiseVeth(have inventory, e state.Endpoint) error {
	link, ok := have[e.HostLink()]
	if !ok {
		return nil
	}
	if err := l.raise(link); err != nil {
		return err
	}
	return l.setHairpin(link, len(e.Ports) > 0 && l.bridgeNetfilter())
}

// setHairpin is needed only where br_netfilter translates addresses within the bridge: otherwise
// such packets are routed, and leave the bridge itself.
func (l *Links) setHairpin(link netlink.Link, on bool) error {
	info, err := l.handle.LinkGetProtinfo(link)
	if err != nil {
		return fmt.Errorf("reading the bridge port %s: %w", link.Attrs().Name, err)
	}
	if info.Hairpin == on {
		return nil
	}
	if err := l.handle.LinkSetHairpin(link, on); err != nil {
		return fmt.Errorf("setting hairpin mode of %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// bridgeNetfilter reports whether bridged packets pass iptables on this host.
func (l *Links) bridgeNetfilter() bool {
	v, err := l.sysctl.get("net/bridge/bridge-nf-call-iptables")
	return err == nil && v == "1"
}
