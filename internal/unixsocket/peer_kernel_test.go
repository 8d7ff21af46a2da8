//go:build kernel

package unixsocket

import (
	"errors"
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
	asNobody(t, func() error {
		c, err := net.Dial("unix", path)
		if err == nil {
			defer c.Close()
		}
		return err
	})
	if _, err := asked(); err == nil || !strings.Contains(err.Error(), "only root may ask here, not the user with the id 65534") {
		t.Errorf("another user: %v", err)
	}
}

// asNobody does something as another user, which must succeed.
func asNobody(t *testing.T, do func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: it is another user's
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			done <- errno
			return
		}
		done <- do()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestClaimForeign: a name that another user has taken is told from one that a daemon has.
func TestClaimForeign(t *testing.T) {
	const name = "drawbridge-test-foreign"
	var theirs net.Listener
	asNobody(t, func() (err error) {
		theirs, err = net.Listen("unix", "@"+name)
		return err
	})
	if _, err := Claim(name); !errors.Is(err, ErrForeign) || errors.Is(err, ErrClaimed) {
		t.Errorf("claiming what another user has: %v", err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	ours, err := Claim(name)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
}
