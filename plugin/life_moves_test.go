package plugin

import (
	"net/netip"
	"slices"
	"time"

	ipamapi "github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
)

func (l *life) requestPool(pool, _, choice int) (any, error) {
	r := &ipamapi.RequestPoolRequest{Pool: prefixOf(pool).String(), V6: pool%2 == 1}
	if choice >= 250 {
		r.Pool = poolID(pool, choice)
		if r.Pool == "" { // any subnet, which would be another each time
			r.Pool = "/"
		}
	}
	got, err := l.ipam.RequestPool(l.t.Context(), r)
	if err != nil {
		return nil, err
	}
	p := &l.pools[pool]
	for a, kind := range p.leased {
		if kind == forContainer {
			l.t.Errorf("pool %s is given again while a container has %s", got.PoolID, a)
		}
	}
	if l.hasFamily(pool) {
		l.t.Errorf("pool %s is given again while network %d is made of it", got.PoolID, pool/2)
	}
	if got.PoolID != poolID(pool, 0) || got.Pool != prefixOf(pool).String() {
		l.t.Errorf("pool %s is %+v", poolID(pool, 0), got)
	}
	p.leased = map[netip.Addr]leaseKind{}
	return got, nil
}

// hasFamily reports whether there is a network that was made of the pool.
func (l *life) hasFamily(pool int) bool { return l.pools[pool].gateway.IsValid() }

func (l *life) request(pool, choice int, address string, gateway bool) (netip.Addr, error) {
	r := &ipamapi.RequestAddressRequest{PoolID: poolID(pool, choice), Address: address}
	if gateway {
		r.Options = map[string]string{"RequestAddressType": "com.docker.network.gateway"}
	}
	got, err := l.ipam.RequestAddress(l.t.Context(), r)
	if err != nil {
		return netip.Addr{}, err
	}
	p, err := netip.ParsePrefix(got.Address)
	if err != nil || p.Masked() != prefixOf(pool) || l.pools[pool].leased == nil {
		l.t.Fatalf("pool %s gives %q", r.PoolID, got.Address)
	}
	return p.Addr(), nil
}

func (l *life) requestGateway(pool, _, choice int) (any, error) {
	a, err := l.request(pool, choice, "", true)
	if err != nil {
		return nil, err
	}
	if kind, leased := l.pools[pool].leased[a]; leased && kind != forGateway {
		l.t.Errorf("gateway %s is a container's", a)
	}
	l.pools[pool].leased[a] = forGateway
	return a.String(), nil
}

func (l *life) requestAny(pool, _, choice int) (any, error) {
	a, err := l.request(pool, choice, "", false)
	if err != nil {
		return nil, err
	}
	if _, leased := l.pools[pool].leased[a]; leased || l.uses(pool, a) {
		l.t.Errorf("%s is given a second time", a)
	}
	l.pools[pool].leased[a] = forContainer
	return a.String(), nil
}

func (l *life) requestNamed(pool, e, choice int) (any, error) {
	want, gateway := addrOf(pool, choice), e == 7
	name := want.String()
	if e == 6 {
		name += "%\n"
	}
	a, err := l.request(pool, choice, name, gateway)
	if err != nil {
		return nil, err
	}
	kind, leased := l.pools[pool].leased[a]
	if again := gateway && leased && kind == forGateway; a != want || !again && (l.uses(pool, a) || leased && kind != forContainer && l.hasFamily(pool)) {
		l.t.Errorf("%s is given for %s, which is in use", a, want)
	}
	if leased && !l.hasFamily(pool) && !(gateway && kind == forGateway) {
		l.t.Errorf("%s is given a second time", a)
	}
	switch {
	case gateway:
		kind = forGateway
	case l.hasFamily(pool):
		kind = forContainer
	default:
		kind = forNobody
	}
	l.pools[pool].leased[a] = kind
	return a.String(), nil
}

func (l *life) releaseAddress(pool, _, choice int) (any, error) {
	a := addrOf(pool, choice)
	err := l.ipam.ReleaseAddress(l.t.Context(), &ipamapi.ReleaseAddressRequest{PoolID: poolID(pool, choice), Address: a.String()})
	if err == nil && choice < 250 && !l.uses(pool, a) {
		delete(l.pools[pool].leased, a)
	}
	return nil, err
}

func (l *life) releasePool(pool, _, choice int) (any, error) {
	err := l.ipam.ReleasePool(l.t.Context(), &ipamapi.ReleasePoolRequest{PoolID: poolID(pool, choice)})
	if err == nil && choice < 250 && !l.hasFamily(pool) {
		l.pools[pool].leased = nil
	}
	return nil, err
}

