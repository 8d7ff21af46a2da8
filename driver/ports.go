package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// ProgramExternalConnectivity makes the endpoint's published ports those of the request:
// all of them, or, with an error, those it had before.
func (d *Driver) ProgramExternalConnectivity(ctx context.Context, r *network.ProgramExternalConnectivityRequest) error {
	leave, err := d.lockContainer(ctx, r.EndpointID)
	if err != nil {
		return err
	}
	defer leave()
	at, release, err := d.lockEndpoint(ctx, r.NetworkID, r.EndpointID)
	if err != nil {
		return err
	}
	defer release()
	var e state.Endpoint
	var n state.Network
	if err := d.store.View(func(tx *store.Tx) error {
		e, err = lookUp(tx, at)
		n, _ = tx.Network(e.Network)
		return err
	}); err != nil || n.Internal {
		return err // an internal network publishes nothing, as with Docker
	}
	requests, err := d.portRequests(n, r.Options)
	if err == nil {
		err = checkServed(e.Exposure.Under(n.Exposure), requests)
	}
	if err != nil {
		return err
	}
	here, siblings, err := d.families(ctx, e, r.Options)
	if err == nil {
		bind, open := arrange(n, e, here, requests)
		err = d.publish(ctx, e, bind, open)
	}
	if err != nil {
		return errors.Join(err, d.giveBack(ctx, siblings))
	}
	return nil
}

// publish reserves the ports to bind, records them with those that are only opened, and waits for the
// host. Where the ports cannot be had, those of before stay.
func (d *Driver) publish(ctx context.Context, e state.Endpoint, bind []state.PortRequest, open []state.Port) error {
	ports, err := d.reserve(ctx, e, bind)
	if err != nil {
		return err
	}
	ports = append(ports, open...)
	do := func(tx *store.Tx) error {
		if !setPorts(tx, e.ID, ports) {
			return fmt.Errorf("endpoint %s was removed meanwhile", e.ID.Short())
		}
		return nil
	}
	undo := func(tx *store.Tx) error {
		setPorts(tx, e.ID, e.Ports) // removed meanwhile, it has none
		return nil
	}
	err = d.change(ctx, scope(e), do, undo)
	if err != nil {
		d.ports.Release(e.ID, e.Ports)
		return err
	}
	d.cut(e, ports)
	return nil
}

// reserve takes the ports, and once more if what stood in the way was only left over.
func (d *Driver) reserve(ctx context.Context, e state.Endpoint, want []state.PortRequest) ([]state.Port, error) {
	e.Ports = state.Bound(e.Ports)
	ports, err := d.ports.Reserve(ctx, e, want)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return ports, err
	}
	if gone, failed := d.evict(ctx, e.ID, want); failed != nil || !gone {
		return nil, errors.Join(err, failed)
	}
	return d.ports.Reserve(ctx, e, want)
}

// setPorts replaces the ports of an endpoint, if it is there.
func setPorts(tx *store.Tx, id state.EndpointID, ports []state.Port) bool {
	e, ok := tx.Endpoint(id)
	if ok {
		tx.PutEndpoint(withPorts(e, ports))
	}
	return ok
}

// withPorts returns e with other ports. Those that it loses are remembered until Settle has seen to their connections.
func withPorts(e state.Endpoint, ports []state.Port) state.Endpoint {
	e.Closed = missing(append(slices.Clone(e.Closed), e.Ports...), ports)
	slices.SortFunc(e.Closed, state.ComparePorts)
	e.Closed = slices.Compact(e.Closed)
	e.Ports = ports
	return e
}

// cut ends the flows that a change of e's ports makes wrong: what came in by a port that is
// gone, and what missed a port that was not there yet.
func (d *Driver) cut(e state.Endpoint, after []state.Port) {
	if gone := missing(e.Ports, after); len(gone) > 0 {
		d.flows.ForgetPublished(e, gone)
	}
	d.flows.ForgetPorts(after)
}

