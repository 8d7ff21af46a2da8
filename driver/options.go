package driver

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// Option is a key that a user may set, with what is told of it. Keys of Docker's have
// Docker's meaning.
type Option struct {
	Key     string
	Type    string // of the value, for people: true|false, bytes, address …
	Default string // empty for none
	Meaning string
}

// option is an Option of a T and what it does.
type option[T any] struct {
	Option
	set func(*T, string) error
}

// optionsOf returns the parts of a table that are for people.
func optionsOf[T any](table []option[T]) []Option {
	out := make([]Option, len(table))
	for i, o := range table {
		out[i] = o.Option
	}
	return out
}

func keysOf[T any](table []option[T]) []string {
	var out []string
	for _, o := range table {
		out = append(out, o.Key)
	}
	return out
}

// apply carries one value into target, and says whether the table has the key.
func apply[T any](table []option[T], target *T, key, value string) (known bool, err error) {
	i := slices.IndexFunc(table, func(o option[T]) bool { return o.Key == key })
	if i < 0 {
		return false, nil
	}
	if err := table[i].set(target, value); err != nil {
		return true, fmt.Errorf("option %s: %w", key, err)
	}
	return true, nil
}

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
		known, err := apply(networkOptions, n, key, value)
		if err != nil {
			return err
		}
		if known || !hasPrefix(key, dockerPrefix, ownPrefix) {
			continue
		}
		return refuseKey(key, onNetworks, onContainers)
	}
	return nil
}

// engineKeys are set by flags of docker network create and never by -o.
var engineKeys = []string{optEnableIPv4, optEnableIPv6, optInternal}

func hasPrefix(key string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
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
