package link

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// FitNetwork says whether the host has room for a new network, and fills in what depends on the host. A bridge of
// the name must be there already, to be adopted, or the name must be free; the subnets must not overlap one that
// another link of the host is on, since the kernel could then reach only one of the two.
func (l *Links) FitNetwork(ctx context.Context, n state.Network) (state.Network, error) {
	bridge, err := l.handle.LinkByName(n.Bridge)
	if err != nil && !gone(err) {
		return n, fmt.Errorf("reading link %s: %w", n.Bridge, err)
	}
	if err == nil && !ours(bridge) {
		if err := checkAdoption(bridge, n); err != nil {
			return n, err
		}
		n.Adopted = true
	}
	if err := l.checkOverlap(ctx, n); err != nil {
		return n, err
	}
	n.HostMTU, err = l.hostMTU(ctx, bridge, n)
	return n, err
}

// checkOverlap asks only for links that are in the way: there may be hundreds of bridges.
func (l *Links) checkOverlap(ctx context.Context, n state.Network) error {
	for _, s := range n.Subnets() {
		behind := map[int]netip.Prefix{} // by link
		err := l.scanner.addresses(ctx, familyOf(s.Prefix.Addr()), 0, func(a hostAddr) {
			for _, p := range []netip.Prefix{netip.PrefixFrom(a.local, a.local.BitLen()), a.to} {
				// Link-local addresses are on many links at once.
				if s.Prefix.Overlaps(p) && !p.Addr().IsLinkLocalUnicast() {
					behind[a.link] = p.Masked()
				}
			}
		})
		if err != nil {
			return fmt.Errorf("listing the host's addresses: %w", err)
		}
		for index, p := range behind {
			link, err := l.handle.LinkByIndex(index)
			switch {
			case gone(err):
			case err != nil:
				return fmt.Errorf("reading the link that has %s: %w", p, err)
			case ours(link), adopted(link), link.Attrs().Name == n.Bridge: // networks of ours are compared in the state
			default:
				return fmt.Errorf("subnet %s overlaps %s, which is on this host's link %s: choose another with --subnet", s.Prefix, p, link.Attrs().Name)
			}
		}
	}
	return nil
}

// ForeignBridges returns the names of the host's bridges that are not ours.
func (l *Links) ForeignBridges() ([]string, error) {
	var out []string
	err := l.scanner.links(context.Background(), "bridge", func(link netlink.Link) {
		if !ours(link) && !adopted(link) {
			out = append(out, link.Attrs().Name)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listing the host's bridges: %w", err)
	}
	return out, nil
}

// Count returns how many links of ours are on the host, as far as it can be told.
func (l *Links) Count() (n int) {
	_ = l.scanner.links(context.Background(), "", func(link netlink.Link) {
		if ours(link) {
			n++
		}
	})
	return n
}

// InContainers counts the links of ours on this host whose other ends are in containers. It needs no Links and changes nothing.
func InContainers() (n int, err error) {
	s, err := newScanner()
	if err != nil {
		return 0, err
	}
	defer s.close()
	err = s.links(context.Background(), "veth", func(link netlink.Link) {
		if ours(link) && !doomed(link) && link.Attrs().NetNsID >= 0 {
			n++
		}
	})
	if err != nil {
		return 0, fmt.Errorf("listing the host's links: %w", err)
	}
	return n, nil
}

// Running reports whether the endpoint's container runs, though its link is gone: then it may get another (see rewire).
func (l *Links) Running(e state.Endpoint) bool {
	if _, err := l.handle.LinkByName(e.HostLink()); !gone(err) {
		return false // the engine has put the link back, or nobody knows
	}
	ns, ok := openNamespace(e.Sandbox)
	if ok {
		ns.Close()
	}
	return ok
}

// Lost returns those of the endpoints that are no container's any more: their veth pair is gone, as it goes
// with the container's network namespace, or the engine has put the container's end back. For a moment
// this is so, too, of an endpoint that is about to be joined.
func (l *Links) Lost(_ context.Context, endpoints []state.Endpoint) ([]state.Endpoint, error) {
	have, err := l.inventory()
	if err != nil {
		return nil, err
	}
	var out []state.Endpoint
	for _, e := range endpoints {
		_, paired := have[e.HostLink()]
		if _, back := have[e.ContainerLink()]; back || !paired {
			out = append(out, e)
		}
	}
	return out, nil
}
