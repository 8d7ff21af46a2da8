//go:build kernel

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/internal/version"
	"github.com/drawbridge-net/drawbridge/relay"
	"github.com/drawbridge-net/drawbridge/test/transcript"
)

// How the test binary is started again: as the program, or as the tests in namespaces of their own.
const (
	programEnv = "DRAWBRIDGE_TEST_PROGRAM"
	insideEnv  = "DRAWBRIDGE_TEST_INSIDE"
)

// Another name of the program, under which it says that it is of another version.
const (
	nextProgram = "drawbridge.next"
	nextVersion = "99.0.0"
)

// TestMain runs the tests in a network, a mount and a PID namespace of their own, with an empty /run. What is started there ends with
// the tests. The program under
// test is this binary, too, so that what is tested is wired like the real one, and with the race detector if
// the tests are.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(programEnv) != "":
		if filepath.Base(self()) == nextProgram {
			version.Number = nextVersion
		}
		os.Exit(run(os.Args[1:]))
	case os.Getenv(insideEnv) != "":
		os.Exit(inside(m))
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func inside(m *testing.M) int {
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", "/run", "tmpfs", 0, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		// A sequence takes seconds: fewer of them than rapid would run, and an end to shrinking.
		flag.Set("rapid.checks", fmt.Sprint(sequences)),
		flag.Set("rapid.shrinktime", "20s"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "preparing the namespaces:", err)
		return 1
	}
	return m.Run()
}

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// wholeHost is a host with an uplink and somebody's bridge, in a network namespace, and the daemon on it.
type wholeHost struct {
	t      tester
	dir    string
	calls  chan func() // run on a thread of the namespace, from which programs are started too
	handle *netlink.Handle
	daemon *exec.Cmd
	gone   chan struct{} // closed when the daemon has ended
	ended  error         // how, once gone is closed
	log    transcript.Text
	http   http.Client
	// env is for programs beside the tests' own; flags are for the daemon, beside and after those that all tests give.
	env, flags []string
	state      string // file
	program    string // path; this test by another name or by none

	slowest time.Duration // answer to ask
}

func newWholeHost(t tester) *wholeHost {
	t.Helper()
	dir, err := os.MkdirTemp("", "whole")
	h := &wholeHost{t: t, dir: dir, calls: make(chan func())}
	h.must(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	h.state, h.program = h.path("state.db"), "/proc/self/exe"
	transport := unixsocket.Transport(h.path("plugin.sock"))
	transport.DisableKeepAlives = true
	h.http.Transport = transport
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the host, and with it what it started
		ns, err := netns.New()
		entered <- err
		for f := range h.calls {
			f()
		}
		ns.Close()
	}()
	h.must(<-entered)
	t.Cleanup(func() { close(h.calls) })
	h.in(func() error {
		h.handle, err = netlink.NewHandle()
		return err
	})
	t.Cleanup(h.handle.Close)
	t.Cleanup(h.endRelay)
	h.furnish()
	return h
}

// endRelay ends the process that holds published ports, which lives on when the daemon is ended.
func (h *wholeHost) endRelay() {
	h.t.Helper()
	_, err := relay.End(context.Background(), h.path("relay.sock"))
	h.must(err)
}

func (h *wholeHost) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%v", err)
	}
}

func (h *wholeHost) path(name string) string { return filepath.Join(h.dir, name) }

// in runs f in the namespace.
func (h *wholeHost) in(f func() error) {
	h.t.Helper()
	done := make(chan error)
	h.calls <- func() { done <- f() }
	h.must(<-done)
}

// lan0 is somebody's bridge, whose address is the gateway of the network that may adopt it.
const (
	lanName    = "lan0"
	lanGateway = "10.2.0.1/24"
)

// furnish gives the host eth0 with a default route, and lan0, a bridge that a network may adopt.
func (h *wholeHost) furnish() {
	h.t.Helper()
	attrs := func(name string) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	h.must(h.handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs("eth0"), PeerName: "wire0"}))
	h.must(h.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs(lanName)}))
	for _, l := range []struct{ name, v4, v6 string }{
		{"lo", "", ""},
		{"wire0", "", ""},
		{"eth0", "192.0.2.1/24", "2001:db8::1/64"},
		{lanName, lanGateway, ""},
	} {
		link, err := h.handle.LinkByName(l.name)
		h.must(err)
		for _, a := range []string{l.v4, l.v6} {
			if a != "" {
				addr, err := netlink.ParseAddr(a)
				h.must(err)
				addr.Flags = unix.IFA_F_NODAD
				h.must(h.handle.AddrAdd(link, addr))
			}
		}
		h.must(h.handle.LinkSetMTU(link, 1450)) // a bridge keeps only one that is set afterwards
		h.must(h.handle.LinkSetUp(link))
	}
	eth0, err := h.handle.LinkByName("eth0")
	h.must(err)
	h.must(h.handle.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.IPv4(192, 0, 2, 254)}))
}

