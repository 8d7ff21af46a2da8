package driver

import (
	"context"
	"errors"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/drawbridge-net/drawbridge/state"
)

// Capabilities is the answer to GetCapabilities.
type Capabilities struct {
	Scope             string
	ConnectivityScope string
	GwAllocChecker    bool // asked from Docker 28 on
}

// GwAllocCheckRequest asks whether the engine shall allocate gateway addresses (Docker 28+).
type GwAllocCheckRequest struct {
	Options map[string]any
}

// GwAllocCheckResponse says for which families it shall not.
type GwAllocCheckResponse struct {
	SkipIPv4, SkipIPv6 bool
}

// GetCapabilities says that networks live on one host, and that not all of them need a gateway.
func (d *Driver) GetCapabilities(context.Context) (*Capabilities, error) {
	return &Capabilities{Scope: network.LocalScope, ConnectivityScope: network.LocalScope, GwAllocChecker: true}, nil
}

// GwAllocCheck wants no gateway where the host is not on the network.
func (d *Driver) GwAllocCheck(_ context.Context, r *GwAllocCheckRequest) (*GwAllocCheckResponse, error) {
	var n state.Network
	if err := applyOptions(&n, r.Options[optGeneric]); err != nil {
		return nil, err
	}
	return &GwAllocCheckResponse{
		SkipIPv4: n.V4.Mode == state.ModeIsolated,
		SkipIPv6: n.V6.Mode == state.ModeIsolated,
	}, nil
}

// EndpointInfo has nothing to add: the engine cannot show what a remote driver says of
// its ports.
func (d *Driver) EndpointInfo(context.Context, *network.InfoRequest) (*network.InfoResponse, error) {
	return &network.InfoResponse{Value: map[string]string{}}, nil
}

// errSwarm answers the calls that only swarm managers make.
var errSwarm = errors.New("drawbridge networks live on one host: create them with --scope local")

// AllocateNetwork is for networks of a swarm, which this driver does not offer.
func (d *Driver) AllocateNetwork(context.Context, *network.AllocateNetworkRequest) (*network.AllocateNetworkResponse, error) {
	return nil, errSwarm
}

// FreeNetwork frees what AllocateNetwork never gave.
func (d *Driver) FreeNetwork(context.Context, *network.FreeNetworkRequest) error { return nil }

// DiscoverNew hears of other hosts, which do not matter here.
func (d *Driver) DiscoverNew(context.Context, *network.DiscoveryNotification) error { return nil }

// DiscoverDelete hears of other hosts going.
func (d *Driver) DiscoverDelete(context.Context, *network.DiscoveryNotification) error { return nil }
