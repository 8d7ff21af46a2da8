package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// private are the trees in which the lab's programs read and write files of
// their own. Each becomes an overlay whose upper half is in memory.
// /opt is there because containerd makes /opt/containerd at every start.
var private = []string{"/etc", "/var/lib", "/var/log", "/opt"}

// firewalldConf is written in full, because the machine's own may be anything.
const firewalldConf = `DefaultZone=public
CleanupOnExit=yes
CleanupModulesOnExit=no
IPv6_rpfilter=yes
IndividualCalls=no
LogDenied=off
FirewallBackend=nftables
FlushAllOnReload=yes
RFC3964_IPv4=yes
`

// initialise is pid 1 of the lab: it makes the machine's files private, says
// "ready" and then only buries the dead, or becomes systemd.
func initialise(args []string) error {
	s, err := parseSettings("init", args)
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return errors.New("init is only for pid 1 of namespaces of its own, start guard instead")
	}
	if err := dieWithParent(); err != nil {
		return err
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if s.systemd {
		if err := ownCgroup(s.cgroup); err != nil {
			return err
		}
	}
	if err := errors.Join(mountAll(s), syscall.Sethostname([]byte("lab"))); err != nil {
		return err
	}
	if err := errors.Join(writeConfig(), chooseIptables(s.iptables)); err != nil {
		return err
	}
	if s.systemd { // units make their folders in /run by themselves, which is to be seen
		return errors.Join(os.RemoveAll("/run/docker"), becomeSystemd())
	}
	fmt.Println("ready")
	for range died {
		reap()
	}
	return nil
}

func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && err != syscall.EINTR {
			return
		}
	}
}

// mountAll gives the lab its own /proc, /sys, /run and configuration, and the
// root that it is to have. The cgroups are carried over: a fresh sysfs has none,
// and dockerd needs them.
func mountAll(s settings) error {
	aside, memory := filepath.Join(s.dir, "cgroup"), filepath.Join(s.dir, "memory")
	if err := errors.Join(os.MkdirAll(aside, 0o755), os.MkdirAll(memory, 0o755)); err != nil {
		return err
	}
	err := mountEach([]mount{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{"tmpfs", memory, "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=0755"},
	})
	if err != nil {
		return err
	}
	if s.root != "" {
		if err := changeRoot(s, memory); err != nil {
			return err
		}
	}
	if s.systemd {
		return containerMounts()
	}
	err = mountEach([]mount{
		{"proc", "/proc", "proc", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""},
		{"/sys/fs/cgroup", aside, "", syscall.MS_BIND | syscall.MS_REC, ""},
		{"sysfs", "/sys", "sysfs", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""},
		{aside, "/sys/fs/cgroup", "", syscall.MS_MOVE, ""},
		{"tmpfs", "/run", "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=0755"},
	})
	if err != nil || s.root != "" {
		return err // another root is private as a whole
	}
	for _, tree := range private {
		if err := overlay(tree, tree, filepath.Join(memory, strings.ReplaceAll(tree, "/", "_"))); err != nil {
			return fmt.Errorf("making %s private: %w", tree, err)
		}
	}
	return nil
}

// A mount is what mount(2) takes.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func mountEach(steps []mount) error {
	for _, m := range steps {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s on %s: %w", m.source, m.target, err)
		}
	}
	return nil
}

// overlay shows a tree at target and keeps the writes in another place. A tree that the machine lacks stays absent.
func overlay(tree, target, place string) error {
	if _, err := os.Stat(tree); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	upper, work := filepath.Join(place, "upper"), filepath.Join(place, "work")
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	return syscall.Mount("overlay", target, "overlay", 0, "lowerdir="+tree+",upperdir="+upper+",workdir="+work)
}

// writeConfig replaces the machine's configuration of everything the lab runs,
// so that a lab is the same lab everywhere.
func writeConfig() error {
	for _, path := range []string{"/etc/firewalld", "/etc/docker", "/etc/resolv.conf", "/var/lib/docker", "/var/lib/drawbridge"} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	for _, path := range []string{"/etc/firewalld", "/run/dbus", "/run/lock", "/run/docker/plugins"} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{
		"/etc/firewalld/firewalld.conf": firewalldConf,
		// An address for documentation: nothing in a lab may ask the machine's resolver.
		"/etc/resolv.conf": "nameserver 198.51.100.53\n",
		"/etc/machine-id":  "0123456789abcdef0123456789abcdef\n",
		"/etc/hostname":    "lab\n",
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// chooseIptables points the alternatives, in the lab's own /etc, at one variant.
func chooseIptables(variant string) error {
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			target := "/usr/sbin/" + name + "-" + variant + suffix
			if _, err := os.Stat(target); err != nil {
				return fmt.Errorf("iptables variant %q is not installed: %w", variant, err)
			}
			link := "/etc/alternatives/" + name + suffix
			if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := os.Symlink(target, link); err != nil {
				return err
			}
		}
	}
	return nil
}
