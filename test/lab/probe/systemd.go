package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownCgroup moves this process into a new cgroup of the unified hierarchy, and makes that the top of what
// its mounts of it show: systemd manages what it sees. The version 1 hierarchies are of no use to it.
func ownCgroup(name string) error {
	top, err := unified()
	if err != nil {
		return err
	}
	dir := filepath.Join(top, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return fmt.Errorf("moving into cgroup %s: %w", dir, err)
	}
	// This thread's alone, and it is the one that becomes systemd.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("making a cgroup namespace: %w", err)
	}
	return nil
}

// unified finds the unified hierarchy, alone or beside those of version 1.
func unified() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("systemd needs the unified hierarchy of cgroups, and this machine has none at /sys/fs/cgroup or below it")
}

// Of the units of the root, those that would reach beyond the lab or wait for what it does not have.
var masked = []string{
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount",
	"sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount",
	"tmp.mount", "systemd-sysctl.service", "systemd-modules-load.service", "kmod-static-nodes.service", "systemd-binfmt.service",
	"systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket",
	"systemd-tmpfiles-setup.service", "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service", "systemd-tmpfiles-clean.timer",
	"systemd-random-seed.service", "systemd-pstore.service", "systemd-remount-fs.service", "systemd-networkd.service", "systemd-resolved.service",
	"systemd-timesyncd.service", "systemd-update-utmp.service", "systemd-logind.service", "getty.target", "getty-static.service", "console-getty.service",
}

// becomeSystemd turns pid 1 into systemd. It starts what the lab's user enables later, and nothing that the root has enabled.
func becomeSystemd() error {
	if err := onlyAsked(); err != nil {
		return err
	}
	env := os.Environ()
	// By this systemd knows that the kernel is not its own.
	env = append(env, "container=lab")
	fmt.Println("ready")
	// The pipe to whoever made the lab is not for systemd.
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return err
		}
	}
	return syscall.Exec("/lib/systemd/systemd", []string{"systemd", "--show-status=no"}, env)
}

// devices are those that every container has.
var devices = map[string]uint32{
	"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9,
}

// containerMounts keeps systemd, which was made to own a machine, from this one's kernel: it may change settings
// of the network only, which are the lab's.
func containerMounts() error {
	const plain = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	err := mountEach([]mount{
		{"proc", "/proc", "proc", plain, ""},
		{"sysfs", "/sys", "sysfs", plain | syscall.MS_RDONLY, ""},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", plain, ""},
		{"tmpfs", "/run", "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=0755"},
		{"/proc/sys", "/proc/sys", "", syscall.MS_BIND, ""},
		{"/proc/sys/net", "/proc/sys/net", "", syscall.MS_BIND, ""},
		{"", "/proc/sys", "", syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY | plain, ""},
		{"tmpfs", "/dev", "tmpfs", syscall.MS_NOSUID | syscall.MS_STRICTATIME, "mode=0755"},
	})
	if err != nil {
		return err
	}
	for name, minor := range devices {
		if err := makeDevice("/dev/"+name, 1, minor); err != nil {
			return err
		}
	}
	err = errors.Join(makeDevice("/dev/tty", 5, 0), os.Mkdir("/dev/pts", 0o755), os.Mkdir("/dev/shm", 0o1777),
		os.Symlink("/proc/self/fd", "/dev/fd"), os.Symlink("pts/ptmx", "/dev/ptmx"))
	if err != nil {
		return err
	}
	return mountEach([]mount{
		{"devpts", "/dev/pts", "devpts", syscall.MS_NOSUID | syscall.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"},
		{"tmpfs", "/dev/shm", "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=1777"},
		// Services see what is mounted after their start, as on a machine that systemd has booted.
		{"", "/", "", syscall.MS_REC | syscall.MS_SHARED, ""},
	})
}

func makeDevice(path string, major, minor uint32) error {
	if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor))); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	return os.Chmod(path, 0o666) // whatever the umask
}

// onlyAsked takes away what packages have enabled, and what is not for a lab.
func onlyAsked() error {
	const units = "/etc/systemd/system"
	enabled, err := filepath.Glob(units + "/*.wants")
	if err != nil {
		return err
	}
	for _, dir := range enabled {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	for _, unit := range masked {
		path := filepath.Join(units, unit)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink("/dev/null", path); err != nil {
			return err
		}
	}
	if err := os.Remove(units + "/default.target"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink("/lib/systemd/system/multi-user.target", units+"/default.target")
}
