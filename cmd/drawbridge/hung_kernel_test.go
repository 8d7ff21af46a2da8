//go:build kernel

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/control"
)

// deadline is that of dockerd's calls, with what an answer may take beyond it on a busy machine.
const deadline = 18 * time.Second

// hang is a part of the host that stops to answer while a file is there.
type hang struct {
	name    string
	culprit string // in the answers
	flags   []string
	// prepare makes it possible, before the daemon is started; begin and end do it.
	prepare    func(h *wholeHost)
	begin, end func(h *wholeHost)
	// seen says that each comparison meets it, and not only changes.
	seen bool
	// looked says that a mere look does, too.
	looked bool
}

// mayHang puts a program into the daemon's PATH that hangs, deaf to signals, while the file "hang" is there.
func mayHang(programs ...string) func(*wholeHost) {
	return func(h *wholeHost) {
		h.must(os.MkdirAll(h.path("bin"), 0o700))
		for _, p := range programs {
			real, err := exec.LookPath(p)
			h.must(err)
			script := fmt.Sprintf("#!/bin/sh\ntrap '' TERM INT HUP\nif [ -e %s ]; then while :; do sleep 100; done; fi\nexec %s \"$@\"\n", h.path("hang"), real)
			h.must(os.WriteFile(h.path("bin/"+p), []byte(script), 0o700))
		}
		h.env = append(h.env, "PATH="+h.path("bin")+":"+os.Getenv("PATH"))
	}
}

func block(h *wholeHost) { h.must(os.WriteFile(h.path("hang"), nil, 0o600)) }

// flush leaves each comparison something to write.
func flush(h *wholeHost) {
	block(h)
	h.output("nft", "flush", "ruleset")
}

func unblock(h *wholeHost) { h.must(os.Remove(h.path("hang"))) }

// legacy makes iptables-legacy the host's default, whose programs take a lock.
func legacy(h *wholeHost) {
	h.must(os.MkdirAll(h.path("bin"), 0o700))
	for _, p := range []string{"iptables", "ip6tables"} {
		for _, end := range []string{"", "-save", "-restore"} {
			real, err := exec.LookPath(p + "-legacy" + end)
			h.must(err)
			h.must(os.Symlink(real, h.path("bin/"+p+end)))
		}
	}
	h.env = append(h.env, "PATH="+h.path("bin")+":"+os.Getenv("PATH"))
}

var xtablesLock *os.File

func takeLock(h *wholeHost) {
	var err error
	xtablesLock, err = os.OpenFile("/run/xtables.lock", os.O_CREATE|os.O_RDWR, 0o600)
	h.must(err)
	h.must(unix.Flock(int(xtablesLock.Fd()), unix.LOCK_EX))
}

// silentBus is a D-Bus that takes connections and says nothing; without the socket there is no bus.
func silentBus(h *wholeHost) {
	l, err := net.Listen("unix", h.path("bus"))
	h.must(err)
	h.t.Cleanup(func() { l.Close() })
}

var hangs = []hang{
	{
		name: "iptables-restore", culprit: "-restore", prepare: mayHang("iptables-restore", "ip6tables-restore"), begin: flush, end: unblock, seen: true,
	},
	{
		name: "iptables-save", culprit: "-save", seen: true, looked: true, begin: block, end: unblock,
		prepare: mayHang("iptables-save", "ip6tables-save", "iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"),
	},
	{
		name: "the lock of iptables", culprit: "xtables lock", prepare: legacy, begin: takeLock,
		end: func(h *wholeHost) { h.must(xtablesLock.Close()) },
	},
	{
		name: "D-Bus", culprit: "D-Bus", seen: true, looked: true, flags: []string{"--firewalld", "auto"}, begin: silentBus,
		prepare: func(h *wholeHost) { h.env = append(h.env, "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+h.path("bus")) },
		end:     func(h *wholeHost) { h.must(os.Remove(h.path("bus"))) },
	},
}

// TestHung: while a part of the host hangs, calls that need it are answered within the deadline and name it, all others at
// once; nothing piles up, and all heals when it is over.
func TestHung(t *testing.T) {
	for _, c := range hangs {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait, most of the time
			h := newWholeHost(t)
			c.prepare(h)
			h.hungWhileRunning(c)
			h.hungAtStart(t, c)
		})
	}
}

