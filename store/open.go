package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// lockTimeout is how long Open waits for another process to let go of the file,
	// enough for a predecessor that is just ending.
	lockTimeout = time.Second

	dirMode  = 0o700
	fileMode = 0o600
)

// Open opens the state file, and creates it and its directory where they are missing
// (readable by their owner only). The file stays locked until Close: Open waits one
// second for another process that has it open, then returns an error.
//
// A file that cannot be read in full, or that a newer version wrote, is an error and
// is left as it is.
func Open(path string) (*Store, error) { return open(path, migrations) }

func open(path string, steps []migration) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return nil, fmt.Errorf("creating the directory of the state file: %w", err)
	}
	db, img, err := load(path, steps)
	if err != nil {
		return nil, explain(path, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("making state file %s durable: %w", path, err), db.Close())
	}
	s := &Store{path: path, db: db, commit: db.Update, turn: make(chan struct{}, 1)}
	s.current.Store(img)
	return s, nil
}

// load opens and reads the file. bbolt panics over pages that contradict each other,
// and the kernel raises SIGBUS where a cut file is mapped but not there; both
// become errors.
func load(path string, steps []migration) (db *bolt.DB, img *image, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading it: %v", p)
		}
		if err != nil && db != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	db, err = bolt.Open(path, fileMode, &bolt.Options{Timeout: lockTimeout})
	if err != nil {
		return nil, nil, err
	}
	if err := prepare(db, steps); err != nil {
		return db, nil, err
	}
	err = db.View(func(tx *bolt.Tx) error {
		img, err = read(tx)
		return err
	})
	return db, img, err
}

// explain turns what load met into the sentence for the administrator.
func explain(path string, err error) error {
	var newer *newerError
	var errno syscall.Errno
	var atPath *fs.PathError
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("state file %s is in use by another drawbridge process: stop that one first", path)
	case errors.As(err, &newer):
		return fmt.Errorf("state file %s was written by a newer version of drawbridge (%w): install that version", path, err)
	case errors.As(err, &atPath), errors.As(err, &errno):
		return fmt.Errorf("opening state file %s: %w", path, err)
	}
	return fmt.Errorf("state file %s is damaged: %w; put back a copy of it, or move it away and create the networks again", path, err)
}

// syncDir makes the file's name durable: syncing a new file does not.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
