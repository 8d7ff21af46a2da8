package plugin

import (
	"github.com/drawbridge-net/drawbridge/driver"
	"github.com/drawbridge-net/drawbridge/ipam"
)

// Routes returns every call of both APIs, answered by the network driver d and the IPAM
// driver i. dockerd from 20.10 to 29 sends no others.
func Routes(d *driver.Driver, i *ipam.Driver) []Route {
	return []Route{
		ask("/NetworkDriver.GetCapabilities", d.GetCapabilities),
		call("/NetworkDriver.GwAllocCheck", d.GwAllocCheck),
		callNoReply("/NetworkDriver.CreateNetwork", d.CreateNetwork),
		callNoReply("/NetworkDriver.DeleteNetwork", d.DeleteNetwork),
		call("/NetworkDriver.CreateEndpoint", d.CreateEndpoint),
		callNoReply("/NetworkDriver.DeleteEndpoint", d.DeleteEndpoint),
		call("/NetworkDriver.EndpointOperInfo", d.EndpointInfo),
		call("/NetworkDriver.Join", d.Join),
		callNoReply("/NetworkDriver.Leave", d.Leave),
		callNoReply("/NetworkDriver.ProgramExternalConnectivity", d.ProgramExternalConnectivity),
		callNoReply("/NetworkDriver.RevokeExternalConnectivity", d.RevokeExternalConnectivity),
		call("/NetworkDriver.AllocateNetwork", d.AllocateNetwork),
		callNoReply("/NetworkDriver.FreeNetwork", d.FreeNetwork),
		callNoReply("/NetworkDriver.DiscoverNew", d.DiscoverNew),
		callNoReply("/NetworkDriver.DiscoverDelete", d.DiscoverDelete),

		ask("/IpamDriver.GetCapabilities", i.GetCapabilities),
		ask("/IpamDriver.GetDefaultAddressSpaces", i.GetDefaultAddressSpaces),
		call("/IpamDriver.RequestPool", i.RequestPool),
		callNoReply("/IpamDriver.ReleasePool", i.ReleasePool),
		call("/IpamDriver.RequestAddress", i.RequestAddress),
		callNoReply("/IpamDriver.ReleaseAddress", i.ReleaseAddress),
	}
}
