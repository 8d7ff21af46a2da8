package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// carried are what every root needs of the machine: its devices, its cgroups
// and the modules of its kernel, which iptables and dockerd may ask for.
var carried = []string{"/dev", "/sys/fs/cgroup", "/lib/modules"}

// changeRoot makes a root directory, which many labs share, the root of this
// one. Writes go to memory. What else the lab is to see of the machine, the
// scratch directory first of all, keeps its path.
func changeRoot(s settings, memory string) error {
	top := filepath.Join(s.dir, "root")
	if err := os.MkdirAll(top, 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(s.root); err != nil {
		return fmt.Errorf("the root: %w", err)
	}
	if err := overlay(s.root, top, filepath.Join(memory, "root")); err != nil {
		return fmt.Errorf("mounting the root %s: %w", s.root, err)
	}
	// Without the mounts below it, of which this root is one.
	if err := share(top, s.dir, 0); err != nil {
		return err
	}
	for _, path := range carried {
		if s.systemd && path != "/lib/modules" {
			continue // it gets devices and cgroups of its own: mounts below others confuse it
		}
		if err := share(top, path, syscall.MS_REC); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, path := range s.shared {
		if err := share(top, path, syscall.MS_REC); err != nil {
			return err
		}
	}
	return pivot(top)
}

// share shows a file or directory of the machine at the same path below top.
func share(top, path string, flags uintptr) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := makePoint(top, path, info.IsDir()); err != nil {
		return fmt.Errorf("making a place for %s: %w", path, err)
	}
	return mountEach([]mount{{path, filepath.Join(top, path), "", syscall.MS_BIND | flags, ""}})
}

// makePoint makes an empty file or directory to mount on. Links of the root
// that lead out of it are not followed: this is the machine's tree still.
func makePoint(top, path string, dir bool) error {
	root, err := os.OpenRoot(top)
	if err != nil {
		return err
	}
	defer root.Close()
	inside, err := filepath.Rel("/", path)
	if err != nil {
		return err
	}
	if dir {
		return root.MkdirAll(inside, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(inside), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(inside, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// pivot makes top the root, and not by chroot, in which runc does not work. The
// old root comes to lie on the new one and is let go (see pivot_root(2)).
func pivot(top string) error {
	if err := os.Chdir(top); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root to %s: %w", top, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the machine's root: %w", err)
	}
	return os.Chdir("/")
}
