package driver

import (
	"context"
	"errors"
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

// families finds out in which families e is the gateway. The engine says so only to an IPv4 gateway that is not
// the IPv6 one (no_proxy_6to4). For the rest the addresses tell: an endpoint without IPv6 can only be the IPv4
// gateway, and one with IPv6 is the IPv6 gateway, and the other one too unless that is what a sibling publishes
// for.
//
// Newer engines program one gateway after the other, without a Revoke between, and none at all for one that
// was a gateway in the same family before. Therefore siblings are left with what is not taken away from them here,
// the port on the other family's loopback address included that a lone IPv4 or IPv6 endpoint
// has. The siblings are returned as they were.
func (d *Driver) families(ctx context.Context, e state.Endpoint, options map[string]any) (here families, before []state.Endpoint, err error) {
	elsewhere, err := boolOption(options, optIPv6Elsewhere, false)
	if err != nil {
		return families{}, nil, err
	}
	here = families{v4: true, v6: !elsewhere}
	siblings, err := d.publishing(ctx, e)
	if err != nil {
		return here, nil, err
	}
	onlyV4 := elsewhere || !e.Addr6.IsValid()
	for _, sibling := range siblings {
		before = append(before, sibling)
		left, err := d.leaveIn(ctx, sibling, onlyV4)
		if err != nil {
			return here, before, err
		}
		if left && onlyV4 {
			here.v6 = false
		} else if left {
			here.v4 = false
		}
	}
	return here, before, nil
}

// publishing returns the other endpoints of the same container that publish something. One whose link is not
// in the container any more is not among them: it left while the daemon was away.
func (d *Driver) publishing(ctx context.Context, e state.Endpoint) ([]state.Endpoint, error) {
	siblings := slices.DeleteFunc(slices.Clone(d.store.Snapshot().Endpoints), func(other state.Endpoint) bool {
		return other.ID == e.ID || !other.Joined() || other.Sandbox != e.Sandbox || len(other.Ports) == 0
	})
	if len(siblings) == 0 {
		return nil, nil
	}
	lost, err := d.host.Lost(ctx, siblings)
	return slices.DeleteFunc(siblings, func(e state.Endpoint) bool { return has(lost, e.ID) }), err
}

// leaveIn leaves an endpoint only what it publishes in one family, and reports whether that is anything.
func (d *Driver) leaveIn(ctx context.Context, e state.Endpoint, v6 bool) (bool, error) {
	release, err := d.locks.take(ctx, endpointLock(e.ID))
	if err != nil {
		return false, err
	}
	defer release()
	e, ok := d.store.Snapshot().Endpoint(e.ID)
	if !ok || len(e.Ports) == 0 {
		return false, nil // gone meanwhile
	}
	left := slices.DeleteFunc(byFamily(e.Ports), func(p state.Port) bool {
		_, published := p.Target(e, v6)
		return !published
	})
	if slices.Equal(left, e.Ports) {
		return true, nil
	}
	bind, open := asked(left)
	return len(left) > 0, d.publish(ctx, e, bind, open)
}

// giveBack lets endpoints publish what they did before. Engines do so by themselves where they have taken
// something away, but not for what families took.
func (d *Driver) giveBack(ctx context.Context, before []state.Endpoint) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	var errs []error
	for _, was := range before {
		errs = append(errs, d.giveBackOne(ctx, was))
	}
	return errors.Join(errs...)
}

func (d *Driver) giveBackOne(ctx context.Context, was state.Endpoint) error {
	release, err := d.locks.take(ctx, endpointLock(was.ID))
	if err != nil {
		return err
	}
	defer release()
	e, ok := d.store.Snapshot().Endpoint(was.ID)
	if !ok || e.Sandbox != was.Sandbox || slices.Equal(e.Ports, was.Ports) {
		return nil
	}
	bind, open := asked(was.Ports)
	return d.publish(ctx, e, bind, open)
}

// asked turns ports into requests for exactly these, and those that take no port of the host.
func asked(ports []state.Port) (bind []state.PortRequest, open []state.Port) {
	for _, p := range ports {
		if p.Routed() {
			open = append(open, p)
			continue
		}
		bind = append(bind, state.PortRequest{
			Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort, HostPortEnd: p.HostPort, ContainerPort: p.ContainerPort,
		})
	}
	return bind, open
}

// arrange says which of the requested ports take a port of the host, and which are only opened at the container's
// address, because its network translates nothing in their family.
//
// A port on a loopback address is for the host alone. It is served by a socket whatever the network does, and
// opening the container's port for it would give more than was asked for.
func arrange(n state.Network, e state.Endpoint, here families, requests []state.PortRequest) (bind []state.PortRequest, open []state.Port) {
	whole := here.v4 && here.v6 // nothing is left out, and nothing is routed
	for _, v6 := range []bool{false, true} {
		if e.Addr(v6).IsValid() && n.Family(v6).Mode == state.ModeRouted {
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
