package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// CreateNetwork makes a network's bridge.
func (d *Driver) CreateNetwork(ctx context.Context, r *network.CreateNetworkRequest) error {
	n, err := d.parseNetwork(r)
	if err != nil {
		return err
	}
	release, err := d.locks.take(ctx, networkLock(n.ID))
	if err != nil {
		return err
	}
	defer release()
	if n, err = d.fit(ctx, n); err != nil {
		return err
	}
	var before state.Forwarding
	var known bool
	return d.change(ctx, state.Scope{Network: n.ID},
		func(tx *store.Tx) error {
			before = tx.Forwarding()
			var err error
			if known, err = admit(tx, n); known || err != nil {
				return err
			}
			n.Made = tx.Run()
			tx.PutNetwork(n)
			tx.Unretire(n.Bridge)
			return d.claimForwarding(tx, n)
		},
		func(tx *store.Tx) error {
			if !known {
				d.dropNetwork(tx, n.ID)
				d.disclaimForwarding(tx, before)
			}
			return nil
		})
}

// fit asks the host whether it has room for a network that is not there yet. The state's
// own objections come first: they name the network that is in the way.
func (d *Driver) fit(ctx context.Context, n state.Network) (state.Network, error) {
	var known bool
	err := d.store.View(func(tx *store.Tx) (err error) {
		known, err = admit(tx, n)
		return err
	})
	if known || err != nil {
		return n, err
	}
	return d.host.FitNetwork(ctx, n)
}

// admit says whether the network is there already, and refuses what another one stands in
// the way of.
func admit(tx *store.Tx, n state.Network) (known bool, err error) {
	if old, ok := tx.Network(n.ID); ok {
		if old.Asked() == n.Asked() {
			return true, nil
		}
		return false, fmt.Errorf("network %s exists already with other settings: remove it first", n.ID.Short())
	}
	for _, other := range tx.Networks() {
		if other.Bridge == n.Bridge {
			return false, fmt.Errorf("bridge name %s is taken by network %s: choose another", n.Bridge, other.ID.Short())
		}
		for _, a := range n.Subnets() {
			for _, b := range other.Subnets() {
				if a.Prefix.Overlaps(b.Prefix) {
					return false, fmt.Errorf("subnet %s overlaps %s of network %s: choose another with --subnet", a.Prefix, b.Prefix, other.ID.Short())
				}
			}
		}
	}
	return false, nil
}

// DeleteNetwork takes the network away, with whatever is left on it.
func (d *Driver) DeleteNetwork(ctx context.Context, r *network.DeleteNetworkRequest) error {
	id, err := state.ParseNetworkID(r.NetworkID)
	if err != nil {
		return err
	}
	release, err := d.locks.take(ctx, networkLock(id))
	if err != nil {
		return err
	}
	defer release()
	return d.remove(ctx, state.Scope{Network: id}, func(tx *store.Tx) []state.Endpoint {
		dropPools(tx, id)
		return d.dropNetwork(tx, id)
	})
}

// dropNetwork removes a network and its endpoints, which it returns. The name of its bridge is
// kept as retired until all traces are gone.
func (d *Driver) dropNetwork(tx *store.Tx, id state.NetworkID) []state.Endpoint {
	n, ok := tx.Network(id)
	if !ok {
		return nil
	}
	endpoints := tx.EndpointsOf(id)
	for _, e := range endpoints {
		tx.DeleteEndpoint(e.ID)
	}
	tx.DeleteNetwork(id)
	tx.Retire(n.Bridge)
	d.retirements.Add(1)
	return endpoints
}

// claimForwarding records that forwarding is ours to turn on, before it is done, so that
// a crash between the two leaves the guard against routing in place.
func (d *Driver) claimForwarding(tx *store.Tx, networks ...state.Network) error {
	f := tx.Forwarding()
	need4, need6 := state.NeedForwarding(networks)
	need4, need6 = need4 && !f.V4, need6 && !f.V6
	if !d.options.IPForward || !need4 && !need6 {
		return nil
	}
	on, err := d.host.Forwarding(need6)
	if err != nil {
		return err
	}
	f.V4 = f.V4 || need4 && !on.V4
	if need6 && !on.V6 {
		f.V6, f.RA = true, on.RA
	}
	tx.SetForwarding(f)
	return nil
}

