package store

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/internal/effect"
)

// migration brings a file from one version of the format to the next, inside the one
// transaction that also writes the new version.
type migration func(tx *bolt.Tx) error

// migrations[i] leads from version i+1 to version i+2. Once released an entry is
// never changed or removed; it works on the bytes of its time and does not use the
// types of package state, which go on changing.
var migrations = []migration{
	// 2: networks and endpoints have settings that a program of format 1 would drop, and open what they close. What
	// they lack in a file of format 1 has Docker's default.
	func(*bolt.Tx) error { return nil },
	// 3: networks and pools say whether an engine was seen to know them. Of those in a file of format 2 nothing was seen yet.
	func(*bolt.Tx) error { return nil },
	// 4: the file has a checksum, which every upgrade makes anew. An older program would not keep it.
	func(*bolt.Tx) error { return nil },
	// 5: networks and endpoints say by whom their published ports are reached, and how. A program of format 4 would open them to all.
	func(*bolt.Tx) error { return nil },
}

// newerError is a file that a newer program wrote.
type newerError struct{ have, known int }

func (e *newerError) Error() string {
	return fmt.Sprintf("format %d, this program knows formats up to %d", e.have, e.known)
}

// prepare makes an empty file one of ours and an old one one of the current version, and reads it. An upgrade that makes
// nothing readable leaves the file as it was.
func prepare(db *bolt.DB, steps []migration) (img *image, err error) {
	current := 1 + len(steps)
	var version int
	err = db.View(func(tx *bolt.Tx) error {
		if version, err = readVersion(tx); err != nil || version != current {
			return err
		}
		img, err = read(tx)
		return err
	})
	switch {
	case err != nil || version == current:
		return img, err
	case version > current:
		return nil, &newerError{have: version, known: current}
	}
	err = effect.Do("store.upgrade", func() error {
		return db.Update(func(tx *bolt.Tx) error {
			if err := upgrade(tx, version, steps); err != nil {
				return err
			}
			img, err = read(tx)
			return err
		})
	})
	return img, err
}

// readVersion returns the version of the file's format, 0 if the file is empty.
func readVersion(tx *bolt.Tx) (int, error) {
	if tx.Bucket([]byte(metaBucket)) == nil {
		return 0, checkOurs(tx)
	}
	var version int
	if err := readMeta(tx, versionKey, &version); err != nil {
		return 0, err
	}
	if version < 1 {
		return 0, fmt.Errorf("its version %d does not exist", version)
	}
	return version, nil
}

func upgrade(tx *bolt.Tx, version int, steps []migration) error {
	if version == 0 {
		if err := furnish(tx); err != nil {
			return err
		}
		version = 1 + len(steps)
	}
	for ; version <= len(steps); version++ {
		if err := steps[version-1](tx); err != nil {
			return fmt.Errorf("converting it from format %d to %d: %w", version, version+1, err)
		}
	}
	r, err := metaRecord(versionKey, version)
	if err != nil {
		return err
	}
	return errors.Join(put(tx, r), resum(tx))
}
