package main

import (
	"context"
	"maps"
	"net/netip"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/reconcile"
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

// portsPast lists such ports. Those on a loopback address, those that a proxy serves, and those of containers that have an address of the
// outside's (gateway mode routed), are none of what goes past the host's firewall.
func portsPast(s state.Snapshot, f hostfw.Finding, publishing control.Publishing) []pastFirewall {
	if !f.Active || publishing.Modes.Strict { // which refuses what is translated
		return nil
	}
	var out []pastFirewall
	for _, p := range control.Ports(s, publishing) {
		if p.Mode == string(state.PublishDNAT) {
			out = append(out, pastFirewall{hostPort{netip.AddrPortFrom(p.HostAddress, p.HostPort), p.Protocol}, p.Endpoint, p.Network})
		}
	}
	return out
}

// advice is what to do about it. No socket could serve SCTP behind the host's rules.
func (p pastFirewall) advice() string {
	if p.proto == state.SCTP {
		return "no socket of the host can serve SCTP: say who may come with drawbridge.publish.from, or that nobody may with drawbridge.publish=localhost"
	}
	return "make its network with -o drawbridge.publish=host, or give that to its container, and the firewall decides"
}

// warning is what a port is warned of once for: a container that restarts is no news, another network is.
type warning struct {
	hostPort
	network state.NetworkID
}

// pastWarner is a plane that changes nothing: it warns of each port of a network that goes past the host's firewall, once.
type pastWarner struct {
	auto       *auto
	publishing func() control.Publishing
	warned     map[warning]bool
}

// Apply implements reconcile.Plane.
func (w *pastWarner) Apply(ctx context.Context, s state.Snapshot) error {
	maps.DeleteFunc(w.warned, func(about warning, _ bool) bool {
		_, there := s.Network(about.network)
		return !there
	})
	w.warn(ctx, s)
	return nil
}

// Follow implements reconcile.Follower: of the other ports it was warned, or need not be.
func (w *pastWarner) Follow(ctx context.Context, c state.Change) error {
	part := state.Snapshot{Networks: c.To.Networks}
	for _, e := range c.To.Endpoints {
		if c.Endpoints[e.ID] || c.Networks[e.Network] {
			part.Endpoints = append(part.Endpoints, e)
		}
	}
	if len(part.Endpoints) > 0 {
		w.warn(ctx, part)
	}
	return nil
}

func (w *pastWarner) warn(ctx context.Context, s state.Snapshot) {
	found := w.auto.Finding()
	for _, p := range portsPast(s, found, w.publishing()) {
		about := warning{p.hostPort, p.network}
		if w.warned[about] {
			continue
		}
		w.warned[about] = true
		w.auto.log.WarnContext(ctx, "a published port is reached past the host's firewall: "+p.advice(),
			"port", p.hostPort, "endpoint", p.endpoint.Short(), "network", p.network.Short(), "firewall", found.Why)
	}
}

var _ reconcile.Follower = (*pastWarner)(nil)
