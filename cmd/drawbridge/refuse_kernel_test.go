//go:build kernel

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// atOnce is how soon a call is answered that is refused or needs nothing that hangs. It takes milliseconds, on a machine that is not busy.
const atOnce = 3 * time.Second

// A call of dockerd's with arguments.
type request struct {
	name string
	args map[string]any
}

// Calls about the network and the endpoint of these tests, in the order in which dockerd makes them.
var (
	createNet = request{"NetworkDriver.CreateNetwork", map[string]any{
		"NetworkID": networkID(1),
		"IPv4Data":  []any{map[string]any{"Pool": "10.1.0.0/24", "Gateway": "10.1.0.1/24"}},
		"IPv6Data":  []any{map[string]any{"Pool": "fd00:1::/64", "Gateway": "fd00:1::1/64"}},
		"Options":   map[string]any{"com.docker.network.enable_ipv6": true},
	}}
	ofEndpoint     = map[string]any{"NetworkID": networkID(1), "EndpointID": endpointID(1)}
	createEndpoint = request{"NetworkDriver.CreateEndpoint", with(ofEndpoint, "Interface", map[string]any{"Address": "10.1.0.2/24", "AddressIPv6": "fd00:1::2/64"})}
	join           = request{"NetworkDriver.Join", with(ofEndpoint, "SandboxKey", "/var/run/docker/netns/0123")}
	program        = request{"NetworkDriver.ProgramExternalConnectivity", with(ofEndpoint, "Options", map[string]any{
		"com.docker.network.portmap": []any{map[string]any{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080}},
	})}
	revoke         = request{"NetworkDriver.RevokeExternalConnectivity", ofEndpoint}
	leave          = request{"NetworkDriver.Leave", ofEndpoint}
	deleteEndpoint = request{"NetworkDriver.DeleteEndpoint", ofEndpoint}
	deleteNet      = request{"NetworkDriver.DeleteNetwork", map[string]any{"NetworkID": networkID(1)}}
	requestPool    = request{"IpamDriver.RequestPool", map[string]any{"AddressSpace": "drawbridge-local", "Pool": "10.9.0.0/24"}}
	requestAddress = request{"IpamDriver.RequestAddress", map[string]any{"PoolID": "drawbridge/10.9.0.0/24", "Address": "10.9.0.7"}}
	releaseAddress = request{"IpamDriver.ReleaseAddress", map[string]any{"PoolID": "drawbridge/10.9.0.0/24", "Address": "10.9.0.7"}}
	releasePool    = request{"IpamDriver.ReleasePool", map[string]any{"PoolID": "drawbridge/10.9.0.0/24"}}
)

func with(args map[string]any, key string, value any) map[string]any {
	more := maps.Clone(args)
	more[key] = value
	return more
}

// stateless are the calls that are answered whatever the state file is like.
var stateless = []string{"Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities", "IpamDriver.GetDefaultAddressSpaces"}

// ask sends a call, and fails the test if the answer takes longer than allowed.
func (h *wholeHost) ask(r request, within time.Duration) (answer string) {
	h.t.Helper()
	began := time.Now()
	answer = h.post(r.name, r.args)
	if took := time.Since(began); took > within {
		h.t.Errorf("%s is answered after %v, which is more than %v: %q", r.name, took, within, answer)
	}
	h.slowest = max(h.slowest, time.Since(began))
	return answer
}

// succeed sends calls that must succeed.
func (h *wholeHost) succeed(requests ...request) {
	h.t.Helper()
	for _, r := range requests {
		if answer := h.post(r.name, r.args); answer != "" {
			h.t.Fatalf("%s: %s\n%s", r.name, answer, h.log.String())
		}
	}
}

// kernel is what the host's kernel holds that outlives the daemon.
func (h *wholeHost) kernel() dump {
	h.t.Helper()
	h.awaitReaper()
	var d dump
	h.dumpRules(&d)
	h.dumpLinks(&d)
	slices.Sort(d)
	return d
}

// ruin is a fault of a state file: do makes it, and returns what ends it.
type ruin struct {
	name  string
	words string // in the answer
	do    func(h *wholeHost, good []byte) (mend func())
}

// replaced puts content in the place of the state file, and the good one back.
func replaced(change func(good []byte) []byte) func(*wholeHost, []byte) func() {
	return func(h *wholeHost, good []byte) func() {
		bad := change(bytes.Clone(good))
		h.must(os.WriteFile(h.state, bad, 0o600))
		return func() {
			if now, err := os.ReadFile(h.state); err != nil || !bytes.Equal(now, bad) {
				h.t.Errorf("the damaged file was changed: %v", err)
			}
			h.putBack(good)
		}
	}
}

