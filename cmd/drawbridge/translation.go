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
// whether it is translated, and a sender that never pauses, or repeats the first packet of a connection, would go on without.
type translation struct {
	*firewall.Plane
	flows *link.Flows
	host  func() firewall.Host
	// turned are ports that are translated and were left to the host, until turning has ended their flows.
	turned []firewall.Port
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
	t.turned = append(t.turned, t.Turned()...)
}

// turning is a plane that does for ports which are translated anew what translation does for rules, once the host's sockets serve nobody from
// outside any more: what they answer would begin the same flow again.
type turning struct{ rules *translation }

// Apply implements reconcile.Plane.
func (t turning) Apply(context.Context, state.Snapshot) error {
	var targets []netip.AddrPort
	for _, p := range t.rules.turned {
		targets = append(targets, p.Target)
	}
	t.rules.flows.ForgetPorts(addressed(t.rules.turned))
	t.rules.flows.ForgetShown(targets)
	t.rules.turned = nil
	return nil
}

// forget ends the flows that lack the translation which the state wants for them.
func (t *translation) forget(s state.Snapshot) {
	var ports []firewall.Port
	var subnets []netip.Prefix
	for _, f := range firewall.Render(s, t.host()).Families() {
		for _, n := range f.Networks {
			if n.Masquerade {
				subnets = append(subnets, n.Prefix)
			}
		}
		for _, p := range f.Ports {
			if !p.Inside { // else the host's socket serves it
				ports = append(ports, p)
			}
		}
	}
	t.flows.ForgetPorts(addressed(ports))
	t.flows.ForgetOutwards(subnets)
}

// addressed says of ports of the firewall what who sends to them writes.
func addressed(ports []firewall.Port) []state.Port {
	var out []state.Port
	for _, p := range ports {
		at := p.Host
		if !at.IsValid() {
			at = everyAddress(p.Target.Addr().Is6())
		}
		out = append(out, state.Port{Proto: p.Proto, HostIP: at, HostPort: p.HostPort, ContainerPort: p.Target.Port()})
	}
	return out
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