// start starts the daemon and waits until the host is as it should be.
func (h *wholeHost) start() {
	h.t.Helper()
	h.launch("iptables")
	h.settle()
}

// launch starts the daemon with a firewall backend.
func (h *wholeHost) launch(backend string) {
	h.t.Helper()
	h.daemon = exec.Command(h.program, "serve", "--firewall-backend", backend, "--firewalld", "off",
		"--plugin-socket", h.path("plugin.sock"), "--control-socket", h.path("control.sock"), "--relay-socket", h.path("relay.sock"), "--state", h.state)
	h.daemon.Args = append(h.daemon.Args, h.flags...)
	h.daemon.Env = append(append(os.Environ(), programEnv+"=1"), h.env...)
	h.log.Reset()
	h.daemon.Stderr = &h.log
	h.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h.in(h.daemon.Start)
	h.gone = make(chan struct{})
	go func(daemon *exec.Cmd, gone chan struct{}) {
		h.ended = daemon.Wait()
		close(gone)
	}(h.daemon, h.gone)
}

// hasEnded reports whether the daemon was killed by something that it met.
func (h *wholeHost) hasEnded() bool {
	select {
	case <-h.gone:
		h.daemon = nil
		return true
	default:
		return false
	}
}

// stop ends the daemon by a signal.
func (h *wholeHost) stop(s os.Signal) {
	h.t.Helper()
	h.must(h.daemon.Process.Signal(s))
	<-h.gone
	if h.ended != nil && s == os.Signal(unix.SIGTERM) {
		h.t.Fatalf("the daemon ended with %v:\n%s", h.ended, h.log.String())
	}
	h.daemon = nil
}

// patience is how long the host may take to be as it should be: longer than a large one needs on a machine that has other things to do.
const patience = time.Minute

// settle waits until a pass left nothing to be done.
func (h *wholeHost) settle() {
	h.t.Helper()
	h.settleIn(patience)
}

func (h *wholeHost) settleIn(patience time.Duration) {
	h.t.Helper()
	var status control.Status
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if status, err = h.status(); err == nil && status.Healthy() {
			return
		}
	}
	h.t.Fatalf("the host is not as it should be: %v %q\n%s", err, status.Errors, h.log.String())
}

// status has the daemon compare the host with its state.
func (h *wholeHost) status() (control.Status, error) {
	return control.Dial(h.path("control.sock")).Status(context.Background())
}

// verify asks the daemon how the host differs from its state.
func (h *wholeHost) verify() []control.Difference {
	h.t.Helper()
	found, err := control.Dial(h.path("control.sock")).Verify(context.Background())
	h.must(err)
	return found
}

// call sends a call of dockerd's to the network driver and returns the error in its answer.
func (h *wholeHost) call(name string, args any) string {
	h.t.Helper()
	return h.post("NetworkDriver."+name, args)
}

// post sends a call of dockerd's, which must be answered, and returns the error in its answer.
func (h *wholeHost) post(name string, args any) string {
	h.t.Helper()
	refused, err := h.send(name, args)
	h.must(err)
	return refused
}

// send sends a call of dockerd's and returns the error in its answer, or why there was no answer.
func (h *wholeHost) send(name string, args any) (refused string, err error) {
	h.t.Helper()
	body, err := json.Marshal(args)
	h.must(err)
	resp, err := h.http.Post("http://plugin/"+name, "application/json", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var answer struct{ Err string }
	if err := json.Unmarshal(text, &answer); err != nil || (resp.StatusCode != http.StatusOK) != (answer.Err != "") {
		return "", fmt.Errorf("%s was answered with %s: %q", name, resp.Status, text)
	}
	return answer.Err, nil
}

// output runs a program on the host.
func (h *wholeHost) output(argv ...string) string {
	h.t.Helper()
	out, err := h.try(argv...)
	h.must(err)
	return out
}

// try runs a program that may fail.
func (h *wholeHost) try(argv ...string) (out string, failed error) {
	h.t.Helper()
	h.in(func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), h.env...)
		raw, err := cmd.Output()
		out, failed = string(raw), err
		return nil
	})
	return out, failed
}

// purge takes everything of the daemon's off the host, but its state.
func (h *wholeHost) purge(flags ...string) error {
	h.t.Helper()
	_, err := h.try(append([]string{
		"env", programEnv + "=1", self(), "purge", "--force", "--keep-state",
		"--control-socket", h.path("control.sock"), "--relay-socket", h.path("relay.sock"), "--state", h.path("state.db"),
	}, flags...)...)
	return err
}

// file reads a file as the host sees it: what /proc shows of the network goes by the thread that looks. A switch
// that cannot be read has no value.
func (h *wholeHost) file(path string) (text string) {
	h.t.Helper()
	h.in(func() error {
		raw, _ := os.ReadFile(path)
		text = strings.TrimSpace(string(raw))
		return nil
	})
	return text
}

// self is the path of this program, as which another one can start it.
func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}
