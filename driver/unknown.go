package driver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge-net/drawbridge/internal/spelling"
	"github.com/drawbridge-net/drawbridge/state"
)

// place is where a key belongs: to a network, or to a container's attachment to one.
type place struct {
	what string // for people
	how  string // the command that takes the key; %s is the key
	keys []string
}

var (
	onNetworks   = place{"networks", "`docker network create -o %s=…`", keysOf(networkOptions)}
	onContainers = place{"containers", "`docker run --network name=NETWORK,driver-opt=%s=…`", keysOf(endpointOptions)}
)

// refuseKey is the error for a key that is none of a place's, and says what to do instead.
func refuseKey(key string, here, elsewhere place) error {
	nearest, near := nearestKey(key, slices.Concat(here.keys, elsewhere.keys, engineKeys))
	switch {
	case slices.Contains(elsewhere.keys, key):
		return fmt.Errorf("option %s is an option of %s: give it to "+elsewhere.how, key, elsewhere.what, key)
	case slices.Contains(engineKeys, key):
		return fmt.Errorf("option %s cannot be given: docker network create has a flag for it (--internal, --ipv6, --ipv4)", key)
	case !near:
		return fmt.Errorf("option %s is unknown: `drawbridge options` lists those of %s", state.Clip(key), here.what)
	case !slices.Contains(here.keys, nearest) && slices.Contains(elsewhere.keys, nearest):
		return fmt.Errorf("option %s is unknown: did you mean %s, an option of %s ("+elsewhere.how+")?", state.Clip(key), nearest, elsewhere.what, nearest)
	}
	return fmt.Errorf("option %s is unknown: did you mean %s?", state.Clip(key), nearest)
}

// nearestKey returns the known key that a user most probably meant, and whether there is one: a key that ends in the
// same word, or one with a slip of the pen.
func nearestKey(key string, known []string) (string, bool) {
	last := func(k string) string { return k[strings.LastIndexByte(k, '.')+1:] }
	same := slices.DeleteFunc(slices.Clone(known), func(k string) bool { return last(k) != last(key) })
	if nearest, _ := spelling.Nearest(key, same); nearest != "" {
		return nearest, true
	}
	return spelling.Nearest(key, known)
}