func (h *wholeHost) hungWhileRunning(c hang) {
	h.flags = c.flags
	h.launch("iptables")
	h.settle()
	h.succeed(createNet, createEndpoint, join)
	c.begin(h)
	for _, r := range []request{program, createEndpoint2, revoke, leave} {
		began := time.Now()
		answer := h.ask(r, deadline)
		h.t.Logf("%s after %v: %s", r.name, time.Since(began).Round(time.Millisecond), answer)
		if answer != "" && !strings.Contains(answer, c.culprit) {
			h.t.Errorf("%s does not name %q: %s", r.name, c.culprit, answer)
		}
	}
	if c.seen {
		h.blames(c.culprit)
	}
	if c.looked {
		h.verifyBlames(c.culprit)
	}
	h.answersOthers()
	h.fewChildren()
	c.end(h)
	began := time.Now()
	h.settleIn(2 * deadline)
	h.t.Logf("healed after %v", time.Since(began).Round(time.Millisecond))
	h.succeed(deleteEndpoint, createEndpoint, join, program, revoke, leave, deleteEndpoint)
	h.settle()
	h.fewChildren()
	h.stop(unix.SIGTERM)
	h.output("nft", "flush", "ruleset") // so that the next start has something to do
	h.output("iptables-legacy", "-F", "FORWARD")
}

// blames waits until the status names the culprit: the first comparison that meets it has to end for that.
func (h *wholeHost) blames(culprit string) {
	h.t.Helper()
	var status control.Status
	for end := time.Now().Add(2 * deadline); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var err error
		status, err = control.Dial(h.path("control.sock")).Status(h.t.Context())
		h.must(err)
		if strings.Contains(fmt.Sprint(status.Errors), culprit) {
			return
		}
	}
	h.t.Fatalf("status never names %q: %v", culprit, status.Errors)
}

// verifyBlames checks that a look at the host tells of more than a deadline.
func (h *wholeHost) verifyBlames(culprit string) {
	h.t.Helper()
	began := time.Now()
	found, err := control.Dial(h.path("control.sock")).Verify(h.t.Context())
	said := fmt.Sprint(found, err)
	h.t.Logf("verify after %v: %s", time.Since(began).Round(time.Millisecond), said)
	if !strings.Contains(said, culprit) {
		h.t.Errorf("verify does not name %q", culprit)
	}
}

// createEndpoint2 is about an endpoint that was not there.
var createEndpoint2 = request{"NetworkDriver.CreateEndpoint", map[string]any{
	"NetworkID": networkID(1), "EndpointID": endpointID(2), "Interface": map[string]any{"Address": "10.1.0.3/24", "AddressIPv6": "fd00:1::3/64"},
}}

// answersOthers checks what does not need the part that hangs.
func (h *wholeHost) answersOthers() {
	h.t.Helper()
	h.slowest = 0
	for _, name := range stateless {
		h.ask(request{name: name}, atOnce)
	}
	for _, r := range []request{requestPool, requestAddress, releaseAddress, releasePool} {
		if answer := h.ask(r, atOnce); answer != "" {
			h.t.Errorf("%s: %s", r.name, answer)
		}
	}
	h.t.Logf("other calls take at most %v", h.slowest.Round(time.Millisecond))
	client, began := control.Dial(h.path("control.sock")), time.Now()
	_, err := client.Status(h.t.Context())
	_, err2 := client.Ports(h.t.Context())
	if took := time.Since(began); took > checkTime+atOnce || err != nil || err2 != nil {
		h.t.Errorf("status and ports after %v: %v %v", took, err, err2)
	} else {
		h.t.Logf("status and ports after %v", took.Round(time.Millisecond))
	}
}

// fewChildren checks that the daemon comes to have at most the programs of one pass, and no dead ones, beside the relay.
func (h *wholeHost) fewChildren() {
	h.t.Helper()
	var children []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if children = h.children(); len(children) <= 2 { // others may be about to end, or a look at the host be on its way
			return
		}
	}
	h.t.Errorf("the daemon has %d children: %v", len(children), children)
}

// children lists the daemon's, dead ones included, but for the relay.
func (h *wholeHost) children() (children []string) {
	h.t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	h.must(err)
	for _, stat := range stats {
		text, _ := os.ReadFile(stat) // of a process that may have ended
		var pid, parent int
		var name, state string
		if _, err := fmt.Sscan(string(text), &pid, &name, &state, &parent); err == nil && parent == h.daemon.Process.Pid && name != "(drawbridge)" {
			children = append(children, fmt.Sprint(name, state))
		}
	}
	return children
}

func (h *wholeHost) hungAtStart(t *testing.T, c hang) {
	h.t.Helper()
	systemd := h.listenNotify()
	c.begin(h)
	began := time.Now()
	h.flags = c.flags
	h.launch("iptables")
	h.activate()
	h.t.Logf("answers after %v", time.Since(began).Round(time.Millisecond))
	expectNotify(t, systemd, "READY=1")
	if took := time.Since(began); took > startPatience+atOnce {
		h.t.Errorf("systemd is told after %v", took)
	} else {
		h.t.Logf("READY after %v", took.Round(time.Millisecond))
	}
	h.ask(requestPool, atOnce)
	h.ask(releasePool, atOnce)
	c.end(h)
	h.settleIn(2 * deadline)
	h.t.Logf("healed %v after the start", time.Since(began).Round(time.Millisecond))
	h.stop(unix.SIGTERM)
}
