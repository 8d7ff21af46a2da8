package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	bolt "go.etcd.io/bbolt"
)

// sumKey of meta holds the sum of all entries of the file but itself. bbolt has no checksum over what it keeps: a bit that the
// disk turned in an address would be an address like any other.
const sumKey = "sum"

var errSum = errors.New("its checksum does not fit what is in it")

// entrySum is what an entry adds to the sum. The sum does not depend on an order, so that a change costs what it changes.
func entrySum(bucket string, key, value []byte) uint64 {
	if value == nil {
		return 0
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(bucket), key, value} {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part)))) // a hash takes everything
		_, _ = h.Write(part)
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// total sums up the file.
func total(tx *bolt.Tx) (uint64, error) {
	var sum uint64
	err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		return b.ForEach(func(key, value []byte) error {
			if string(name) != metaBucket || string(key) != sumKey {
				sum += entrySum(string(name), key, value)
			}
			return nil
		})
	})
	return sum, err
}

// resum notes the sum of the file as it is.
func resum(tx *bolt.Tx) error {
	sum, err := total(tx)
	if err != nil {
		return err
	}
	return putSum(tx, sum)
}

// verify compares the file with its sum.
func verify(tx *bolt.Tx) error {
	var noted uint64
	if err := readMeta(tx, sumKey, &noted); err != nil {
		return err
	}
	sum, err := total(tx)
	if err == nil && sum != noted {
		err = errSum
	}
	return err
}

func putSum(tx *bolt.Tx, sum uint64) error {
	r, err := metaRecord(sumKey, sum)
	if err != nil {
		return err
	}
	return put(tx, r)
}
