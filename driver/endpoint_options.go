package driver

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// EndpointOptions are the keys of `docker run --network name=…,driver-opt=key=value` and of compose's driver_opts.
func EndpointOptions() []Option { return optionsOf(endpointOptions) }

const endpointPrefix = dockerPrefix + "endpoint."

var endpointOptions = slices.Concat(
	linkOptions,
	exposureOptions(func(e *state.Endpoint) *state.Exposure { return &e.Exposure }, "that of the network", "those of the network"),
	dockerEndpointOptions,
)

var linkOptions = []option[state.Endpoint]{
	{Option{
		ownPrefix + "name", "name", "",
		"What other containers of the network call this one in drawbridge.link.",
	}, func(e *state.Endpoint, v string) error {
		e.Name = v
		return state.CheckName(v)
	}},
	{Option{
		ownPrefix + "link", "names, db,cache", "",
		"Names, as in drawbridge.name, of containers whose exposed ports this one may reach on a network with enable_icc=false. They need not be there yet.",
	}, func(e *state.Endpoint, v string) error {
		e.Links = strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' || r == ':' })
		slices.Sort(e.Links)
		e.Links = slices.Compact(e.Links)
		for _, name := range e.Links {
			if err := state.CheckName(name); err != nil {
				return err
			}
		}
		if len(e.Links) == 0 {
			return fmt.Errorf("%q names no container", state.Clip(v))
		}
		return nil
	}},
}

var dockerEndpointOptions = []option[state.Endpoint]{
	{Option{
		endpointPrefix + "ifname", "link name", "",
		"Name of the link in the container. The engine numbers the links of plugins itself, so that the name must end in 0.",
	}, func(e *state.Endpoint, v string) error {
		prefix, ok := strings.CutSuffix(v, "0")
		if !ok || checkLinkPrefix(prefix) != nil {
			return fmt.Errorf("the engine numbers the links of plugins itself, from 0: choose a name that ends in 0, such as web0, not %q", state.Clip(v))
		}
		e.LinkPrefix = prefix
		return nil
	}},
	{Option{
		endpointPrefix + "sysctls", "assignments", "",
		"Sysctls of the link in the container, with IFNAME in place of its name. Docker 27 and later sets them itself; before, they have no effect.",
	}, engineOwn},
	{Option{
		endpointPrefix + "macaddress", "MAC address", "made from network and address",
		"Set by --mac-address.",
	}, engineOwn},
}

// engineOwn passes what the engine deals with itself.
func engineOwn(*state.Endpoint, string) error { return nil }

// engineEndpointKeys are what engines themselves send with an endpoint, besides some of endpointOptions. None is
// refused, whatever its value: no container could start then.
var engineEndpointKeys = []string{
	optGeneric, optPortMap, optExposed, endpointPrefix + "dnsservers", endpointPrefix + "name",
}

// enginePrivate begins keys by which the engine's parts talk to each other.
const enginePrivate = dockerPrefix + "driver.private."

// applyEndpointOptions carries a user's options, which are strings, into e. Under Docker's prefix what is
// not a string is the engine's own, whatever its version.
func applyEndpointOptions(e *state.Endpoint, options map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(options)) {
		value, ok := options[key].(string)
		if !ok {
			if strings.HasPrefix(key, ownPrefix) {
				return fmt.Errorf("option %s must be a string", state.Clip(key))
			}
			continue
		}
		known, err := apply(endpointOptions, e, key, value)
		if err != nil {
			return err
		}
		if known || !hasPrefix(key, dockerPrefix, ownPrefix) || slices.Contains(engineEndpointKeys, key) || strings.HasPrefix(key, enginePrivate) {
			continue
		}
		if _, near := nearestKey(key, slices.Concat(onContainers.keys, onNetworks.keys, engineKeys)); !near && hasPrefix(key, dockerPrefix) {
			continue // nobody's slip: an engine to come may send it
		}
		return refuseKey(key, onContainers, onNetworks)
	}
	return nil
}

// optExposed is the list of a container's exposed ports in the options of CreateEndpoint and Join.
const optExposed = endpointPrefix + "exposedports"

// exposedPorts reads the engine's list, and says whether there is one.
func exposedPorts(options map[string]any) ([]state.ContainerPort, bool, error) {
	option, ok := options[optExposed]
	if !ok || option == nil {
		return nil, false, nil
	}
	raw, err := json.Marshal(option)
	if err != nil {
		return nil, false, fmt.Errorf("reading the list of exposed ports: %w", err)
	}
	var list []struct {
		Proto uint8
		Port  uint16
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, false, fmt.Errorf("the list of exposed ports is malformed: each needs Proto and Port")
	}
	var out []state.ContainerPort
	for _, p := range list {
		if port := (state.ContainerPort{Proto: state.Proto(p.Proto), Port: p.Port}); port.Proto.Known() && p.Port != 0 {
			out = append(out, port)
		}
	}
	return state.SortContainerPorts(out), true, nil
}