// disclaimForwarding takes a claim back unless forwarding was turned on meanwhile, or another
// network has come to rely on the claim. A host that cannot say keeps the claim: it
// only closes.
func (d *Driver) disclaimForwarding(tx *store.Tx, before state.Forwarding) {
	on, err := d.host.Forwarding(false)
	if err != nil {
		return
	}
	need4, need6 := state.NeedForwarding(tx.Networks())
	f := tx.Forwarding()
	f.V4 = f.V4 && (before.V4 || on.V4 || need4)
	if f.V6 = f.V6 && (before.V6 || on.V6 || need6); !f.V6 {
		f.RA = before.RA
	}
	tx.SetForwarding(f)
}

// parseNetwork turns a request into a valid network.
func (d *Driver) parseNetwork(r *network.CreateNetworkRequest) (state.Network, error) {
	id, err := state.ParseNetworkID(r.NetworkID)
	if err != nil {
		return state.Network{}, err
	}
	n := state.Network{
		ID: id, Bridge: state.DefaultBridgeName(id), MTU: d.options.MTU,
		NoICC: d.options.NoICC, NoMasquerade: d.options.NoMasquerade,
	}
	if n.Internal, err = boolOption(r.Options, optInternal, false); err != nil {
		return n, err
	}
	if n.V4, err = familySubnet(r.Options, optEnableIPv4, r.IPv4Data, "IPv4"); err != nil {
		return n, err
	}
	if n.V6, err = familySubnet(r.Options, optEnableIPv6, r.IPv6Data, "IPv6"); err != nil {
		return n, err
	}
	if err := applyOptions(&n, r.Options[optGeneric]); err != nil {
		return n, err
	}
	// As with Docker, options for a family that the network has not got say nothing.
	if n.V4.IsZero() {
		n.V4 = state.Subnet{}
	}
	if n.V6.IsZero() {
		n.V6 = state.Subnet{}
	}
	if err := d.checkExposure(n, n.Exposure); err != nil {
		return n, err
	}
	return n, n.Validate()
}

// familySubnet reads the pool of one family; a family that is switched off has none,
// whatever the engine sends with it.
func familySubnet(options map[string]any, key string, data []*network.IPAMData, family string) (state.Subnet, error) {
	on, err := boolOption(options, key, len(data) > 0)
	switch {
	case err != nil:
		return state.Subnet{}, err
	case !on:
		return state.Subnet{}, nil
	case len(data) == 0:
		return state.Subnet{}, fmt.Errorf("the network has no %s subnet: create it with --ipam-driver drawbridge or --subnet", family)
	case len(data) > 1:
		return state.Subnet{}, fmt.Errorf("a network can have one %s subnet, not %d", family, len(data))
	case data[0] == nil:
		return state.Subnet{}, errors.New("the engine sent an empty address pool")
	}
	return parseSubnet(data[0], family)
}

// routerNames are the names of auxiliary addresses that Docker's own driver takes for the
// containers' default gateway, where that is not the bridge (moby, drivers/bridge, DefaultGatewayV4AuxKey).
var routerNames = map[string]string{"IPv4": "DefaultGatewayIPv4", "IPv6": "DefaultGatewayIPv6"}

func parseSubnet(data *network.IPAMData, family string) (state.Subnet, error) {
	prefix, err := netip.ParsePrefix(data.Pool)
	if err != nil {
		return state.Subnet{}, fmt.Errorf("address pool %q is not a prefix such as 10.1.0.0/24", state.Clip(data.Pool))
	}
	s := state.Subnet{Prefix: prefix}
	if s.Gateway, err = addressOf("gateway", data.Gateway); err != nil {
		return s, err
	}
	if router, ok := data.AuxAddresses[routerNames[family]].(string); ok {
		s.Router, err = addressOf("auxiliary address "+routerNames[family], router)
	}
	return s, err
}

// addressOf reads an address with a length, or none.
func addressOf(what, s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s %q is not an address with a length such as 10.1.0.1/24", what, state.Clip(s))
	}
	return p.Addr(), nil
}
