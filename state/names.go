package state

import (
	"fmt"
	"regexp"
	"strings"
)

// Device groups mark the links that are ours. A rule tests them with one match,
// whatever the number of networks, and a process with no memory finds our links
// by them. The numbers are arbitrary, large, and part of the on-host interface:
// changing one orphans links of running hosts.
const (
	// GroupBridge is the device group of the bridge of an ordinary network.
	GroupBridge uint32 = 0xd12b0
	// GroupInternal is the device group of the bridge of an internal network.
	GroupInternal uint32 = 0xd12b1
	// GroupAdoptedBit is added to either for a bridge that somebody else made.
	GroupAdoptedBit uint32 = 0x100
	// GroupBridgeMask selects the bridges of all networks: group & mask == GroupBridge.
	GroupBridgeMask = ^(GroupBridge ^ GroupInternal | GroupAdoptedBit)
	// GroupPort is the device group of the host's end of an endpoint's veth pair.
	GroupPort uint32 = 0xd12b2
	// GroupDoomed is the device group of links that are down and about to be deleted together.
	GroupDoomed uint32 = 0xd12b3
	// GroupDoomedBridge is that of bridges, which are deleted one by one.
	GroupDoomedBridge uint32 = 0xd12b4
)

// maxIfName is IFNAMSIZ less the final zero.
const maxIfName = 15

// aliasPrefix begins the alias of each of our links.
const aliasPrefix = "drawbridge "

// DefaultBridgeName returns the name of a network's bridge when the user gave none;
// it is the name that Docker's own driver would choose.
func DefaultBridgeName(id NetworkID) string { return "br-" + id.Short() }

// HostLink returns the name of the host's end of the endpoint's veth pair.
func (e Endpoint) HostLink() string { return "veth" + string(e.ID[:11]) }

// ContainerLink returns the name that the container's end has until the engine
// moves it into the container and renames it, and again after it took it out.
func (e Endpoint) ContainerLink() string { return "dbr" + string(e.ID[:12]) }

// Alias returns the link alias (ip link show) of the network's bridge.
func (n Network) Alias() string { return aliasPrefix + "network " + string(n.ID) }

// Alias returns the link alias of the host's end of the endpoint's veth pair.
func (e Endpoint) Alias() string {
	return aliasPrefix + "endpoint " + string(e.ID) + " of network " + string(e.Network)
}

// Carries reports whether a link with this alias is the host's end of the endpoint's veth pair. Links that earlier versions
// made do not name the network.
func (e Endpoint) Carries(alias string) bool {
	return alias == e.Alias() || alias == aliasPrefix+"endpoint "+string(e.ID)
}

// dockerName matches the names that Docker's own driver gives to bridges.
var dockerName = regexp.MustCompile(`^(docker0|docker_gwbridge|br-[0-9a-f]{12})$`)

// DockerBridgeName reports whether a bridge's name is of the kind that Docker's own driver gives, and no
// user would.
func DockerBridgeName(name string) bool { return dockerName.MatchString(name) }

// OwnerOf returns the object whose link has the alias; the zero Scope if it names none.
func OwnerOf(alias string) Scope {
	rest, _ := strings.CutPrefix(alias, aliasPrefix)
	if id, ok := strings.CutPrefix(rest, "network "); ok {
		return Scope{Network: NetworkID(id)}
	}
	id, ok := strings.CutPrefix(rest, "endpoint ")
	if !ok {
		return Scope{}
	}
	endpoint, network, _ := strings.Cut(id, " of network ")
	return Scope{Network: NetworkID(network), Endpoint: EndpointID(endpoint)}
}

// OurAlias reports whether a link with this alias was made by Drawbridge.
func OurAlias(alias string) bool { return strings.HasPrefix(alias, aliasPrefix) }

// CheckLinkName says whether name can be the name of a link of ours: what the
// kernel accepts (net/core/dev.c, dev_valid_name), less the characters that other
// programs and iptables' own wildcard would misread.
func CheckLinkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the name of a link must not be empty")
	case len(name) > maxIfName:
		return fmt.Errorf("link name %q is longer than %d characters", Clip(name), maxIfName)
	case name == "." || name == ".." || name == "lo" || name == "all" || name == "default":
		return fmt.Errorf("link name %q is reserved", name)
	}
	for i := range len(name) {
		c := name[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			c == '_' || i > 0 && (c == '-' || c == '.')
		if !ok {
			return fmt.Errorf("link name %q may contain letters, digits, '_', '-' and '.', and must begin with a letter, a digit or '_'", Clip(name))
		}
	}
	return nil
}
