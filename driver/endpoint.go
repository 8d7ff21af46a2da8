package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// CreateEndpoint makes the veth pair of a container's attachment. It answers with the MAC
// address if the user gave none, and with nothing that the engine gave already: it
// would refuse that as a change.
func (d *Driver) CreateEndpoint(ctx context.Context, r *network.CreateEndpointRequest) (*network.CreateEndpointResponse, error) {
	e, err := parseEndpoint(r)
	if err != nil {
		return nil, err
	}
	release, err := d.locks.take(ctx, endpointLock(e.ID))
	if err != nil {
		return nil, err
	}
	defer release()
	if err := d.attach(ctx, e); err != nil {
		return nil, err
	}
	reply := &network.EndpointInterface{}
	if r.Interface.MacAddress == "" {
		reply.MacAddress = e.MAC.String()
	}
	return &network.CreateEndpointResponse{Interface: reply}, nil
}

// attach records a new endpoint and waits for its link. Flows of its address were somebody else's, and are cut before.
func (d *Driver) attach(ctx context.Context, e state.Endpoint) error {
	var known bool
	do := func(tx *store.Tx) error {
		var err error
		if known, err = d.admitEndpoint(tx, e); known || err != nil {
			return err
		}
		tx.PutEndpoint(e)
		return nil
	}
	undo := func(tx *store.Tx) error {
		if !known {
			tx.DeleteEndpoint(e.ID)
		}
		return nil
	}
	if err := d.flows.Settle(ctx); err != nil {
		return err
	}
	return d.change(ctx, scope(e), do, undo)
}

// admitEndpoint says whether the endpoint is there already, and refuses one that does not fit
// its network.
func (d *Driver) admitEndpoint(tx *store.Tx, e state.Endpoint) (known bool, err error) {
	n, ok := tx.Network(e.Network)
	if !ok {
		return false, unknownNetwork(e.Network)
	}
	if err := e.Validate(n); err != nil {
		return false, err
	}
	if err := d.checkLinks(n, e); err != nil {
		return false, err
	}
	if err := d.checkExposure(n, e.Exposure); err != nil {
		return false, err
	}
	if old, ok := tx.Endpoint(e.ID); ok {
		if sameRequest(old, e) {
			return true, nil
		}
		return false, fmt.Errorf("endpoint %s exists already with other settings", e.ID.Short())
	}
	for _, other := range tx.EndpointsOf(e.Network) {
		for _, a := range e.Addrs() {
			for _, b := range other.Addrs() {
				if a == b {
					return false, fmt.Errorf("address %s is in use by endpoint %s of the same network", a, other.ID.Short())
				}
			}
		}
	}
	return false, nil
}

// maxExposed bounds what a link opens: each port is an element for every container that is linked to it.
const maxExposed = 1024

// checkLinks refuses links that could not work, or would do harm.
func (d *Driver) checkLinks(n state.Network, e state.Endpoint) error {
	if !n.NoICC || e.Name == "" && len(e.Links) == 0 {
		return nil
	}
	switch {
	case e.Name != "" && len(e.Exposed) > maxExposed:
		return fmt.Errorf("a container that others are linked to can expose %d ports, not %d: expose fewer, or leave drawbridge.name out", maxExposed, len(e.Exposed))
	case len(e.Links) == 0:
		return nil
	case d.options.NoRules:
		return errors.New("option drawbridge.link needs firewall rules, and the daemon runs with --iptables=false: leave the option out, or start the daemon without the flag")
	case n.Adopted:
		return fmt.Errorf("containers cannot be linked on bridge %s, which was there before the network: it would answer for all addresses there, to your other machines too. Leave drawbridge.link out, or use a network with a bridge of its own", n.Bridge)
	case n.V4.Mode == state.ModeIsolated, n.V6.Mode == state.ModeIsolated, n.V4.NoAddress:
		return errors.New("containers are linked by way of the host, which has no address on this network (gateway mode isolated, or inhibit_ipv4): leave drawbridge.link out, or create the network without that option")
	}
	return nil
}

// sameRequest reports whether both endpoints were asked for in the same words. Exposed ports are left
// out: Join brings another list.
func sameRequest(a, b state.Endpoint) bool {
	return a.Network == b.Network && a.Addr4 == b.Addr4 && a.Addr6 == b.Addr6 && a.MAC == b.MAC &&
		a.LinkPrefix == b.LinkPrefix && a.Exposure == b.Exposure && a.Name == b.Name && slices.Equal(a.Links, b.Links)
}

// DeleteEndpoint removes the veth pair and whatever the endpoint published.
func (d *Driver) DeleteEndpoint(ctx context.Context, r *network.DeleteEndpointRequest) error {
	return d.withdraw(ctx, r.NetworkID, r.EndpointID, func(tx *store.Tx, e state.Endpoint) bool {
		tx.DeleteEndpoint(e.ID)
		return true
	})
}

// withdraw takes something away from an endpoint, and succeeds where there is none. take says
// whether connections end with it.
func (d *Driver) withdraw(ctx context.Context, networkID, endpointID string, take func(*store.Tx, state.Endpoint) bool) error {
	scope, release, err := d.lockEndpoint(ctx, networkID, endpointID)
	if err != nil {
		return err
	}
	defer release()
	return d.remove(ctx, scope, func(tx *store.Tx) []state.Endpoint {
		e, ok := tx.Endpoint(scope.Endpoint)
		if !ok || e.Network != scope.Network || !take(tx, e) {
			return nil
		}
		return []state.Endpoint{e}
	})
}

