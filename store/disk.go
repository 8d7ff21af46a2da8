package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/state"
)

// record is one value of the file that is to be written; without a value the key is
// to be removed.
type record struct {
	bucket     string
	key, value []byte
}

// The bucket of values that exist once, and their keys.
const (
	metaBucket    = "meta"
	versionKey    = "version"
	revisionKey   = "revision"
	forwardingKey = "forwarding"
	ulaKey        = "ula"
)

// recordBuckets are the buckets with one entry per object.
var recordBuckets = []string{
	networkKind.bucket, endpointKind.bucket, poolKind.bucket, leaseKind.bucket, retiredKind.bucket,
}

func metaRecord(key string, value any) (record, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return record{}, fmt.Errorf("encoding %s: %w", key, err)
	}
	return record{bucket: metaBucket, key: []byte(key), value: b}, nil
}

// metaRecords returns all values of meta but the version. They share a page of the
// file, so that leaving out those that stay would save nothing.
func metaRecords(revision uint64, h host) ([]record, error) {
	if h.ula.IsValid() != (h.ula != netip.Prefix{}) || h.ula.Addr().Zone() != "" {
		return nil, errors.New("the unique local prefix is malformed and cannot be stored")
	}
	rev, err1 := metaRecord(revisionKey, revision)
	fwd, err2 := metaRecord(forwardingKey, h.forwarding)
	ula, err3 := metaRecord(ulaKey, h.ula)
	return []record{rev, fwd, ula}, errors.Join(err1, err2, err3)
}

// write puts the records into the file's buckets, and what they change into the sum.
func write(tx *bolt.Tx, records []record) error {
	var sum uint64
	if err := readMeta(tx, sumKey, &sum); err != nil {
		return err
	}
	for _, r := range records {
		if b := tx.Bucket([]byte(r.bucket)); b != nil {
			sum += entrySum(r.bucket, r.key, r.value) - entrySum(r.bucket, r.key, b.Get(r.key))
		}
		if err := put(tx, r); err != nil {
			return err
		}
	}
	return putSum(tx, sum)
}

func put(tx *bolt.Tx, r record) error {
	b := tx.Bucket([]byte(r.bucket))
	if b == nil {
		return fmt.Errorf("there is no bucket %s", r.bucket)
	}
	var err error
	if r.value == nil {
		err = b.Delete(r.key)
	} else {
		err = b.Put(r.key, r.value)
	}
	if err != nil {
		return fmt.Errorf("writing %q of %s: %w", r.key, r.bucket, err)
	}
	return nil
}

// empty removes all records of objects.
func empty(tx *bolt.Tx) error {
	for _, name := range recordBuckets {
		if err := tx.DeleteBucket([]byte(name)); err != nil {
			return fmt.Errorf("emptying %s: %w", name, err)
		}
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return fmt.Errorf("emptying %s: %w", name, err)
		}
	}
	return resum(tx)
}

// read returns all that the file holds, or the first thing that is wrong with it.
func read(tx *bolt.Tx) (*image, error) {
	i := new(image)
	s := &i.snapshot
	err := cmp.Or(
		readMeta(tx, revisionKey, &s.Revision),
		readMeta(tx, forwardingKey, &s.Forwarding),
		readMeta(tx, ulaKey, &i.ula),
		readAll(tx, networkKind, &s.Networks),
		readAll(tx, endpointKind, &s.Endpoints),
		readAll(tx, poolKind, &s.Pools),
		readAll(tx, leaseKind, &i.leases),
		readAll(tx, retiredKind, &s.Retired),
		verify(tx),
	)
	return i, err
}

func readMeta(tx *bolt.Tx, key string, into any) error {
	b := tx.Bucket([]byte(metaBucket))
	if b == nil {
		return fmt.Errorf("there is no bucket %s", metaBucket)
	}
	if err := json.Unmarshal(b.Get([]byte(key)), into); err != nil {
		return fmt.Errorf("value %s of %s: %w", key, metaBucket, err)
	}
	return nil
}

func readAll[K comparable, V any](tx *bolt.Tx, k *kind[K, V], into *[]V) error {
	b := tx.Bucket([]byte(k.bucket))
	if b == nil {
		return fmt.Errorf("there is no bucket %s", k.bucket)
	}
	err := b.ForEach(func(key, value []byte) error {
		v, err := k.decode(key, value)
		*into = append(*into, v)
		return err
	})
	// The file orders by the bytes of the key, which for leases is another order.
	slices.SortFunc(*into, func(a, b V) int { return k.order(k.key(a), k.key(b)) })
	*into = slices.Clip(*into)
	return err
}

// checkOurs refuses a database of another program.
func checkOurs(tx *bolt.Tx) error {
	if name, _ := tx.Cursor().First(); name != nil {
		return fmt.Errorf("it holds the bucket %q but no %s: it is not a state file of drawbridge", name, metaBucket)
	}
	return nil
}

// furnish makes the buckets of a new file.
func furnish(tx *bolt.Tx) error {
	for _, name := range append([]string{metaBucket}, recordBuckets...) {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return fmt.Errorf("creating bucket %s: %w", name, err)
		}
	}
	records, err := metaRecords(0, host{forwarding: state.Forwarding{}})
	if err != nil {
		return err
	}
	return errors.Join(resum(tx), write(tx, records))
}
