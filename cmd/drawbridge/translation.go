package main

import (
	"context"
	"net/netip"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/link"
	"github.com/drawbridge-net/drawbridge/reconcile"
	"github.com/drawbridge-net/drawbridge/state"
)

// translation is the firewall's plane. When it mended rules, it ends the flows that began without them: the kernel decides once for each
// whether it is translated, and a sender that never pauses would go on without for ever.
type translation struct {
	*firewall.Plane
	flows *link.Flows
	host  func() firewall.Host
}

// Apply implements reconcile.Plane.
func (t *translation) Apply(ctx context.Context, s state.Snapshot) error {
	err := t.Plane.Apply(ctx, s)
	t.mended(s)
	return err
}

// Follow implements reconcile.Follower.
func (t *translation) Follow(ctx context.Context, c state.Change) error {
	err := t.Plane.Follow(ctx, c)
	t.mended(c.To)
	return err
}

func (t *translation) mended(s state.Snapshot) {
	if len(t.Found()) > 0 {
		t.forget(s)
	}
}

// forget ends the flows that lack the translation which the state wants for them.
func (t *translation) forget(s state.Snapshot) {
	var ports []state.Port
	var subnets []netip.Prefix
	for _, f := range firewall.Render(s, t.host()).Families() {
		for _, n := range f.Networks {
			if n.Masquerade {
				subnets = append(subnets, n.Prefix)
			}
		}
		for _, p := range f.Ports {
			if p.Inside {
				continue // the host's socket serves it
			}
			at := p.Host
			if !at.IsValid() {
				at = everyAddress(f.V6)
			}
			ports = append(ports, state.Port{Proto: p.Proto, HostIP: at, HostPort: p.HostPort, ContainerPort: p.Target.Port()})
		}
	}
	t.flows.ForgetPorts(ports)
	t.flows.ForgetOutwards(subnets)
}

func everyAddress(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

var _ interface {
	reconcile.Follower
	reconcile.Mender
	reconcile.Inspector
} = (*translation)(nil)
