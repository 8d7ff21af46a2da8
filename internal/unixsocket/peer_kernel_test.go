//go:build kernel

package unixsocket

import (
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPeer: root may ask, and another user may not, though the file would let him.
func TestPeer(t *testing.T) {
	path := tempPath(t)
	l := listen(t, path)
	for _, name := range []string{path, path[:strings.LastIndex(path, "/")], path[:strings.LastIndex(path, "/folder")]} {
		if err := os.Chmod(name, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	asked := func() (pid int, err error) {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return Peer(c)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if pid, err := asked(); err != nil || pid != os.Getpid() {
		t.Errorf("root: %d %v", pid, err)
	}
	dialled := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: it is another user's
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			dialled <- errno
			return
		}
		c, err := net.Dial("unix", path)
		if err == nil {
			defer c.Close()
		}
		dialled <- err
	}()
	if err := <-dialled; err != nil {
		t.Fatal(err)
	}
	if _, err := asked(); err == nil || !strings.Contains(err.Error(), "only root may ask here, not the user with the id 65534") {
		t.Errorf("another user: %v", err)
	}
}
