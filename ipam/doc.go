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
// It is refused where the subnet overlaps that of a network, or of a pool of which something may
// have come: it was asked for seconds ago, a container has asked for an address of it, or the host
// has its gateway for an address of its own, as with Docker's bridges. Any other pool
// is taken for abandoned and gives way, so that a subnet is not lost when Docker dies
// before CreateNetwork, or refuses the network by itself and forgets the pool: 20.10 does so
// with an --aux-address outside of the subnet. After a restart of the daemon, when
// less is known, only a pool of the very same prefixes without an --aux-address gives way.
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
// refused once there is one.
//
// A container on a network of another driver has no network in the store. Its address is known
// by the lease alone, and asking for it again by name is refused if this process has leased it. If an
// earlier process has, a release may have been lost in between, and the address is given.
//
// # Who frees an address
//
// ReleaseAddress does, except while an endpoint in the store has the address, or
// a network has it for its gateway. Then the release is somebody else's: of a second
// container whose request for the same address was taken for a repetition and whose
// endpoint was then refused. It succeeds and frees nothing. The lease is not lost by
// that, because Docker sends ReleaseAddress after each DeleteEndpoint.
//
// Nobody releases the IPv4 address when the request for the IPv6 address after it fails:
// Docker forgets it. [Driver.Sweep] frees what no endpoint has had for a minute.
//
// # Who frees a pool
//
// ReleasePool does, except while a network in the store was made of the pool. Then
// it does nothing, and DeleteNetwork of the network driver takes the pool along, in one transaction
// with the network. For a ReleasePool may be meant for somebody else: two creations at once that
// name the same subnet have the same PoolID, and the one that is refused releases it; so does
// a replay that fails halfway. Docker sends nothing that would tell them apart. The usual removal
// is not harmed, because ReleasePool comes right before DeleteNetwork (moby,
// daemon/libnetwork/network.go). If DeleteNetwork never comes, the pool stays with the network,
// which keeps the subnet from others anyway.
//
// Where the engine undoes a creation that the network driver refused, there is no network and
// the pool goes. A ReleasePool between a winner's RequestPool and its CreateNetwork would still
// take the pool away; the loser has none to release, because the pool is refused to it
// for five seconds after the winner's last request.
//
// # Replay
//
// Docker would repeat all requests at its start if GetCapabilities asked for it. It cannot be told from
// new requests: RequestPool is refused where the network exists, and so are the addresses of
// endpoints and --aux-address; the gateway and addresses that nobody has are given again.
// Nothing changes by it, also not by the rollback, and Docker logs refusals and goes on.
//
// # Be aware
//
// An address in use by an endpoint is never given out, whether or not it is leased:
// a release that was not meant for it cannot make two containers share it.
//
// Nothing here takes memory or time by the size of a pool, only by what is in use: a
// /8 costs what a /24 does.
package ipam