// createNetwork makes one of the first family, of the second or of both, with the gateway that was given for it.
func (l *life) createNetwork(pool, _, choice int) (any, error) {
	n := pool / 2
	r := &network.CreateNetworkRequest{NetworkID: idOf(n, choice), Options: map[string]any{"com.docker.network.generic": map[string]any{}}}
	gateways := map[int]netip.Addr{}
	for family := range 2 {
		if only := choice % 3; only != 0 && only != family+1 {
			continue
		}
		at := 2*n + family
		gateway := addrOf(at, 1)
		for a, kind := range l.pools[at].leased {
			if kind == forGateway && (!gateways[at].IsValid() || a.Less(gateways[at])) {
				gateways[at], gateway = a, a
			}
		}
		if l.pools[at].gateway.IsValid() {
			gateway = l.pools[at].gateway
		}
		gateways[at] = gateway
		data := []*network.IPAMData{{Pool: prefixOf(at).String(), Gateway: netip.PrefixFrom(gateway, prefixOf(at).Bits()).String()}}
		if family == 0 {
			r.IPv4Data = data
		} else {
			r.IPv6Data = data
		}
	}
	if err := l.net.CreateNetwork(l.t.Context(), r); err != nil {
		return nil, err
	}
	l.networks[n] = true
	for at, gateway := range gateways {
		l.pools[at].gateway = gateway
	}
	return nil, nil
}

// createEndpoint attaches one with an address of each family that the network has.
func (l *life) createEndpoint(pool, e, choice int) (any, error) {
	n, id := pool/2, idOf(100+e, choice)
	r := &network.CreateEndpointRequest{NetworkID: idOf(n, 0), EndpointID: id, Interface: &network.EndpointInterface{}}
	var addrs []netip.Addr
	for family, text := range []*string{&r.Interface.Address, &r.Interface.AddressIPv6} {
		if at := 2*n + family; l.hasFamily(at) {
			a := addrOf(at, choice)
			addrs = append(addrs, a)
			*text = netip.PrefixFrom(a, prefixOf(at).Bits()).String()
		}
	}
	got, err := l.net.CreateEndpoint(l.t.Context(), r)
	if err != nil {
		return nil, err
	}
	for other, o := range l.endpoints {
		if other != id && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(o.addrs, a) }) {
			l.t.Errorf("endpoints %s and %s have the same of %v", id, other, addrs)
		}
	}
	l.endpoints[id] = attached{n, addrs}
	return got, nil
}

func (l *life) join(pool, e, choice int) (any, error) {
	return l.net.Join(l.t.Context(), &network.JoinRequest{NetworkID: lifeID(pool / 2), EndpointID: idOf(100+e, choice), SandboxKey: "/var/run/docker/netns/" + lifeID(e)[:12]})
}

func (l *life) program(pool, e, choice int) (any, error) {
	port := map[string]any{"Proto": 6, "Port": 80 + choice%2, "HostPort": 8000 + e}
	return nil, l.net.ProgramExternalConnectivity(l.t.Context(), &network.ProgramExternalConnectivityRequest{
		NetworkID: lifeID(pool / 2), EndpointID: idOf(100+e, choice), Options: map[string]any{"com.docker.network.portmap": []any{port}},
	})
}

func (l *life) revoke(pool, e, choice int) (any, error) {
	return nil, l.net.RevokeExternalConnectivity(l.t.Context(), &network.RevokeExternalConnectivityRequest{NetworkID: lifeID(pool / 2), EndpointID: idOf(100+e, choice)})
}

func (l *life) leave(pool, e, choice int) (any, error) {
	return nil, l.net.Leave(l.t.Context(), &network.LeaveRequest{NetworkID: lifeID(pool / 2), EndpointID: idOf(100+e, choice)})
}

func (l *life) deleteEndpoint(pool, e, choice int) (any, error) {
	id := idOf(100+e, choice)
	err := l.net.DeleteEndpoint(l.t.Context(), &network.DeleteEndpointRequest{NetworkID: lifeID(pool / 2), EndpointID: id})
	if l.endpoints[id].network == pool/2 {
		delete(l.endpoints, id)
	}
	return nil, err
}

func (l *life) deleteNetwork(pool, _, choice int) (any, error) {
	n := pool / 2
	err := l.net.DeleteNetwork(l.t.Context(), &network.DeleteNetworkRequest{NetworkID: idOf(n, choice)})
	if choice >= 250 || !l.networks[n] {
		return nil, err
	}
	for _, at := range []int{2 * n, 2*n + 1} {
		if l.hasFamily(at) {
			l.pools[at] = poolOf{}
		}
	}
	for id, e := range l.endpoints {
		if e.network == n {
			delete(l.endpoints, id)
		}
	}
	l.networks[n] = false
	return nil, err
}

// sweep lets a minute pass, after which what nobody has is free.
func (l *life) sweep(int, int, int) (any, error) {
	for range 2 {
		if _, err := l.ipam.Sweep(l.t.Context(), l.now); err != nil {
			return nil, err
		}
		l.now = l.now.Add(time.Minute)
	}
	for at, p := range l.pools {
		for a, kind := range p.leased {
			if l.hasFamily(at) && !l.uses(at, a) && kind != forNobody {
				delete(p.leased, a)
			}
		}
	}
	return nil, nil
}
