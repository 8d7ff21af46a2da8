package unixsocket

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tempPath returns a path short enough for a socket, whatever the test is called.
func tempPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "us")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "folder", "test.sock")
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// leaveStale makes the file that a killed process leaves behind.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
}

func connects(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

func TestListenServesItsOwnerOnlyWhateverTheUmask(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := tempPath(t)
	listen(t, path)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != fs.ModeSocket|0o600 {
		t.Errorf("mode is %v, want a socket of mode 0600", got)
	}
	if !connects(path) {
		t.Error("the owner cannot connect")
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	path := tempPath(t)
	leaveStale(t, path)
	if connects(path) {
		t.Fatal("the stale socket is served: the test is wrong")
	}
	listen(t, path)
	if !connects(path) {
		t.Error("the new socket is not served")
	}
}

func TestListenRefuses(t *testing.T) {
	rows := []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"a live socket", func(t *testing.T, path string) { listen(t, path) }, "another process serves"},
		{"a regular file", func(t *testing.T, path string) { write(t, path) }, "is not a socket"},
		{"a folder", func(t *testing.T, path string) { mkdir(t, path) }, "is not a socket"},
		{"a link to a socket", func(t *testing.T, path string) {
			mkdir(t, filepath.Dir(path))
			leaveStale(t, path+"2")
			if err := os.Symlink(path+"2", path); err != nil {
				t.Fatal(err)
			}
		}, "is not a socket"},
		{"a datagram socket", func(t *testing.T, path string) {
			mkdir(t, filepath.Dir(path))
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
		}, "may be in use"},
		{"a file where the folder should be", func(t *testing.T, path string) { write(t, filepath.Dir(path)) }, "creating the folder"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			path := tempPath(t)
			row.make(t, path)
			before, _ := os.Lstat(path)
			l, err := Listen(path)
			if err == nil {
				_ = l.Close()
				t.Fatal("it listened")
			}
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %q does not say %q", err, row.want)
			}
			if after, _ := os.Lstat(path); before != nil && !os.SameFile(before, after) {
				t.Error("what was in the way is gone")
			}
		})
	}
}

func TestListenRefusesPath(t *testing.T) {
	rows := []struct{ name, path, want string }{
		{"relative", "drawbridge.sock", "must be absolute"},
		{"abstract", "@drawbridge", "must be absolute"},
		{"empty", "", "must be absolute"},
		{"too long", "/tmp/" + strings.Repeat("x", 200), "the kernel allows 107"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := Listen(row.path)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got error %v, want one that says %q", err, row.want)
			}
		})
	}
}

func TestCloseRemovesOnlyItsOwnFile(t *testing.T) {
	rows := []struct {
		name    string
		replace func(t *testing.T, path string)
		remains bool
	}{
		{"its own socket", func(*testing.T, string) {}, false},
		{"a successor's socket", func(t *testing.T, path string) { _ = os.Remove(path); leaveStale(t, path) }, true},
		{"a file put in its place", func(t *testing.T, path string) { _ = os.Remove(path); write(t, path) }, true},
		{"nothing left", func(t *testing.T, path string) { _ = os.Remove(path) }, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			path := tempPath(t)
			l := listen(t, path)
			row.replace(t, path)
			if err := l.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
			if err := l.Close(); err != nil {
				t.Errorf("closing twice: %v", err)
			}
			if _, err := os.Lstat(path); (err == nil) != row.remains {
				t.Errorf("file remains: %v, want %v", err == nil, row.remains)
			}
		})
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
}
