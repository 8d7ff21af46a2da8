package driver

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// Prefixes of the option keys that are checked. Keys of anybody else are passed over,
// as Docker's own driver does.
const (
	dockerPrefix = "com.docker.network."
	ownPrefix    = "drawbridge."
)

// The typed options of CreateNetwork, which stand beside the user's own.
const (
	optGeneric    = dockerPrefix + "generic"
	optEnableIPv4 = dockerPrefix + "enable_ipv4"
	optEnableIPv6 = dockerPrefix + "enable_ipv6"
	optInternal   = dockerPrefix + "internal"
)

// optPortMap is the container's list of published ports in the options of
// ProgramExternalConnectivity.
const optPortMap = dockerPrefix + "portmap"

// optIPv6Elsewhere is true in the options of ProgramExternalConnectivity if another endpoint
// of the container is its IPv6 gateway (Docker 28+; moby, daemon/libnetwork/netlabel).
const optIPv6Elsewhere = dockerPrefix + "driver.private.no_proxy_6to4"

// networkOptions are the keys of `docker network create -o` and what each does.
var networkOptions = map[string]func(*state.Network, string) error{
	dockerPrefix + "bridge.name": func(n *state.Network, v string) error {
		n.Bridge = v
		return state.CheckLinkName(v)
	},
	dockerPrefix + "driver.mtu": func(n *state.Network, v string) error {
		mtu, err := strconv.Atoi(v)
		if err != nil || mtu < 0 {
			return fmt.Errorf("%q is not a number of bytes", state.Clip(v))
		}
		n.MTU = mtu
		return nil
	},
	// What follows is accepted where it asks for what happens anyway.
	dockerPrefix + "bridge.enable_icc":           onlyBool(true),
	dockerPrefix + "bridge.enable_ip_masquerade": onlyBool(true),
	dockerPrefix + "bridge.inhibit_ipv4":         onlyBool(false),
	dockerPrefix + "bridge.gateway_mode_ipv4":    only("nat"),
	dockerPrefix + "bridge.gateway_mode_ipv6":    only("nat"),
	dockerPrefix + "bridge.host_binding_ipv4":    only("0.0.0.0"),
	dockerPrefix + "container_iface_prefix":      only(interfacePrefix),
}

// only accepts a value that changes nothing and refuses every other.
func only(value string) func(*state.Network, string) error {
	return func(_ *state.Network, v string) error {
		if v != value {
			return fmt.Errorf("only %q is supported so far", value)
		}
		return nil
	}
}

// onlyBool is only for switches, in every spelling of them.
func onlyBool(value bool) func(*state.Network, string) error {
	return func(_ *state.Network, v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is not true or false", state.Clip(v))
		}
		if b != value {
			return fmt.Errorf("only %t is supported so far", value)
		}
		return nil
	}
}

// applyOptions carries the user's options into n.
func applyOptions(n *state.Network, generic any) error {
	if generic == nil {
		return nil
	}
	options, ok := generic.(map[string]any)
	if !ok {
		return fmt.Errorf("the options of the network must be an object of strings")
	}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		value, ok := options[key].(string)
		if !ok {
			return fmt.Errorf("option %s must be a string", state.Clip(key))
		}
		set, known := networkOptions[key]
		if !known {
			if err := unknownOption(key, slices.Sorted(maps.Keys(networkOptions))); err != nil {
				return err
			}
			continue
		}
		if err := set(n, value); err != nil {
			return fmt.Errorf("option %s: %w", key, err)
		}
	}
	return nil
}

// unknownOption refuses a key that only looks like one of ours, and names the nearest that is.
func unknownOption(key string, known []string) error {
	if !strings.HasPrefix(key, dockerPrefix) && !strings.HasPrefix(key, ownPrefix) {
		return nil
	}
	nearest := slices.MinFunc(known, func(a, b string) int { return distance(key, a) - distance(key, b) })
	return fmt.Errorf("option %s is unknown: did you mean %s?", state.Clip(key), nearest)
}

// distance is the Levenshtein distance of two keys. Long keys are cut: they resemble nothing.
func distance(a, b string) int {
	a, b = a[:min(len(a), 80)], b[:min(len(b), 80)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// boolOption reads one of the engine's own switches; absent ones have a default.
func boolOption(options map[string]any, key string, absent bool) (bool, error) {
	switch v := options[key].(type) {
	case nil:
		return absent, nil
	case bool:
		return v, nil
	case string:
		if b, err := strconv.ParseBool(v); err == nil {
			return b, nil
		}
	}
	return false, fmt.Errorf("option %s must be true or false", key)
}