// missing returns what of the ports before is not among those after, each family for itself: a
// port that is given up in IPv6 only keeps its IPv4 connections.
func missing(before, after []state.Port) []state.Port {
	left := byFamily(after)
	return slices.DeleteFunc(byFamily(before), func(p state.Port) bool { return slices.Contains(left, p) })
}

// byFamily writes ports on every address as one of each family.
func byFamily(ports []state.Port) []state.Port {
	var out []state.Port
	for _, p := range ports {
		if p.HostIP.IsValid() {
			out = append(out, p)
			continue
		}
		for _, every := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			p.HostIP = every
			out = append(out, p)
		}
	}
	return out
}

// RevokeExternalConnectivity closes the endpoint's published ports.
func (d *Driver) RevokeExternalConnectivity(ctx context.Context, r *network.RevokeExternalConnectivityRequest) error {
	return d.withdraw(ctx, r.NetworkID, r.EndpointID, func(tx *store.Tx, e state.Endpoint) bool {
		published := len(e.Ports) > 0
		tx.PutEndpoint(withPorts(e, nil))
		return published
	})
}

// binding is an element of the engine's port list.
type binding struct {
	Proto       uint8
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// optPortMap is the container's list of published ports in the options of CreateEndpoint and
// ProgramExternalConnectivity.
const optPortMap = dockerPrefix + "portmap"

// wantsPorts reports whether the options of CreateEndpoint name ports to publish. What is wrong with them is told when they
// are to be published.
func wantsPorts(options map[string]any) bool {
	list, _ := options[optPortMap].([]any)
	return len(list) > 0
}

// portRequests reads what an endpoint shall publish, in a stable order: newer engines send the
// list in a random one.
func (d *Driver) portRequests(n state.Network, options map[string]any) ([]state.PortRequest, error) {
	want, err := d.parsePorts(options[optPortMap], d.defaultHostIP(n))
	if err != nil {
		return nil, err
	}
	state.SortPortRequests(want)
	return slices.CompactFunc(want, sameExactPort), nil
}

// parsePorts reads the container's list of published ports.
func (d *Driver) parsePorts(option any, fallback netip.Addr) ([]state.PortRequest, error) {
	if option == nil {
		return nil, nil
	}
	raw, err := json.Marshal(option)
	if err != nil {
		return nil, fmt.Errorf("reading the port list: %w", err)
	}
	var bindings []binding
	if err := json.Unmarshal(raw, &bindings); err != nil {
		return nil, errors.New("the port list is malformed: each port needs Proto, Port, HostIP, HostPort and HostPortEnd")
	}
	var out []state.PortRequest
	for _, b := range bindings {
		request, err := portRequest(b, fallback)
		if err != nil {
			return nil, err
		}
		out = append(out, request)
	}
	return out, nil
}

// sameExactPort finds doubles; two requests for any free port are two ports.
func sameExactPort(a, b state.PortRequest) bool {
	return a == b && a.HostPort != 0 && a.HostPort == a.HostPortEnd
}

func portRequest(b binding, fallback netip.Addr) (state.PortRequest, error) {
	r := state.PortRequest{
		Proto: state.Proto(b.Proto), HostIP: fallback,
		HostPort: b.HostPort, HostPortEnd: b.HostPortEnd, ContainerPort: b.Port,
	}
	if b.HostPortEnd == 0 {
		r.HostPortEnd = b.HostPort
	}
	if b.HostIP != "" {
		ip, err := netip.ParseAddr(b.HostIP)
		if err != nil {
			return r, fmt.Errorf("host address %q of port %d is malformed", state.Clip(b.HostIP), b.Port)
		}
		r.HostIP = ip
	}
	return r, r.Validate()
}

// defaultHostIP is the address of the network's ports that are published without one. As with Docker
// 0.0.0.0 stands for all addresses of both families, and :: for those of IPv6.
func (d *Driver) defaultHostIP(n state.Network) netip.Addr {
	ip := n.HostIP
	if !ip.IsValid() {
		ip = d.options.HostIP
	}
	if ip == netip.IPv4Unspecified() {
		return netip.Addr{}
	}
	return ip
}
