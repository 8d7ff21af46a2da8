package link

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// On a network that keeps containers apart their bridge ports are isolated: no frame goes from one to another. For
// linked containers the bridge answers in place of the other one (proxy_arp_pvlan, RFC 3069; proxy_ndp), so
// that their packets come to the host, which routes them through FORWARD, where only those of the link pass.

// proxySwitches make a bridge answer for others.
func proxySwitches(bridge string) []string {
	return []string{"net/ipv4/conf/" + bridge + "/proxy_arp_pvlan", "net/ipv6/conf/" + bridge + "/proxy_ndp"}
}

// proxyManners are switched off while they are on: the host must not tell containers of a shorter way, since
// there is none, nor hold back answers for others for up to 0.8 s.
func proxyManners(bridge string) []string {
	return []string{
		"net/ipv4/conf/" + bridge + "/send_redirects",
		"net/ipv4/neigh/" + bridge + "/proxy_delay", "net/ipv6/neigh/" + bridge + "/proxy_delay",
	}
}

// ensureProxies makes the bridge answer for the linked containers of its network, and for nobody else. On an adopted
// bridge it would answer its owner's machines too, for the whole subnet: there are no links there.
func (l *Links) ensureProxies(have inventory, n state.Network, endpoints []state.Endpoint) error {
	link, ok := have[n.Bridge]
	if !ok || !n.NoICC || n.Adopted || !carries(link, n) {
		return nil
	}
	linked := n.Linkages(endpoints)
	if len(linked) == 0 {
		return l.stopProxies(link)
	}
	wanted := map[netip.Addr]bool{}
	for _, pair := range linked {
		for _, e := range []state.Endpoint{pair.From, pair.To} {
			if a := e.Addr(true); a.IsValid() && !l.NoLinksV6 {
				wanted[a] = true
			}
		}
	}
	return errors.Join(l.setAll(n.Bridge, proxySwitches(n.Bridge), "1"), l.setAll(n.Bridge, proxyManners(n.Bridge), "0"), l.setProxies(link, wanted))
}

// stopProxies makes the bridge answer for itself alone, and gives its manners back. The switches go off last: they
// tell that there is something to give back, also to a process that finds things half done, or a pass after one that
// failed. Where they are off the manners are somebody else's.
func (l *Links) stopProxies(link netlink.Link) error {
	name := link.Attrs().Name
	for _, key := range proxySwitches(name) {
		if on, _ := l.sysctl.get(key); on == "1" { // absent without IPv6
			if err := l.resetAll(proxyManners(name), name); err != nil {
				return errors.Join(err, l.setProxies(link, nil))
			}
			return errors.Join(l.setAll(name, proxySwitches(name), "0"), l.setProxies(link, nil))
		}
	}
	return l.setProxies(link, nil)
}

// resetAll gives the link the values that a new one would have. Below neigh only the first network namespace
// has a default; what nobody changes in the others are those of lo.
func (l *Links) resetAll(keys []string, link string) error {
	var errs []error
	for _, key := range keys {
		for _, other := range []string{"default", "lo"} {
			value, err := l.sysctl.get(strings.Replace(key, "/"+link+"/", "/"+other+"/", 1))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = l.giveBack(link, key, value)
			}
			errs = append(errs, err)
			break
		}
	}
	return errors.Join(errs...)
}

func (l *Links) setAll(link string, keys []string, value string) error {
	var errs []error
	for _, key := range keys {
		errs = append(errs, l.set(link, key, value))
	}
	return errors.Join(errs...)
}

// setProxies makes the IPv6 addresses for which the link answers those that are wanted. IPv4 has no such list:
// proxy_arp_pvlan answers for the whole subnet.
func (l *Links) setProxies(link netlink.Link, wanted map[netip.Addr]bool) error {
	current, err := dumped(func() ([]netlink.Neigh, error) {
		return l.handle.NeighProxyList(link.Attrs().Index, netlink.FAMILY_V6)
	})
	if err != nil {
		return fmt.Errorf("listing the proxy neighbours of %s: %w", link.Attrs().Name, err)
	}
	have := map[netip.Addr]bool{}
	for _, neigh := range current {
		a, _ := netip.AddrFromSlice(neigh.IP)
		have[a] = true
		if wanted[a] {
			continue
		}
		l.journal.note(link.Attrs().Name, "link %s answers for %s", link.Attrs().Name, a)
		if err := l.handle.NeighDel(proxyNeigh(link, a)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing proxy neighbour %s from %s: %w", a, link.Attrs().Name, err)
		}
	}
	for a := range wanted {
		if have[a] {
			continue
		}
		l.journal.note(link.Attrs().Name, "link %s does not answer for %s", link.Attrs().Name, a)
		if err := l.handle.NeighAdd(proxyNeigh(link, a)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding proxy neighbour %s to %s: %w", a, link.Attrs().Name, err)
		}
	}
	return nil
}

// proxyNeigh is permanent, or it would go when the bridge loses its carrier, with its last container. Older kernels
// (before 6.0) do not know that of proxy neighbours; the pass that follows the event adds it again.
func proxyNeigh(link netlink.Link, a netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V6, Flags: netlink.NTF_PROXY, State: netlink.NUD_PERMANENT, IP: a.AsSlice(),
	}
}
