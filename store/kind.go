package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// kind describes one sort of record: how it is found, compared and filed.
type kind[K comparable, V any] struct {
	bucket string // also its name in errors
	key    func(V) K
	order  func(a, b K) int
	file   func(K) string // the key in the bucket
	equal  func(a, b V) bool
	clone  func(V) V // a copy that shares no memory with its origin
}

// leaseKey identifies a lease: the same address may be in use in two pools.
type leaseKey struct {
	pool state.PoolID
	addr netip.Addr
}

var (
	networkKind = plainKind("networks", func(n state.Network) state.NetworkID { return n.ID })
	poolKind    = plainKind("pools", func(p state.Pool) state.PoolID { return p.ID })
	retiredKind = plainKind("retired", func(bridge string) string { return bridge })

	endpointKind = &kind[state.EndpointID, state.Endpoint]{
		bucket: "endpoints",
		key:    func(e state.Endpoint) state.EndpointID { return e.ID },
		order:  cmp.Compare[state.EndpointID],
		file:   func(id state.EndpointID) string { return string(id) },
		equal:  state.Endpoint.Equal,
		clone:  cloneEndpoint,
	}

	leaseKind = &kind[leaseKey, state.Lease]{
		bucket: "leases",
		key:    func(l state.Lease) leaseKey { return leaseKey{l.Pool, l.Addr} },
		order:  compareLeaseKeys,
		file:   func(k leaseKey) string { return string(k.pool) + "\x00" + k.addr.String() },
		equal:  func(a, b state.Lease) bool { return a == b },
		clone:  func(l state.Lease) state.Lease { return l },
	}
)

// plainKind is a kind whose values hold no slice or map. That V must be comparable
// makes the compiler notice when such a field is added.
func plainKind[K ~string, V comparable](bucket string, key func(V) K) *kind[K, V] {
	return &kind[K, V]{
		bucket: bucket,
		key:    key,
		order:  cmp.Compare[K],
		file:   func(k K) string { return string(k) },
		equal:  func(a, b V) bool { return a == b },
		clone:  func(v V) V { return v },
	}
}

func compareLeaseKeys(a, b leaseKey) int {
	return cmp.Or(strings.Compare(string(a.pool), string(b.pool)), a.addr.Compare(b.addr))
}

// cloneEndpoint also makes empty lists nil, as they are after reading them
// from disk.
func cloneEndpoint(e state.Endpoint) state.Endpoint {
	e.Ports = append([]state.Port(nil), e.Ports...)
	e.Closed = append([]state.Port(nil), e.Closed...)
	e.Links = append([]string(nil), e.Links...)
	e.Exposed = append([]state.ContainerPort(nil), e.Exposed...)
	return e
}

// encode returns the record of v. It decodes it again: a value that does not survive
// that, such as a protocol without a name, would make the file unreadable later.
func (k *kind[K, V]) encode(v V) (record, error) {
	file := k.file(k.key(v))
	if file == "" {
		return record{}, fmt.Errorf("a record of %s has an empty id", k.bucket)
	}
	value, err := json.Marshal(v)
	if err != nil {
		return record{}, fmt.Errorf("encoding %q of %s: %w", file, k.bucket, err)
	}
	back, err := k.decode([]byte(file), value)
	if err != nil {
		return record{}, err
	}
	if !k.equal(v, back) {
		return record{}, fmt.Errorf("record %q of %s cannot be stored without loss", file, k.bucket)
	}
	return record{bucket: k.bucket, key: []byte(file), value: value}, nil
}

// decode returns the value that was stored under the key file.
func (k *kind[K, V]) decode(file, value []byte) (V, error) {
	var v V
	if err := json.Unmarshal(value, &v); err != nil {
		return v, fmt.Errorf("record %q of %s: %w", file, k.bucket, err)
	}
	if want := k.file(k.key(v)); !bytes.Equal(file, []byte(want)) {
		return v, fmt.Errorf("record %q of %s holds the value of %q", file, k.bucket, want)
	}
	return v, nil
}
