package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// ProgramExternalConnectivity makes the endpoint's published ports those of the request:
// all of them, or, with an error, those it had before.
func (d *Driver) ProgramExternalConnectivity(ctx context.Context, r *network.ProgramExternalConnectivityRequest) error {
	_, eid, err := parseIDs(r.NetworkID, r.EndpointID)
	if err != nil {
		return err
	}
	release, err := d.locks.take(ctx, "endpoint "+string(eid))
	if err != nil {
		return err
	}
	defer release()
	var e state.Endpoint
	var n state.Network
	if err := d.store.View(func(tx *store.Tx) error {
		e, err = lookUp(tx, r.NetworkID, r.EndpointID)
		n, _ = tx.Network(e.Network)
		return err
	}); err != nil || n.Internal {
		return err // an internal network publishes nothing, as with Docker
	}
	want, err := d.parsePorts(r.Options[optPortMap])
	if err != nil {
		return err
	}
	return d.publish(ctx, e, want)
}

// publish reserves the ports, records them and waits for the host. Where the ports cannot be
// had, those of before stay.
func (d *Driver) publish(ctx context.Context, e state.Endpoint, want []state.PortRequest) error {
	ports, err := d.ports.Reserve(ctx, e, want)
	if err != nil {
		return err
	}
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
	if err == nil {
		if err = d.cut(ctx, e, ports); err != nil {
			err = d.takeBack(ctx, undo, err)
		}
	}
	if err != nil {
		d.ports.Release(e.ID, e.Ports)
	}
	return err
}

// setPorts replaces the ports of an endpoint, if it is there.
func setPorts(tx *store.Tx, id state.EndpointID, ports []state.Port) bool {
	e, ok := tx.Endpoint(id)
	if ok {
		e.Ports = ports
		tx.PutEndpoint(e)
	}
	return ok
}

// cut ends the flows that a change of e's ports makes wrong: what came in by a port that is
// gone, and what missed a port that was not there yet.
func (d *Driver) cut(ctx context.Context, e state.Endpoint, after []state.Port) error {
	gone := func(p state.Port) bool { return !slices.Contains(after, p) }
	if slices.ContainsFunc(e.Ports, gone) {
		if err := d.flows.Forget(ctx, e.Addrs()); err != nil {
			return err
		}
	}
	return d.flows.ForgetPorts(ctx, after)
}

// RevokeExternalConnectivity closes the endpoint's published ports.
func (d *Driver) RevokeExternalConnectivity(ctx context.Context, r *network.RevokeExternalConnectivityRequest) error {
	return d.withdraw(ctx, r.NetworkID, r.EndpointID, func(tx *store.Tx, e state.Endpoint) bool {
		published := len(e.Ports) > 0
		e.Ports = nil
		tx.PutEndpoint(e)
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

// parsePorts reads the container's list of published ports in a stable order. Newer engines
// send it in a random one.
func (d *Driver) parsePorts(option any) ([]state.PortRequest, error) {
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
		request, err := d.portRequest(b)
		if err != nil {
			return nil, err
		}
		out = append(out, request)
	}
	state.SortPortRequests(out)
	return slices.CompactFunc(out, sameExactPort), nil
}

// sameExactPort finds doubles; two requests for any free port are two ports.
func sameExactPort(a, b state.PortRequest) bool {
	return a == b && a.HostPort != 0 && a.HostPort == a.HostPortEnd
}

// protoSCTP is sctp's protocol number. Docker offers it; it gets a sentence of its own because
// its number means nothing to a user.
const protoSCTP = 132

func (d *Driver) portRequest(b binding) (state.PortRequest, error) {
	r := state.PortRequest{
		Proto: state.Proto(b.Proto), HostIP: d.defaultHostIP(),
		HostPort: b.HostPort, HostPortEnd: b.HostPortEnd, ContainerPort: b.Port,
	}
	if b.Proto == protoSCTP {
		return r, fmt.Errorf("port %d/sctp cannot be published: tcp and udp are supported", b.Port)
	}
	if b.HostPortEnd == 0 {
		r.HostPortEnd = b.HostPort
	}
	if b.HostIP != "" {
		ip, err := netip.ParseAddr(b.HostIP)
		if err != nil {
			return r, fmt.Errorf("host address %q of port %d is malformed", clip(b.HostIP), b.Port)
		}
		r.HostIP = ip
	}
	return r, r.Validate()
}

// defaultHostIP is the address of ports published without one.
func (d *Driver) defaultHostIP() netip.Addr {
	if ip := d.options.HostIP; ip.IsValid() && !ip.IsUnspecified() {
		return ip
	}
	return netip.Addr{}
}
