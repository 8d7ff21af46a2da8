package driver

import (
	"context"
	"errors"

	"github.com/docker/go-plugins-helpers/network"
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

// GetCapabilities says that networks live on one host.
func (d *Driver) GetCapabilities(context.Context) (*Capabilities, error) {
	return &Capabilities{Scope: network.LocalScope, ConnectivityScope: network.LocalScope}, nil
}

// GwAllocCheck wants gateways in both families: the bridge always has an address.
func (d *Driver) GwAllocCheck(context.Context, *GwAllocCheckRequest) (*GwAllocCheckResponse, error) {
	return &GwAllocCheckResponse{}, nil
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