// parseIDs checks the ids of a network and of its endpoint.
func parseIDs(networkID, endpointID string) (state.NetworkID, state.EndpointID, error) {
	nid, err := state.ParseNetworkID(networkID)
	if err != nil {
		return "", "", err
	}
	eid, err := state.ParseEndpointID(endpointID)
	return nid, eid, err
}

// Join hands the container's end of the veth pair over to the engine, by name.
func (d *Driver) Join(ctx context.Context, r *network.JoinRequest) (*network.JoinResponse, error) {
	if r.SandboxKey == "" {
		return nil, errors.New("the engine named no sandbox to join")
	}
	exposed, listed, err := exposedPorts(r.Options)
	if err != nil {
		return nil, err
	}
	at, release, err := d.lockEndpoint(ctx, r.NetworkID, r.EndpointID)
	if err != nil {
		return nil, err
	}
	defer release()
	var before, e state.Endpoint
	var n state.Network
	do := func(tx *store.Tx) error {
		var err error
		if before, err = lookUp(tx, at); err != nil {
			return err
		}
		n, _ = tx.Network(at.Network)
		d.suspects.noteJoin(at.Endpoint)
		e = before
		e.Sandbox = r.SandboxKey
		if listed {
			e.Exposed = exposed
		}
		tx.PutEndpoint(e)
		return nil
	}
	revision, err := d.store.Update(ctx, do)
	if err != nil {
		return nil, err
	}
	// Docker 29 names all exposed ports only here, and links lead to them.
	if n.NoICC && !slices.Equal(before.Exposed, e.Exposed) {
		if err := d.await(ctx, revision, at); err != nil {
			return nil, d.takeBack(ctx, func(tx *store.Tx) error {
				tx.PutEndpoint(before)
				return nil
			}, err)
		}
	}
	return joinReply(n, e), nil
}

// joinReply says where the container's end of the link is, what it shall be called and which way leads out.
func joinReply(n state.Network, e state.Endpoint) *network.JoinResponse {
	return &network.JoinResponse{
		InterfaceName: network.InterfaceName{
			SrcName:   e.ContainerLink(),
			DstPrefix: e.PrefixIn(n),
		},
		Gateway:     text(e.RouterIn(n, false)),
		GatewayIPv6: text(e.RouterIn(n, true)),
		// Without a gateway the engine would attach the container to docker_gwbridge.
		DisableGatewayService: n.Internal,
	}
}

// text returns an address as the engine reads it, empty for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// lookUp finds the endpoint of a request, and says which of the two ids is wrong.
func lookUp(tx *store.Tx, at state.Scope) (state.Endpoint, error) {
	if _, ok := tx.Network(at.Network); !ok {
		return state.Endpoint{}, unknownNetwork(at.Network)
	}
	e, ok := tx.Endpoint(at.Endpoint)
	if !ok || e.Network != at.Network {
		return state.Endpoint{}, fmt.Errorf("network %s has no endpoint %s: start the container again", at.Network.Short(), at.Endpoint.Short())
	}
	return e, nil
}

// Leave ends the endpoint's membership in its container, and everything it published.
func (d *Driver) Leave(ctx context.Context, r *network.LeaveRequest) error {
	return d.withdraw(ctx, r.NetworkID, r.EndpointID, func(tx *store.Tx, e state.Endpoint) bool {
		published := len(e.Ports) > 0
		e.Ports, e.Sandbox = nil, ""
		tx.PutEndpoint(e)
		return published
	})
}

func parseEndpoint(r *network.CreateEndpointRequest) (state.Endpoint, error) {
	nid, eid, err := parseIDs(r.NetworkID, r.EndpointID)
	if err != nil {
		return state.Endpoint{}, err
	}
	if r.Interface == nil {
		return state.Endpoint{}, errors.New("the engine sent no interface: create the network with --ipam-driver drawbridge")
	}
	e := state.Endpoint{ID: eid, Network: nid}
	if err := applyEndpointOptions(&e, r.Options); err != nil {
		return e, err
	}
	if e.Exposed, _, err = exposedPorts(r.Options); err != nil {
		return e, err
	}
	e.WantsPorts = wantsPorts(r.Options)
	if e.Addr4, err = parseAddress(r.Interface.Address, false); err != nil {
		return e, err
	}
	if e.Addr6, err = parseAddress(r.Interface.AddressIPv6, true); err != nil {
		return e, err
	}
	if r.Interface.MacAddress != "" {
		e.MAC, err = state.ParseMAC(r.Interface.MacAddress)
		return e, err
	}
	e.MAC = defaultMAC(e)
	return e, nil
}

// defaultMAC makes the MAC from the network and the address, so that neighbours which remember
// the address are right about it when it goes to another container. Of two addresses the IPv4
// one counts, which users fix more often.
func defaultMAC(e state.Endpoint) state.MAC {
	return state.GenerateMAC(fmt.Sprint(e.Network, " ", e.Addrs()[:min(1, len(e.Addrs()))]))
}

func parseAddress(s string, v6 bool) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is6() != v6 || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("address %q is malformed: the form is 10.1.0.2/24 or fd00::2/64", state.Clip(s))
	}
	return p, nil
}

func unknownNetwork(id state.NetworkID) error {
	return fmt.Errorf("network %s is not known to drawbridge: remove it with `docker network rm` and create it again", id.Short())
}

func scope(e state.Endpoint) state.Scope {
	return state.Scope{Network: e.Network, Endpoint: e.ID}
}
