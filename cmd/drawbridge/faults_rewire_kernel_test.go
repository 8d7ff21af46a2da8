//go:build kernel && faults

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/effect"
)

// walkRewire deletes the link of a running container, again and again, and kills the daemon, or has it fail, at each effect that
// brings it back. In the end host and container are as they were.
func (w *walker) walkRewire() {
	w.Helper()
	w.from, w.every = 1, 1 // they are few
	w.plan(0, "")
	w.start()
	box := w.box()
	id := map[string]any{"NetworkID": networkID(0), "EndpointID": endpointID(0)}
	w.call(step{"NetworkDriver.CreateNetwork", createArgs(nil), false})
	w.call(step{"NetworkDriver.CreateEndpoint", map[string]any{
		"NetworkID": networkID(0), "EndpointID": endpointID(0),
		"Interface": map[string]any{"Address": "10.0.0.2/24", "AddressIPv6": "fd00:0::2/64"},
	}, false})
	id["SandboxKey"] = box
	w.call(step{"NetworkDriver.Join", id, false})
	w.host.output("ip", "link", "del", "vethe0000000001") // the first of its links that is made in the container
	w.host.settle()
	want := w.outsideAndIn(box)
	if text := strings.Join(want, "\n"); !strings.Contains(text, "fd00::2/64") || !strings.Contains(text, "default via 10.0.0.1") {
		w.Fatalf("the container did not get its link back: %s", text)
	}
	act := func(point int, fault effect.Fault) string {
		w.stop()
		w.start() // which has made none again yet: it would wait with one after many
		w.plan(point, fault)
		w.host.output("ip", "link", "del", "vethe0000000001")
		return w.await(point, fault)
	}
	for v := range w.visits(act, effect.KillAfter, effect.Fail) {
		if w.host.daemon == nil {
			w.start()
		}
		w.host.settle()
		if diff := cmp.Diff(want, w.outsideAndIn(box)); diff != "" {
			w.Fatalf("%v: host or container are not as before: %s\n%s", v, diff, w.host.log.String())
		}
	}
	w.Logf("walked %d points with a kill and %d with a failure", w.points[effect.KillAfter], w.points[effect.Fail])
}

// box makes the network namespace of a container and returns its path.
func (w *walker) box() string {
	w.Helper()
	path := filepath.Join(w.TempDir(), "netns", "0123456789ab")
	w.must(os.MkdirAll(filepath.Dir(path), 0o700))
	w.must(os.WriteFile(path, nil, 0o600))
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: it is in another namespace
		ns, err := netns.New()
		if err == nil {
			err = unix.Mount(fmt.Sprintf("/proc/thread-self/fd/%d", int(ns)), path, "", unix.MS_BIND, "")
			ns.Close()
		}
		made <- err
	}()
	w.must(<-made)
	w.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

// outsideAndIn is the host with all links, and what the container has.
func (w *walker) outsideAndIn(box string) dump {
	w.Helper()
	d := w.host.dump()
	for _, args := range [][]string{{"-o", "-4", "addr"}, {"-o", "-6", "addr", "show", "scope", "global"}, {"-4", "route"}, {"-6", "route", "show", "default"}} {
		out := w.host.output(append([]string{"nsenter", "--net=" + box, "ip"}, args...)...)
		for line := range strings.Lines(out) {
			_, rest, numbered := strings.Cut(strings.TrimSpace(line), ": ") // the number of a link is another each time
			if !numbered {
				rest = strings.TrimSpace(line)
			}
			d.add("container: %s", strings.Join(strings.Fields(rest), " "))
		}
	}
	return d
}
