package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// An adopted bridge was there before its network, and stays. It gets our group, by which the firewall knows it,
// the gateway's addresses, and the containers' links. What has to be undone is written into its alias, in front of
// the alias that it had, so that a process with no memory can give it back:
//
//	drawbridge adopted 0123… 10.1.0.1/24,ipv6: uplink of the lab
//
// Its MTU, its ports and all its other settings are its owner's.

const adoptedPrefix = "drawbridge adopted "

// maxAlias is IFALIASZ of the kernel's linux/if.h, less the final zero.
const maxAlias = 255

// adoption is what the alias of an adopted bridge says.
type adoption struct {
	network state.NetworkID
	added   []netip.Prefix // addresses that are ours
	ipv6    bool           // IPv6 was off
	before  string         // the alias that it had
}

// String returns the alias.
func (a adoption) String() string {
	var items []string
	for _, p := range a.added {
		items = append(items, p.String())
	}
	if a.ipv6 {
		items = append(items, "ipv6")
	}
	if len(items) == 0 {
		items = []string{"-"}
	}
	return adoptedPrefix + string(a.network) + " " + strings.Join(items, ",") + ": " + a.before
}

// parseAdoption reads an alias, and says whether it is that of an adopted bridge.
func parseAdoption(alias string) (adoption, bool) {
	rest, ok := strings.CutPrefix(alias, adoptedPrefix)
	if !ok {
		return adoption{}, false
	}
	id, rest, _ := strings.Cut(rest, " ")
	items, before, _ := strings.Cut(rest, ": ")
	a := adoption{network: state.NetworkID(id), before: before}
	for item := range strings.SplitSeq(items, ",") {
		if p, err := netip.ParsePrefix(item); err == nil {
			a.added = append(a.added, p)
		}
		a.ipv6 = a.ipv6 || item == "ipv6"
	}
	return a, true
}

// adopted reports whether a link is a bridge that a network adopted.
func adopted(link netlink.Link) bool {
	a := link.Attrs()
	_, marked := parseAdoption(a.Alias)
	return marked || link.Type() == "bridge" && a.Group&state.GroupBridgeMask == state.GroupBridge && a.Group&state.GroupAdoptedBit != 0
}

// checkAdoption says whether a bridge that is there can be a network's.
func checkAdoption(link netlink.Link, n state.Network) error {
	name, a := link.Attrs().Name, link.Attrs()
	mark, marked := parseAdoption(a.Alias)
	switch {
	case link.Type() != "bridge":
		return fmt.Errorf("a link named %s exists already on this host and is no bridge: choose another name with -o com.docker.network.bridge.name=…", name)
	case state.DockerBridgeName(name):
		return fmt.Errorf("bridge %s is Docker's own: choose another name with -o com.docker.network.bridge.name=…", name)
	case marked && mark.network != n.ID:
		return fmt.Errorf("bridge %s is in use by another network of drawbridge", name)
	case a.Group != 0 && !marked && !n.Adopted:
		return fmt.Errorf("bridge %s is in device group %d, and drawbridge has to put it into its own: free it with `ip link set %s group default`", name, a.Group, name)
	case len(a.Alias) > maxAlias-len(adoption{network: n.ID, added: slices.Collect(keys(bridgeAddrs(n))), ipv6: true}.String()):
		return fmt.Errorf("the alias of bridge %s is too long to be kept: shorten it with `ip link set %s alias …`", name, name)
	}
	return nil
}

func keys(m map[netip.Prefix]bool) func(yield func(netip.Prefix) bool) {
	return func(yield func(netip.Prefix) bool) {
		for p := range m {
			if !yield(p) {
				return
			}
		}
	}
}

// ensureAdopted marks the bridge and gives it the addresses that it lacks. The mark comes first: what it
// names and is not there is no harm.
func (l *Links) ensureAdopted(have inventory, addrs map[int][]netlink.Addr, n state.Network) error {
	link, ok := have[n.Bridge]
	if !ok {
		return fmt.Errorf("bridge %s, which was there when the network was made, is gone: make it again (ip link add %s type bridge), or remove the network", n.Bridge, n.Bridge)
	}
	if err := checkAdoption(link, n); err != nil {
		return err
	}
	a, marked := parseAdoption(link.Attrs().Alias)
	if !marked || a.network != n.ID {
		a = l.adoptionOf(link, n)
	}
	lacks := missingAddrs(bridgeAddrs(n), addrs[link.Attrs().Index])
	for _, p := range lacks {
		if !slices.Contains(a.added, p) {
			a.added = append(a.added, p)
		}
	}
	l.takeUnless(link.Attrs().Index, bridgeCondition(n, a.String()))
	if err := l.setAlias(link, a.String()); err != nil {
		return err
	}
	if err := l.setGroup(link, n.Group()); err != nil {
		return err
	}
	if a.ipv6 {
		if err := l.set(n.Bridge, disableIPv6(n.Bridge), "0"); err != nil {
			return err
		}
	}
	for _, p := range lacks {
		if err := l.addAddress(link, p); err != nil {
			return err
		}
	}
	return nil
}

// adoptionOf says what the network is going to change of its owner's settings. What the owner has switched on is not
// ours to switch off.
func (l *Links) adoptionOf(link netlink.Link, n state.Network) adoption {
	off, _ := l.sysctl.get(disableIPv6(n.Bridge))
	return adoption{
		network: n.ID, before: link.Attrs().Alias,
		ipv6: off == "1" && !n.V6.IsZero() && n.V6.Mode != state.ModeIsolated,
	}
}

func disableIPv6(link string) string { return "net/ipv6/conf/" + link + "/disable_ipv6" }

// missingAddrs returns, sorted, what of the wanted addresses is not there.
func missingAddrs(wanted map[netip.Prefix]bool, current []netlink.Addr) []netip.Prefix {
	for _, a := range current {
		delete(wanted, prefixOf(a.IPNet))
	}
	return slices.SortedFunc(keys(wanted), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
}

func (l *Links) setAlias(link netlink.Link, alias string) error {
	if link.Attrs().Alias == alias {
		return nil
	}
	if err := l.handle.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("setting the alias of %s: %w", link.Attrs().Name, err)
	}
	link.Attrs().Alias = alias
	return nil
}

// release gives an adopted bridge back to its owner, as it was. The mark goes last.
func (l *Links) release(link netlink.Link) error {
	l.letGo(link)
	a, _ := parseAdoption(link.Attrs().Alias)
	var errs []error
	for _, p := range a.added {
		if err := l.handle.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !gone(err) {
			errs = append(errs, fmt.Errorf("removing address %s from %s: %w", p, link.Attrs().Name, err))
		}
	}
	if a.ipv6 {
		errs = append(errs, l.giveBack(link.Attrs().Name, disableIPv6(link.Attrs().Name), "1"))
	}
	errs = append(errs, l.setGroup(link, 0))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return l.setAlias(link, a.before)
}
