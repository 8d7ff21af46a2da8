package main

import (
	"context"
	"net/netip"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/state"
)

// hostPort is a published port as clients know it.
type hostPort struct {
	at    netip.AddrPort
	proto state.Proto
}

func (p hostPort) String() string { return p.at.String() + "/" + p.proto.String() }

// pastFirewall is a port that clients from outside reach past an active firewall of the host.
type pastFirewall struct {
	hostPort
	endpoint state.EndpointID
	network  state.NetworkID
}

// portsPast lists such ports. Those on a loopback address, and those of containers that have an address of the outside's (gateway mode
// routed), are none of what the host's firewall keeps closed.
func portsPast(s state.Snapshot, f hostfw.Finding, modes state.Modes) []pastFirewall {
	if !f.Active || modes.Strict { // which refuses what is translated
		return nil
	}
	var out []pastFirewall
	for _, p := range control.Ports(s, control.Publishing{}) {
		e, known := s.Endpoint(p.Endpoint)
		if !known || p.HostPort == 0 || p.HostAddress.IsLoopback() {
			continue
		}
		if modes.Of(s.Exposure(e), p.Protocol) == state.PublishDNAT {
			out = append(out, pastFirewall{hostPort{netip.AddrPortFrom(p.HostAddress, p.HostPort), p.Protocol}, p.Endpoint, p.Network})
		}
	}
	return out
}

// pastWarner is a plane that changes nothing: it warns of each port that goes past the host's firewall, once.
type pastWarner struct {
	auto   *auto
	warned map[hostPort]bool
}

// Apply implements reconcile.Plane.
func (w *pastWarner) Apply(ctx context.Context, s state.Snapshot) error {
	found := w.auto.Finding()
	for _, p := range portsPast(s, found, w.auto.Modes()) {
		if w.warned[p.hostPort] {
			continue
		}
		w.warned[p.hostPort] = true
		w.auto.log.WarnContext(ctx, "a published port is reached past the host's firewall: make its network with -o drawbridge.publish=host, and the firewall decides",
			"port", p.hostPort, "endpoint", p.endpoint.Short(), "network", p.network.Short(), "firewall", found.Why)
	}
	return nil
}
