package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// Engines are the engines of a host. Ask may be called concurrently.
type Engines struct{ clients []*client }

// New returns the engines with these sockets. Whether systemd alone listens on one is looked up where the host's proc file system
// is mounted.
func New(sockets []string, proc string) *Engines {
	e := &Engines{}
	for _, path := range sockets {
		e.clients = append(e.clients, newClient(path, proc))
	}
	return e
}

// Ask returns what the engines know together, and the endpoints of the networks named. If one of them
// cannot be asked there is an error.
func (e *Engines) Ask(ctx context.Context, inspect []state.NetworkID) (state.Known, error) {
	known := state.NewKnown()
	for _, c := range e.clients {
		if err := c.tell(ctx, known, inspect); err != nil {
			return state.Known{}, fmt.Errorf("the engine at %s cannot be asked: %w", c.path, err)
		}
	}
	for _, id := range inspect {
		known.Inspected[id] = true
	}
	return known, nil
}

// tell adds what one engine knows.
func (c *client) tell(ctx context.Context, known state.Known, inspect []state.NetworkID) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := c.refuseToWake(); err != nil {
		return err
	}
	if err := c.checkEngine(ctx); err != nil {
		return err
	}
	networks, err := c.networks(ctx)
	if err != nil {
		return err
	}
	here := map[state.NetworkID]bool{}
	for _, n := range networks {
		here[n.ID], known.Networks[n.ID] = true, true
		for _, s := range n.IPAM.Config {
			// What is no prefix is no pool of ours; what has host bits is one as the user wrote it.
			if p, err := netip.ParsePrefix(s.Subnet); err == nil {
				known.Subnets[p.Masked()] = true
			}
		}
	}
	for _, id := range inspect {
		if !here[id] {
			continue
		}
		endpoints, err := c.endpoints(ctx, id)
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			known.Endpoints[e] = true
		}
	}
	return nil
}

// networkAnswer is what is needed of a network.
type networkAnswer struct {
	ID   state.NetworkID `json:"Id"`
	IPAM struct {
		Config []struct{ Subnet string }
	}
	// Containers has an endpoint of each container that is on the network, by the container's id, and endpoints in no
	// container, by ep- and the endpoint's own. It is in the answer about one network only.
	Containers map[string]struct{ EndpointID state.EndpointID }
}

// looseEndpoint begins the keys of endpoints that are in no container.
const looseEndpoint = "ep-"

// checkEngine makes sure that what answers is an engine that is up.
func (c *client) checkEngine(ctx context.Context) error {
	var version struct{ APIVersion string }
	if err := c.get(ctx, "/version", &version); err != nil {
		return err
	}
	if version.APIVersion == "" {
		return errors.New("what answers is no Docker engine: its /version names no API version")
	}
	return nil
}

func (c *client) networks(ctx context.Context) ([]networkAnswer, error) {
	var list []networkAnswer
	if err := c.get(ctx, "/networks", &list); err != nil {
		return nil, err
	}
	if list == nil {
		return nil, errors.New("its answer to /networks is no list")
	}
	for _, n := range list {
		if n.ID == "" {
			return nil, errors.New("its answer to /networks has a network without id")
		}
	}
	return list, nil
}

func (c *client) endpoints(ctx context.Context, id state.NetworkID) ([]state.EndpointID, error) {
	path := "/networks/" + string(id)
	var n networkAnswer
	if err := c.get(ctx, path, &n); err != nil {
		return nil, err
	}
	if n.ID != id || n.Containers == nil {
		return nil, fmt.Errorf("its answer to %s does not say which endpoints the network has", path)
	}
	var out []state.EndpointID
	for key, e := range n.Containers {
		if loose, ok := strings.CutPrefix(key, looseEndpoint); ok {
			out = append(out, state.EndpointID(loose))
		}
		if e.EndpointID != "" {
			out = append(out, e.EndpointID)
		}
	}
	return out, nil
}
