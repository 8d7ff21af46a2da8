package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sysctl reads and writes kernel settings below Root.
type Sysctl struct {
	Root string // /proc/sys, or where the host's is mounted
}

// Paths of the host's forwarding switches.
const (
	forwardV4 = "net/ipv4/ip_forward"
	forwardV6 = "net/ipv6/conf/all/forwarding"
)

func (s Sysctl) get(key string) (string, error) {
	value, err := readShort(s.Root + "/" + key)
	return strings.TrimSpace(string(value)), err
}

// readShort reads a file of one line with three system calls. os.ReadFile takes twice as many, and three times as long, which
// counts where it is done a thousand times a second.
func readShort(file string) ([]byte, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	line := make([]byte, 128)
	n, err := unix.Read(fd, line)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: file, Err: err}
	}
	return line[:n], nil
}

// differs returns the value of a key, and whether it is another one. A key that the kernel lacks does not differ: then
// there is nothing to switch off, as IPv6 on a kernel without it.
func (s Sysctl) differs(key, value string) (current string, differs bool, err error) {
	current, err = s.get(key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("reading sysctl %s: %w", dotted(key), err)
	}
	return current, current != value, nil
}

// write sets a key.
func (s Sysctl) write(key, value string) error {
	if err := os.WriteFile(filepath.Join(s.Root, key), []byte(value), 0o644); err != nil {
		return fmt.Errorf("setting sysctl %s to %s: %w", dotted(key), value, err)
	}
	return nil
}

// dotted is the key as sysctl(8) shows it.
func dotted(key string) string { return strings.ReplaceAll(key, "/", ".") }

// forwarding reports whether the host forwards IPv4 and IPv6.
func (s Sysctl) forwarding() (v4, v6 bool, err error) {
	four, err := s.get(forwardV4)
	if err != nil {
		return false, false, fmt.Errorf("reading ip_forward: %w", err)
	}
	six, err := s.get(forwardV6)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, false, fmt.Errorf("reading IPv6 forwarding: %w", err)
	}
	return four == "1", six == "1", nil
}

// Boot returns the id of the current boot, by which records about sysctls are known to be stale.
func (s Sysctl) Boot() (string, error) {
	id, err := s.get("kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading the boot id: %w", err)
	}
	return id, nil
}