// putBack puts a copy of the state file in its place, as an administrator would.
func (h *wholeHost) putBack(good []byte) {
	h.must(os.WriteFile(h.path("copy"), good, 0o600))
	h.must(os.Rename(h.path("copy"), h.state))
}

var ruins = []ruin{
	{"cut to a page", "is damaged", replaced(func(b []byte) []byte { return b[:4096] })},
	{"cut in the middle", "is damaged", replaced(func(b []byte) []byte { return b[:len(b)/2+100] })},
	{"empty", "is damaged", replaced(func([]byte) []byte { return nil })},
	{"text", "is damaged", replaced(func([]byte) []byte { return bytes.Repeat([]byte("nonsense"), 5000) })},
	{"an address changed", "checksum", replaced(func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("10.1.0.2/24"), []byte("10.1.0.3/24")) })},
	{"pages overwritten", "is damaged", replaced(func(b []byte) []byte { copy(b[8192:], bytes.Repeat([]byte{0xff}, len(b))); return b })},
	{"of a newer version", "install that version", edited("meta", "version", "99")},
	{"of another program", "not a state file", func(h *wholeHost, good []byte) func() {
		h.must(os.Remove(h.state))
		h.bolt(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("containers")); return err })
		return func() { h.putBack(good) }
	}},
	{"a directory", "is a directory", func(h *wholeHost, good []byte) func() {
		h.must(os.Rename(h.state, h.state+".away"))
		h.must(os.Mkdir(h.state, 0o700))
		return func() {
			h.must(os.Remove(h.state))
			h.putBack(good)
		}
	}},
	{"a link to nothing", "symbolic link", func(h *wholeHost, good []byte) func() {
		h.must(os.Remove(h.state))
		h.must(os.Symlink("/nowhere", h.state))
		return func() { h.putBack(good) }
	}},
	{"on a read-only disk", "read-only", func(h *wholeHost, _ []byte) func() {
		dir := filepath.Dir(h.state)
		h.must(unix.Mount(dir, dir, "", unix.MS_BIND, ""))
		h.must(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		return func() {
			err := unix.Unmount(dir, 0)
			for began := time.Now(); errors.Is(err, unix.EBUSY) && time.Since(began) < patience; err = unix.Unmount(dir, 0) {
				time.Sleep(time.Millisecond) // the daemon is trying to open the file
			}
			h.must(err)
		}
	}},
}

// edited changes one value of the state file.
func edited(bucket, key, value string) func(*wholeHost, []byte) func() {
	return func(h *wholeHost, good []byte) func() {
		h.bolt(func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) })
		return func() { h.putBack(good) }
	}
}

func (h *wholeHost) bolt(fn func(*bolt.Tx) error) {
	h.t.Helper()
	db, err := bolt.Open(h.state, 0o600, nil)
	h.must(err)
	h.must(errors.Join(db.Update(fn), db.Close()))
}

// TestRefuses: a daemon whose state file cannot be used answers at once and says why, leaves the kernel and the file alone, and
// goes on when the file can be used again.
func TestRefuses(t *testing.T) {
	h := newWholeHost(t)
	h.must(os.Mkdir(h.path("disk"), 0o700))
	h.state = h.path("disk/state.db")
	h.start()
	h.succeed(createNet, createEndpoint, join, program)
	h.stop(unix.SIGTERM)
	good, err := os.ReadFile(h.state)
	h.must(err)
	before := h.kernel()
	for _, r := range ruins {
		t.Run(r.name, func(t *testing.T) {
			h.t = t
			systemd := h.listenNotify()
			mend := r.do(h, good)
			began := time.Now()
			h.launch("iptables")
			h.activate()
			t.Logf("answers after %v", time.Since(began))
			expectNotify(t, systemd, "READY=1", "STATUS=refusing all calls", h.state, r.words)
			h.refuses(r.words)
			t.Logf("the slowest answer took %v", h.slowest)
			if diff := cmp.Diff(before, h.kernel()); diff != "" {
				t.Errorf("the kernel was changed (-before +after):\n%s", diff)
			}
			mend()
			began = time.Now()
			h.settle()
			t.Logf("goes on after %v", time.Since(began))
			expectNotify(t, systemd, "READY=1", "STATUS=serving")
			if diff := cmp.Diff(before, h.kernel()); diff != "" {
				t.Errorf("the kernel is not as before (-before +after):\n%s", diff)
			}
			h.succeed(revoke, program)
			h.stop(unix.SIGTERM)
			h.putBack(good)
		})
	}
	h.t = t
}

