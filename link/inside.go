package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// end is what passes have seen of an endpoint's link in its container.
type end struct {
	name string // "" while none has
	way  way
}

// way says in which families a container goes out by a link, if that is known.
type way struct{ known, v4, v6 bool }

// bars reports whether the container is known not to go out by the link.
func (w way) bars(v6 bool) bool {
	if v6 {
		return w.known && !w.v6
	}
	return w.known && !w.v4
}

// container is the inside of a running container.
type container struct {
	ns     netns.NsHandle
	handle editor
	sysctl Sysctl
	// journal is not read: what a link lacks that has just been made says nothing.
	journal journal
}

// enter gets hold of a container's links. The error is EPERM for those who may not.
func enter(ns netns.NsHandle, sysctl Sysctl) (*container, error) {
	c := &container{ns: ns, sysctl: sysctl}
	err := within(ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		c.handle = editor{h, &c.journal}
		return err
	})
	return c, err
}

func (c *container) close() { c.handle.Close() }

// names returns what the container's links are called.
func (c *container) names() (map[string]bool, error) {
	links, err := dumped(c.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing a container's links: %w", err)
	}
	out := map[string]bool{}
	for _, link := range links {
		out[link.Attrs().Name] = true
	}
	return out, nil
}

// configure does with a new link what the engine does with the one that it takes into a container: its addresses, up, and the
// way out, if that is how the container went out or nothing is known, and no other link of it has that. The link carries nothing
// until the host's end is up, too.
//
// Neighbours need not be told: the MAC address is the one that they know.
func (c *container) configure(name string, n state.Network, e state.Endpoint, before way) error {
	// Without IPv6 not even a link-local address: newer engines do so for each link, older ones for all to come.
	off := "1"
	if e.Addr6.IsValid() {
		off = "0"
	}
	if err := within(c.ns, func() error { return c.journal.set(c.sysctl, name, disableIPv6(name), off) }); err != nil {
		return err
	}
	link, err := c.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	// First, since the kernel has no routes of IPv6 for a link that is down.
	if err := c.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing it up: %w", err)
	}
	for _, p := range []netip.Prefix{e.Addr4, e.Addr6} {
		if !p.IsValid() {
			continue
		}
		if err := addAddress(c.handle, link, p); err != nil {
			return err
		}
	}
	var errs []error
	for _, v6 := range []bool{false, true} {
		if !before.bars(v6) {
			errs = append(errs, c.leadOut(link, e.RouterIn(n, v6)))
		}
	}
	return errors.Join(errs...)
}

// ways returns the names of the links by which the container goes out, in IPv4 (true) and in IPv6; "" for none.
func (c *container) ways() map[bool]string {
	out := map[bool]string{}
	for v4, addr := range anywhere {
		routes, err := c.handle.RouteGet(addr)
		if err != nil || len(routes) == 0 {
			continue
		}
		if link, err := c.handle.LinkByIndex(routes[0].LinkIndex); err == nil {
			out[v4] = link.Attrs().Name
		}
	}
	return out
}

// anywhere are addresses of nobody (RFC 5737, RFC 3849), to which only a default route leads.
var anywhere = map[bool]net.IP{true: net.ParseIP("192.0.2.1").To4(), false: net.ParseIP("2001:db8::1")}

// leadOut gives the container its default route in the family of the router, unless it has a way out, or rules of its own against
// one. The kernel is asked for one route: how many there are is the container's to say.
func (c *container) leadOut(link netlink.Link, router netip.Addr) error {
	if !router.IsValid() {
		return nil
	}
	if _, err := c.handle.RouteGet(anywhere[router.Is4()]); !errors.Is(err, unix.ENETUNREACH) {
		return nil
	}
	err := c.handle.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IP(router.AsSlice())})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding the default route by %s: %w", router, err)
	}
	return nil
}
