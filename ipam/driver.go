package ipam

import (
	"context"
	"net/netip"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"

	"github.com/drawbridge-net/drawbridge/store"
)

// Docker 27 and later leave out their own search for overlapping routes when the two
// names are equal. It is a second pair of eyes and costs nothing, so they differ.
const (
	localSpace  = "drawbridge-local"
	globalSpace = "drawbridge-global"
)

// Host is the view of the host that choosing a pool needs.
type Host interface {
	// OccupiedPrefixes returns every prefix of a family in use: routes of all tables,
	// interface addresses, nameservers. Default routes are not among them.
	OccupiedPrefixes(ctx context.Context, v6 bool) ([]netip.Prefix, error)
}

// Driver answers Docker's IPAM calls. Its methods may be called from any goroutine.
type Driver struct {
	store *store.Store
	host  Host
	bases []BasePool

	memory memory
	now    func() time.Time // replaced by tests
}

// New returns a driver that keeps its pools and addresses in s. pools are the base
// pools in the order in which they are used; a family of which there is none
// gets Drawbridge's own, see [DefaultBasePools].
func New(s *store.Store, host Host, pools []BasePool) *Driver {
	return &Driver{store: s, host: host, bases: pools, memory: newMemory(), now: time.Now}
}

// CapabilitiesResponse is the answer to GetCapabilities. The type of the same name
// in go-plugins-helpers lacks the second field.
type CapabilitiesResponse struct {
	RequiresMACAddress    bool // whether Docker makes the MAC before it asks for an address
	RequiresRequestReplay bool // whether Docker repeats all requests when it starts
}

// GetCapabilities wants nothing from Docker: addresses do not depend on MACs, and
// what was given out is on disk.
func (d *Driver) GetCapabilities(context.Context) (*CapabilitiesResponse, error) {
	return &CapabilitiesResponse{}, nil
}

// GetDefaultAddressSpaces returns the names that Docker will put into RequestPool.
func (d *Driver) GetDefaultAddressSpaces(context.Context) (*api.AddressSpacesResponse, error) {
	return &api.AddressSpacesResponse{
		LocalDefaultAddressSpace:  localSpace,
		GlobalDefaultAddressSpace: globalSpace,
	}, nil
}
