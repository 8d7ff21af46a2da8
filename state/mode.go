package state

import (
	"fmt"
	"slices"
	"strings"
)

// GatewayMode is how containers and the world outside of the host reach each other in one
// family; the words and their meaning are Docker's (com.docker.network.bridge.gateway_mode_ipv4).
type GatewayMode string

const (
	// ModeNAT hides containers behind the host's address and leads to them by published
	// ports. It is the default, and empty so that nothing needs to be stored.
	ModeNAT GatewayMode = ""
	// ModeUnprotected is ModeNAT, but containers are open to who can route to their addresses.
	ModeUnprotected GatewayMode = "nat-unprotected"
	// ModeRouted translates nothing; what is published is open at the container's own address.
	ModeRouted GatewayMode = "routed"
	// ModeIsolated, of internal networks only, keeps the host off the network as well.
	ModeIsolated GatewayMode = "isolated"
)

// GatewayModes are the words that ParseGatewayMode takes.
func GatewayModes() []string { return []string{"nat", "nat-unprotected", "routed", "isolated"} }

// ParseGatewayMode reads Docker's word for a mode.
func ParseGatewayMode(s string) (GatewayMode, error) {
	switch {
	case s == "nat":
		return ModeNAT, nil
	case slices.Contains(GatewayModes(), s):
		return GatewayMode(s), nil
	}
	return "", fmt.Errorf("%q is not one of %s", Clip(s), strings.Join(GatewayModes(), ", "))
}

// String returns Docker's word.
func (m GatewayMode) String() string {
	if m == ModeNAT {
		return "nat"
	}
	return string(m)
}

// LinkNames is a list of links of the host, written with colons between them as Docker
// does (eth0:eth1). It is comparable.
type LinkNames string

// maxLinkNames is how many links one prefix can have in a kernel set (hash:net,iface of ipset(8)).
const maxLinkNames = 64

// ParseLinkNames checks a list.
func ParseLinkNames(s string) (LinkNames, error) {
	if n := strings.Count(s, ":") + 1; n > maxLinkNames {
		return "", fmt.Errorf("%d links are more than the %d that are possible", n, maxLinkNames)
	}
	for name := range strings.SplitSeq(s, ":") {
		if err := CheckLinkName(name); err != nil {
			return "", fmt.Errorf("%w; a list of links is written eth0:eth1", err)
		}
	}
	return LinkNames(s), nil
}

// All returns the names.
func (l LinkNames) All() []string {
	if l == "" {
		return nil
	}
	return strings.Split(string(l), ":")
}

// JoinLinkNames makes the list of valid names, sorted and each once.
func JoinLinkNames(names []string) LinkNames {
	return LinkNames(strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ":"))
}
