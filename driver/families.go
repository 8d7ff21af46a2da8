package driver

import (
	"context"
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// families are the families in which an endpoint publishes its container's ports. With Docker 28 and
// later a container can have one gateway for IPv4 and another for IPv6, each of which publishes its own.
type families struct{ v4, v6 bool }

func (f families) has(v6 bool) bool {
	if v6 {
		return f.v6
	}
	return f.v4
}

// optIPv6Elsewhere is true in the options of ProgramExternalConnectivity if another endpoint
// of the container is its IPv6 gateway (Docker 28+; moby, daemon/libnetwork/netlabel).
const optIPv6Elsewhere = dockerPrefix + "driver.private.no_proxy_6to4"

// families finds out what is left for e to publish. The engine says so only to an IPv4 gateway
// (no_proxy_6to4). That the IPv4 gateway is another endpoint shows in what that one publishes;
// one that knows itself to be the IPv4 gateway takes its family from the other.
func (d *Driver) families(ctx context.Context, e state.Endpoint, options map[string]any) (families, error) {
	elsewhere, err := boolOption(options, optIPv6Elsewhere, false)
	if err != nil {
		return families{}, err
	}
	here := families{v4: true, v6: !elsewhere}
	onlyV4 := elsewhere || !e.Addr6.IsValid()
	for _, sibling := range d.siblings(e) {
		if !publishes(sibling, false) {
			continue
		}
		if !onlyV4 {
			here.v4 = false
		} else if err := d.giveUpV4(ctx, sibling); err != nil {
			return here, err
		}
	}
	return here, nil
}

// siblings returns the other endpoints of the same container.
func (d *Driver) siblings(e state.Endpoint) []state.Endpoint {
	return slices.DeleteFunc(slices.Clone(d.store.Snapshot().Endpoints), func(other state.Endpoint) bool {
		return other.ID == e.ID || !e.Joined() || other.Sandbox != e.Sandbox
	})
}

func publishes(e state.Endpoint, v6 bool) bool {
	return slices.ContainsFunc(e.Ports, func(p state.Port) bool {
		_, ok := p.Target(e, v6)
		return ok
	})
}

// giveUpV4 leaves an endpoint only what it publishes in IPv6.
func (d *Driver) giveUpV4(ctx context.Context, e state.Endpoint) error {
	release, err := d.locks.take(ctx, "endpoint "+string(e.ID))
	if err != nil {
		return err
	}
	defer release()
	var bind []state.PortRequest
	var open []state.Port
	for _, p := range byFamily(e.Ports) {
		if p.HostIP.Is4() {
			continue
		}
		if p.Routed() {
			open = append(open, p)
			continue
		}
		bind = append(bind, state.PortRequest{
			Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort, HostPortEnd: p.HostPort, ContainerPort: p.ContainerPort,
		})
	}
	return d.publish(ctx, e, bind, open)
}

// arrange says which of the requested ports take a port of the host, and which are only opened at the container's
// address, because its network translates nothing in their family.
//
// A port on a loopback address is for the host alone. It is served by a socket whatever the network does, and
// opening the container's port for it would give more than was asked for.
func arrange(n state.Network, e state.Endpoint, here families, requests []state.PortRequest) (bind []state.PortRequest, open []state.Port) {
	whole := true // nothing is left out, and nothing is routed
	for _, v6 := range []bool{false, true} {
		// A family that is elsewhere is left out even where this endpoint lacks it: a proxy would serve it.
		if !here.has(v6) || e.Addr(v6).IsValid() && n.Family(v6).Mode == state.ModeRouted {
			whole = false
		}
	}
	for _, r := range requests {
		if whole || r.HostIP.IsLoopback() {
			if !r.HostIP.IsValid() || here.has(r.HostIP.Is6()) {
				bind = append(bind, r)
			}
			continue
		}
		for _, v6 := range []bool{false, true} {
			if !asks(r, v6) || !here.has(v6) || !r.HostIP.IsValid() && !e.Addr(v6).IsValid() {
				continue
			}
			if n.Family(v6).Mode == state.ModeRouted {
				open = append(open, state.Port{Proto: r.Proto, HostIP: everyAddr(v6), ContainerPort: r.ContainerPort})
				continue
			}
			in := r
			if !in.HostIP.IsValid() {
				in.HostIP = everyAddr(v6)
			}
			bind = append(bind, in)
		}
	}
	state.SortPortRequests(bind)
	slices.SortFunc(open, state.ComparePorts)
	// In one family a port on every address and the same one on 0.0.0.0 are doubles.
	return slices.CompactFunc(bind, sameExactPort), slices.Compact(open)
}

// asks reports whether the request is for the family.
func asks(r state.PortRequest, v6 bool) bool {
	return !r.HostIP.IsValid() || r.HostIP.Is6() == v6
}

func everyAddr(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
