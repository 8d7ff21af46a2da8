// Package ipam is Docker's IpamDriver: it gives networks their pools and
// containers their addresses.
//
//	d := ipam.New(s, host, nil)
//	pool, err := d.RequestPool(ctx, &api.RequestPoolRequest{})
//	// pool.Pool is "172.24.0.0/24"
//	addr, err := d.RequestAddress(ctx, &api.RequestAddressRequest{PoolID: pool.PoolID})
//	// addr.Address is "172.24.0.1/24"
//
// Everything that is given out is in the store before the answer goes to Docker, so
// that nothing needs to be replayed when Docker or Drawbridge starts again. There is one
// address space, the host's: the names that GetDefaultAddressSpaces returns are
// there because Docker wants them and are not looked at in a request.
//
// # Pools
//
// A request that names no subnet, or one such as 0.0.0.0/26 that says only how large
// it shall be, gets the first free piece of the base pools ([BasePool]). Free means that
// it overlaps no pool of ours, no network in the store, and nothing that the [Host]
// reports; Docker's own check looks at fewer routes. The IPv6 pieces come from a random
// RFC 4193 prefix, made when the first is asked for and kept in the store.
//
// A request that names its subnet gets that one, even where a route of the host
// overlaps it: whether the host has room for the network is for the network driver to say.
// The same request again is taken for a retry as long as nothing has come of the
// first: no network has the subnet and no address of it is in use but for a gateway. The
// gateway is then chosen anew. So a subnet is not lost when Docker dies between its
// requests and CreateNetwork.
//
// Pools never overlap each other. A [state.PoolID] is made of the pool's prefixes
// only, drawbridge/10.1.0.0/24/10.1.0.128/25 for a pool with an --ip-range, so that
// it is the same when the pool is asked for again.
//
// # Addresses
//
// Addresses are given out in ascending order, from a cursor that goes round the pool's
// range. A request that follows a release therefore gets another address if there is one,
// and the old owner's connections and ARP entries have time to die. An address that the user
// names may lie anywhere in the pool, outside of its range too, as Docker expects for
// --gateway and --aux-address.
//
// An --aux-address is an address that no container gets, not even by --ip. Docker requests
// it like that of a container, but before there is a network: a named address that is leased
// while no network in the store has the pool's subnet is reserved ([state.Lease]), and
// refused once there is one. A container on a network of another driver has no
// network in the store; its --ip is not refused.
//
// # Who frees an address
//
// ReleaseAddress does, except while an endpoint in the store has the address, or
// a network has it for its gateway. Then the release is somebody else's: of a second
// container whose request for the same address was taken for a repetition and whose
// endpoint was then refused. It succeeds and frees nothing. The lease is not lost by
// that, because Docker sends ReleaseAddress after each DeleteEndpoint, and ReleasePool
// before each DeleteNetwork.
//
// Nobody releases the IPv4 address when the request for the IPv6 address after it fails:
// Docker forgets it. It stays leased until its pool is released.
//
// # Be aware
//
// An address in use by an endpoint is never given out, whether or not it is leased:
// a release that was not meant for it cannot make two containers share it.
//
// Nothing here takes memory or time by the size of a pool, only by what is in use: a
// /8 costs what a /24 does.
package ipam
