package link

import (
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespacePath is what engines call the network namespace of a container: /var/run/docker/netns/0123456789ab, or below another
// folder of theirs (--exec-root).
var namespacePath = regexp.MustCompile(`^(/[A-Za-z0-9_.-]+)+/netns/[A-Za-z0-9_-]+$`)

// openNamespace opens the network namespace of a container, and reports whether there is one. The path is a mount of the
// namespace, which the engine takes away before it lets go of the container; a file may stay there, which is none. Up to Docker 27
// there is nothing yet at Join. Whoever holds the namespace open keeps it alive: it is to be closed soon.
func openNamespace(path string) (netns.NsHandle, bool) {
	if !namespacePath.MatchString(path) || filepath.Clean(path) != path {
		return netns.None(), false
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return netns.None(), false
	}
	ns := netns.NsHandle(fd)
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET || isOwn(ns) {
		ns.Close()
		return netns.None(), false
	}
	return ns, true
}

// isOwn reports whether the namespace is the host's, or cannot be told from it.
func isOwn(ns netns.NsHandle) bool {
	own, err := netns.Get()
	if err != nil {
		return true
	}
	defer own.Close()
	return own.Equal(ns)
}

// within runs do on a thread of its own in the namespace. Nobody else ever runs on it: it ends with do. The first thread of the
// process would not end, and would hold the namespace for good: while it is kept busy, it is another one.
func within(ns netns.NsHandle, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- within(ns, do)
			return
		}
		done <- enterAnd(ns, do)
	}()
	return <-done
}

// enterAnd runs do in the namespace, to which its thread belongs from now on.
func enterAnd(ns netns.NsHandle, do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("a fault in drawbridge: %v", v)
		}
	}()
	if err := netns.Set(ns); err != nil {
		return err
	}
	return do()
}
