package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/effect"
)

const (
	// lockTimeout is how long Open waits for another process to let go of the file,
	// enough for a predecessor that is just ending.
	lockTimeout = time.Second
	lockPause   = 20 * time.Millisecond

	dirMode  = 0o700
	fileMode = 0o600
)

// ErrInUse says that another process has the state file open.
var ErrInUse = errors.New("is in use by another drawbridge process")

// Fault is a state file that cannot be used until somebody does something about it: it is damaged or of a newer version, or its
// disk is full, read-only or broken. The file is as it was.
type Fault struct{ Err error }

// Error says in one sentence which file, what is wrong, and what to do.
func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap gives the cause to errors.Is and errors.As.
func (f *Fault) Unwrap() error { return f.Err }

// Open opens the state file, and creates it and its directory where they are missing
// (readable by their owner only). The file stays locked until Close: Open waits one
// second for another process that has it open, then returns ErrInUse.
//
// A file that cannot be read in full, or that a newer version wrote, is a [Fault] and
// is left as it is. Read in full means that every page is checked, every record is decoded, and the checksum over all of
// them fits.
func Open(path string) (*Store, error) { return open(path, migrations) }

func open(path string, steps []migration) (*Store, error) {
	file, db, img, err := load(path, steps)
	if errors.Is(err, fs.ErrNotExist) {
		if err = create(path, steps); err == nil || errors.Is(err, fs.ErrExist) {
			file, db, img, err = load(path, steps)
		}
	}
	if err != nil {
		return nil, explain(path, err)
	}
	s := &Store{path: path, run: rand.Text(), db: db, file: file, commit: db.Update, turn: make(chan struct{}, 1)}
	s.current.Store(img)
	return s, nil
}

// load opens and reads a file that is there. What bbolt would make of damaged pages is found out before it sees them; should it
// still panic, or the disk fail under it (SIGBUS), that becomes an error.
func load(path string, steps []migration) (file *os.File, db *bolt.DB, img *image, err error) {
	if file, err = acquire(path); err != nil {
		return nil, nil, nil, err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading it: %v", p)
		}
		if err != nil {
			if db != nil {
				err = errors.Join(err, db.Close())
			}
			_ = release(file) // also if bbolt lost it
		}
	}()
	content, err := io.ReadAll(file)
	if err == nil {
		err = checkPages(content)
	}
	if err != nil {
		return file, nil, nil, err
	}
	db, err = bolt.Open(path, fileMode, &bolt.Options{Timeout: lockTimeout, OpenFile: func(string, int, fs.FileMode) (*os.File, error) { return file, nil }})
	if err != nil {
		return file, nil, nil, err
	}
	img, err = prepare(db, steps)
	return file, db, img, err
}

// acquire opens a file that is there, and locks it.
func acquire(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		if _, there := os.Lstat(path); there == nil && errors.Is(err, fs.ErrNotExist) {
			err = errNowhere
		}
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNoFile
	}
	if err == nil {
		err = lock(file)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

var (
	errNoFile  = errors.New("it is not a regular file")
	errNowhere = errors.New("it is a symbolic link to a file that is not there")
	errNoDir   = errors.New("its directory is a symbolic link to one that is not there")
)

// lock takes the lock that bbolt takes.
func lock(file *os.File) error {
	ticker := time.NewTicker(lockPause) // flock has no deadline
	defer ticker.Stop()
	for deadline := time.Now().Add(lockTimeout); ; <-ticker.C {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return err
		case time.Now().After(deadline):
			return ErrInUse
		}
	}
}

// release closes the file for bbolt, which may have it mapped still: that keeps a lock beyond the last descriptor.
func release(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}

// freshName is what a new file is called until it is whole.
func freshName(path string) string { return path + ".new" }

// create makes a new file under another name and gives it its own when it is whole and on disk, so that a file without content
// is never a new one: it is one that was lost. A file that appears meanwhile is fs.ErrExist and stays.
func create(path string, steps []migration) error {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); errors.Is(err, fs.ErrExist) { // as a link, whose target is missing
		return errNoDir
	} else if err != nil {
		return err
	}
	fresh := freshName(path)
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := effect.Do("store.create", func() error {
		db, err := bolt.Open(fresh, fileMode, &bolt.Options{Timeout: lockTimeout})
		if err == nil {
			_, err = prepare(db, steps)
			err = errors.Join(err, db.Close())
		}
		return err
	})
	if err == nil {
		err = effect.Do("store.name", func() error { return name(fresh, path, renameFree, linkFree) })
	}
	if err != nil {
		_ = os.Remove(fresh) // nothing is in it
		return err
	}
	return syncDir(filepath.Dir(path))
}

// name gives a file its name in the first of the ways that the file system knows, unless there is a file of that name.
func name(fresh, path string, ways ...func(fresh, path string) error) error {
	for _, way := range ways {
		if err := way(fresh, path); !unknown(err) {
			return err
		}
	}
	// Nothing is left that looks and acts at once. A daemon is alone on its host before it comes here.
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	return os.Rename(fresh, path)
}

// unknown reports whether an error says that the file system, or the kernel, has no such call.
func unknown(err error) bool {
	for _, none := range []error{unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM} {
		if errors.Is(err, none) {
			return true
		}
	}
	return false
}

// renameFree is refused by NFS, among others.
func renameFree(fresh, path string) error {
	return unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
}

// linkFree is refused by file systems without hard links. Where a crash leaves the other name, it is no harm: Remove takes it away.
func linkFree(fresh, path string) error {
	if err := os.Link(fresh, path); err != nil {
		return err
	}
	_ = os.Remove(fresh)
	return nil
}

// Remove deletes the state file, and what a start that was killed left of a new one. That there is none is no error.
func Remove(path string) error {
	var errs []error
	for _, p := range []string{freshName(path), path} {
		if err := effect.Do("store.remove", func() error { return os.Remove(p) }); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing the state: %w", err))
		}
	}
	return errors.Join(errs...)
}

// explain turns what went wrong when the file was opened into the sentence for the administrator.
func explain(path string, err error) error {
	var newer *newerError
	var errno syscall.Errno
	switch {
	case errors.Is(err, ErrInUse), errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("state file %s %w: stop that one first", path, ErrInUse)
	case errors.As(err, &newer):
		return &Fault{fmt.Errorf("state file %s was written by a newer version of drawbridge (%w): install that version", path, err)}
	case errors.As(err, &errno), errors.Is(err, errNowhere), errors.Is(err, errNoDir), errors.Is(err, errNoFile):
		return failed("opening", path, err)
	}
	return damaged(path, err)
}

func damaged(path string, err error) error {
	return &Fault{fmt.Errorf("state file %s is damaged: %w; put back a copy of it, or stop the containers, move it away, which forgets all networks, and create them again", path, err)}
}

// failed is what a disk did not do.
func failed(doing, path string, err error) error {
	what := fmt.Sprintf("%s state file %s", doing, path)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		what += ": the disk is full, free space there"
	case errors.Is(err, syscall.EROFS):
		what += ": the disk is read-only, mount it for writing"
	}
	return &Fault{fmt.Errorf("%s: %w", what, err)}
}

// syncDir makes the file's name durable: syncing a new file does not.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