// TestMissingState: a state file that is gone is no first start while containers run. With the file the daemon goes on as before,
// and without it when no container has a link any more.
func TestMissingState(t *testing.T) {
	h := newWholeHost(t)
	h.start()
	h.succeed(createNet, createEndpoint, join, program)
	var container *exec.Cmd
	h.in(func() error {
		container = exec.Command("sleep", "600")
		container.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		return container.Start()
	})
	ended := sync.OnceFunc(func() { _ = container.Process.Kill(); _ = container.Wait() })
	t.Cleanup(ended)
	h.output("ip", "link", "set", state.Endpoint{ID: state.EndpointID(endpointID(1))}.ContainerLink(), "netns", fmt.Sprint(container.Process.Pid))
	h.settle()
	h.stop(unix.SIGTERM)
	good, err := os.ReadFile(h.state)
	h.must(err)
	before := h.kernel()
	for _, c := range []struct {
		name string
		lose func()
		mend func()
		kept bool
	}{
		{"put back", func() { h.must(os.Remove(h.state)) }, func() { h.putBack(good) }, true},
		{"empty", func() { h.must(os.Remove(h.state)); h.emptyState() }, func() { h.putBack(good) }, true},
		{"the containers end", func() { h.must(os.Remove(h.state)) }, ended, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.t = t
			c.lose()
			_, err := os.Stat(h.state)
			missing := err != nil
			h.launch("iptables")
			h.activate()
			h.refuses("is missing or empty, and 1 containers have links")
			if _, err := os.Stat(h.state); missing != (err != nil) {
				t.Errorf("the file was made: %v", err)
			}
			if diff := cmp.Diff(before, h.kernel()); diff != "" {
				t.Errorf("the kernel was changed (-before +after):\n%s", diff)
			}
			c.mend()
			h.settle()
			if diff := cmp.Diff(before, h.kernel()); (diff == "") != c.kept {
				t.Errorf("kept is to be %t (-before +after):\n%s", c.kept, diff)
			}
			h.stop(unix.SIGTERM)
		})
	}
	h.t = t
	if n := len(h.snapshot().Networks); n != 0 {
		t.Errorf("%d networks", n)
	}
}

// emptyState leaves a state file that nobody has written anything to.
func (h *wholeHost) emptyState() {
	h.t.Helper()
	s, err := store.Open(h.state)
	h.must(err)
	h.must(s.Close())
}

// refuses checks every kind of answer of a daemon without a state.
func (h *wholeHost) refuses(words string) {
	h.t.Helper()
	for _, name := range stateless {
		if answer := h.ask(request{name: name}, atOnce); answer != "" {
			h.t.Errorf("%s: %s", name, answer)
		}
	}
	for _, r := range []request{
		createNet, createEndpoint, join, program, revoke, leave, deleteEndpoint, deleteNet,
		requestPool, requestAddress, releaseAddress, releasePool,
	} {
		if answer := h.ask(r, atOnce); !strings.Contains(answer, words) || !strings.Contains(answer, h.state) || strings.Contains(answer, "\n") {
			h.t.Errorf("%s does not say %q: %q", r.name, words, answer)
		}
	}
	client := control.Dial(h.path("control.sock"))
	status, err := client.Status(h.t.Context())
	if err != nil || status.Healthy() || !strings.Contains(status.Errors[0], words) {
		h.t.Errorf("status: %v %v", status.Errors, err)
	}
	if _, err := client.Ports(h.t.Context()); err == nil || !strings.Contains(err.Error(), words) {
		h.t.Errorf("ports: %v", err)
	}
}

// listenNotify is systemd's end of the daemon's notifications.
func (h *wholeHost) listenNotify() *net.UnixConn {
	h.t.Helper()
	_ = os.Remove(h.path("notify"))
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.path("notify"), Net: "unixgram"})
	h.must(err)
	h.t.Cleanup(func() { c.Close() })
	h.env = append(h.env, "NOTIFY_SOCKET="+h.path("notify"))
	return c
}

func expectNotify(t *testing.T, c *net.UnixConn, words ...string) {
	t.Helper()
	buffer := make([]byte, 4096)
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(buffer)
	for _, w := range words {
		if err != nil || !strings.Contains(string(buffer[:n]), w) {
			t.Fatalf("systemd is told %q (%v), without %q", buffer[:n], err, w)
		}
	}
}

// TestStateInUse: a file that another daemon has open, and wrong usage, end the daemon.
func TestStateInUse(t *testing.T) {
	h := newWholeHost(t)
	h.start()
	other := newWholeHost(t)
	other.state = h.state
	other.launch("iptables")
	<-other.gone
	if err := other.ended; err == nil || !strings.Contains(other.log.String(), "in use by another drawbridge process: stop that one first") {
		t.Errorf("it ends with %v:\n%s", err, other.log.String())
	}
	h.stop(unix.SIGTERM)
}
