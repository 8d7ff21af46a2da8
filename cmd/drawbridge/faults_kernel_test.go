//go:build kernel && faults

package main

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/internal/effect"
	"github.com/drawbridge-net/drawbridge/store"
	"github.com/drawbridge-net/drawbridge/test/environ"
)

// TestFaults walks all effects of a story of calls, of the daemon's start and of a purge. At each the daemon is killed, or the
// effect fails. Then a new daemon, or the same one, must make the host as a fresh one with this state is; a call that was
// answered with an error has left no trace; the engine's next try succeeds, and what it leads to is the same as if nothing had
// happened.
//
// FAULTS_EVERY=n walks one in n of them, from a first one that is drawn, or FAULTS_FROM.
func TestFaults(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			w := newWalker(t, backend, newWholeHost)
			w.walkStory(story(""))
		})
		t.Run("limits, "+backend, func(t *testing.T) {
			t.Parallel()
			w := newWalker(t, backend, newWholeHost)
			w.walkPorts(story("192.0.2.0/24"))
		})
	}
	t.Run("state file", func(t *testing.T) {
		t.Parallel()
		w := newWalker(t, "nftables", newWholeHost)
		w.walkFiles(story(""))
	})
	t.Run("link of a container", func(t *testing.T) {
		t.Parallel()
		w := newWalker(t, "nftables", newWholeHost)
		w.walkRewire()
	})
	t.Run("firewalld", func(t *testing.T) {
		t.Parallel()
		w := newWalker(t, "nftables", newZonedHost)
		w.walkStory(zoneStory())
	})
}

// step is a call of dockerd's.
type step struct {
	name    string
	args    map[string]any
	busiest bool // after it there is the most on the host
}

// story is what an engine asks for from the first network to the last. One container has ports, for all sources or for some.
func story(sources string) []step {
	network := map[string]any{"NetworkID": networkID(0)}
	endpoint := func(e int) map[string]any {
		return map[string]any{"NetworkID": networkID(0), "EndpointID": endpointID(e)}
	}
	with := func(args map[string]any, more map[string]any) map[string]any {
		for key, value := range more {
			args[key] = value
		}
		return args
	}
	port := func(proto, host int, address string) map[string]any {
		return map[string]any{"Proto": proto, "Port": 80, "HostIP": address, "HostPort": host, "HostPortEnd": host}
	}
	ports := func(list ...any) map[string]any {
		return map[string]any{"Options": map[string]any{"com.docker.network.portmap": list}}
	}
	link := func(e int, options map[string]any) map[string]any {
		return with(endpoint(e), map[string]any{
			"Interface": map[string]any{"Address": fmt.Sprintf("10.0.0.%d/24", e+2), "AddressIPv6": fmt.Sprintf("fd00:0::%d/64", e+2)},
			"Options":   with(options, map[string]any{"com.docker.network.endpoint.exposedports": []any{map[string]any{"Proto": 6, "Port": 80}}}),
		})
	}
	sandbox := func(name string) map[string]any {
		return map[string]any{"SandboxKey": "/var/run/docker/netns/" + name, "Options": map[string]any{}}
	}
	named := map[string]any{"drawbridge.name": "db"}
	if sources != "" {
		named["drawbridge.publish.from"] = sources
	}
	return slices.Concat(requests(), []step{
		{"NetworkDriver.CreateNetwork", createArgs(map[string]string{"com.docker.network.bridge.enable_icc": "false"}), false},
		{"IpamDriver.RequestAddress", map[string]any{"PoolID": pool4, "Address": "10.0.0.2"}, false},
		{"NetworkDriver.CreateEndpoint", link(0, named), false},
		{"NetworkDriver.Join", with(endpoint(0), sandbox("0123")), false},
		{"NetworkDriver.ProgramExternalConnectivity", with(endpoint(0), ports(port(6, 8080, ""), port(17, 8080, ""))), false},
		{"NetworkDriver.CreateEndpoint", link(1, map[string]any{"drawbridge.link": "db"}), false},
		{"NetworkDriver.Join", with(endpoint(1), sandbox("4567")), false},
		{"NetworkDriver.ProgramExternalConnectivity", with(endpoint(0), ports(port(6, 8081, ""), port(6, 8082, "127.0.0.1"))), true},
		{"NetworkDriver.RevokeExternalConnectivity", endpoint(0), false},
		{"NetworkDriver.Leave", endpoint(0), false},
		{"NetworkDriver.DeleteEndpoint", endpoint(0), false},
		{"IpamDriver.ReleaseAddress", map[string]any{"PoolID": pool4, "Address": "10.0.0.2"}, false},
		{"NetworkDriver.DeleteEndpoint", endpoint(1), false},
		{"NetworkDriver.DeleteNetwork", network, false},
	}, releases())
}

// zoneStory is the part of it that firewalld has to do with.
func zoneStory() []step {
	return slices.Concat(requests(), []step{
		{"NetworkDriver.CreateNetwork", createArgs(nil), true},
		{"NetworkDriver.DeleteNetwork", map[string]any{"NetworkID": networkID(0)}, false},
	}, releases())
}

const pool4 = "drawbridge/10.0.0.0/24"

func requests() []step {
	return []step{
		{"IpamDriver.RequestPool", map[string]any{"AddressSpace": "drawbridge-local", "Pool": "10.0.0.0/24"}, false},
		{"IpamDriver.RequestAddress", map[string]any{"PoolID": pool4, "Address": "10.0.0.1", "Options": map[string]string{"RequestAddressType": "com.docker.network.gateway"}}, false},
	}
}

func releases() []step {
	return []step{
		{"IpamDriver.ReleaseAddress", map[string]any{"PoolID": pool4, "Address": "10.0.0.1"}, false},
		{"IpamDriver.ReleasePool", map[string]any{"PoolID": pool4}, false},
	}
}

func createArgs(generic map[string]string) map[string]any {
	return map[string]any{
		"NetworkID": networkID(0),
		"Options": map[string]any{
			"com.docker.network.generic":     generic,
			"com.docker.network.enable_ipv6": true,
		},
		"IPv4Data": []any{map[string]any{"Pool": "10.0.0.0/24", "Gateway": "10.0.0.1/24"}},
		"IPv6Data": []any{map[string]any{"Pool": "fd00:0::/64", "Gateway": "fd00:0::1/64"}},
	}
}

// walker goes through the points of one host.
type walker struct {
	*testing.T
	backend string
	make    func(tester) *wholeHost
	host    *wholeHost
	faults  string          // the folder of the plan
	fresh   map[string]dump // of a fresh host, by state
	points  map[effect.Fault]int
	kinds   map[string]bool
	// every and from choose points: from (1 for the first), and each that is so many further on.
	every, from int
	// dirty says that something was found wrong, which is not to be found again at each point that follows.
	dirty bool
	last  []string // what the last kill had walked
}

// Errorf fails the test and has the host made anew.
func (w *walker) Errorf(format string, args ...any) {
	w.Helper()
	w.dirty = true
	w.T.Errorf(format, args...)
}

func newWalker(t *testing.T, backend string, host func(tester) *wholeHost) *walker {
	w := &walker{
		T: t, backend: backend, make: host, host: host(t), faults: t.TempDir(),
		fresh: map[string]dump{}, points: map[effect.Fault]int{}, kinds: map[string]bool{},
	}
	w.every = environ.Number(t, "FAULTS_EVERY", 1, 1)
	w.from = environ.Number(t, "FAULTS_FROM", 1, 1+rand.IntN(w.every))
	w.Logf("FAULTS_EVERY=%d FAULTS_FROM=%d", w.every, w.from)
	w.host.env = append(w.host.env, effect.DirEnv+"="+w.faults)
	return w
}

func (w *walker) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// moment is the host between two calls.
type moment struct {
	file []byte // the state
	text string
	dump dump
}

func (w *walker) walkStory(story []step) {
	w.plan(0, "")
	w.start()
	before := w.moment()
	blank := before
	var busy moment
	for _, s := range story {
		w.call(s)
		after := w.moment()
		w.walkCall(s, before, after)
		if s.busiest {
			busy = after
		}
		before = after
	}
	if before.less() != blank.less() {
		w.Errorf("the story left something in the state (-before +after): %s", cmp.Diff(blank.less(), before.less()))
	}
	w.walkStart(busy)
	if len(busy.guarded()) == 0 {
		w.Error("no family is guarded: the purge has nothing to close")
	}
	w.walkPurge(busy, blank)
	kinds := make([]string, 0, len(w.kinds))
	for kind := range w.kinds {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	w.Logf("walked %d points with a kill and %d with a failure; effects: %s", w.points[effect.KillAfter]+w.points[effect.KillBefore], w.points[effect.Fail], strings.Join(kinds, " "))
}

// walkPorts walks the calls of a story by which ports come and go.
func (w *walker) walkPorts(story []step) {
	w.plan(0, "")
	w.start()
	before := w.moment()
	for _, s := range story {
		w.call(s)
		after := w.moment()
		if strings.HasSuffix(s.name, "ExternalConnectivity") {
			w.walkCall(s, before, after)
		}
		before = after
	}
}

// walkCall walks the points of one call. The host is as after it, and is left so.
func (w *walker) walkCall(s step, before, after moment) {
	w.Helper()
	var refused string
	var err error
	act := func(point int, fault effect.Fault) string {
		w.rewind(before)
		w.plan(point, fault)
		refused, err = w.host.send(s.name, s.args)
		hit := w.await(point, fault)
		if hit == "" && (err != nil || refused != "") {
			w.Fatalf("%s without a fault: %v %s", s.name, err, refused)
		}
		return hit
	}
	for v := range w.visits(act, effect.KillBefore, effect.KillAfter, effect.Fail) {
		w.check(fmt.Sprintf("%s, %v", s.name, v), s, refused, err, before, after)
	}
	w.rewind(after)
}

// visit is a fault that was met.
type visit struct {
	fault effect.Fault
	point int
	hit   string // the name of the effect
}

func (v visit) String() string { return fmt.Sprintf("%s %d (%s)", v.fault, v.point, v.hit) }

// visits has faults met at one point after another, of each until there are no more points, and yields them when nothing is planned any more. act
// does what is walked with one planned, and returns the name of the effect at the point, "" where there is none.
func (w *walker) visits(act func(point int, fault effect.Fault) (hit string), faults ...effect.Fault) iter.Seq[visit] {
	return func(yield func(visit) bool) {
		w.Helper()
		for _, fault := range faults {
			for point := range w.pointsOf(fault) {
				hit := act(point, fault)
				if fault == effect.KillAfter {
					w.last = w.walked()
				}
				w.plan(0, "")
				if hit == "" {
					break
				}
				w.note(fault, hit)
				if !yield(visit{fault, point, hit}) {
					return
				}
			}
		}
	}
}

// pointsOf yields those at which a fault is to be met.
func (w *walker) pointsOf(fault effect.Fault) iter.Seq[int] {
	return func(yield func(int) bool) {
		if fault == effect.KillBefore {
			yield(1) // the others are those after the one before
			return
		}
		for point := w.from; ; point += w.every {
			if (fault != effect.Fail || w.canFail(point)) && !yield(point) {
				return
			}
		}
	}
}

// canFail reports whether the point is not one that was walked with a kill before, of an effect that does not fail: close(2) gives the file
// back whatever it returns.
func (w *walker) canFail(point int) bool {
	return point > len(w.last) || w.last[point-1] != "socket.close"
}

// check looks at what a fault has left: as before the call or as after it, and as after it when the engine has tried again.
func (w *walker) check(what string, s step, refused string, broken error, before, after moment) {
	w.Helper()
	if w.host.daemon == nil {
		w.start()
	}
	was, is := before.less(), after.less()
	now := lessHistory(w.same(what))
	if takesAway(s.name) {
		now = retired.ReplaceAllString(now, `"Retired": null`)
	}
	switch {
	case refused != "" && now != was && (now != is || !takesAway(s.name)):
		w.Errorf("%s: the answer was %q, and the state has changed: %s", what, refused, cmp.Diff(was, now))
	case refused == "" && broken == nil && now != is:
		w.Errorf("%s: the answer was a success, and the state is not as it should be: %s", what, cmp.Diff(is, now))
	case now != was && now != is:
		w.Errorf("%s: the state is neither that of before nor that of after the call: %s", what, cmp.Diff(is, now))
	}
	w.call(s)
	if now := lessHistory(w.same(what + ", tried again")); now != is {
		w.Errorf("%s, tried again: the state is not as it should be: %s", what, cmp.Diff(is, now))
	}
}

// takesAway reports whether the call is one whose error the engine drops: it is carried out whatever happens, and the rest of it
// later.
func takesAway(call string) bool {
	_, method, _ := strings.Cut(call, ".")
	for _, verb := range []string{"Delete", "Leave", "Revoke", "Release"} {
		if strings.HasPrefix(method, verb) {
			return true
		}
	}
	return false
}

// lessHistory leaves out of a state whether forwarding is ours, since what was turned on once stays on, and is remembered; and which run of the
// daemon made a network, which that takes back itself when it has lived on for a while.
func lessHistory(text string) string {
	return made.ReplaceAllString(forwarding.ReplaceAllString(text, ""), "")
}

var made = regexp.MustCompile(`,\s*"made": ".*?"`)

// retired are the bridges of which something may be left: they are remembered until a pass went through.
var retired = regexp.MustCompile(`(?s)"Retired": \[.*?\]`)

var forwarding = regexp.MustCompile(`(?s)"Forwarding": \{.*?\}`)

func (m moment) less() string { return lessHistory(m.text) }

// walkStart kills a daemon that makes a host from its state, at each effect.
func (w *walker) walkStart(full moment) {
	w.Helper()
	act := func(point int, fault effect.Fault) string {
		w.stop()
		w.purge()
		w.host.forgetZone()
		w.must(os.WriteFile(w.host.path("state.db"), full.file, 0o600))
		w.plan(point, fault)
		w.host.launch(w.backend)
		hit := w.await(point, fault)
		if hit == "" {
			w.stop() // the plan is still one of a kill, for what it might do yet
		}
		return hit
	}
	for v := range w.visits(act, effect.KillAfter) {
		if w.host.daemon == nil {
			w.start()
		}
		w.same(fmt.Sprintf("start, %v", v))
	}
}

// walkPurge kills a purge at each effect, and looks at what the next one leaves.
func (w *walker) walkPurge(full, blank moment) {
	w.Helper()
	act := func(point int, fault effect.Fault) string {
		w.rewind(full)
		w.host.settle()
		w.stop()
		w.plan(point, fault)
		err := w.host.purge()
		names := w.walked()
		if len(names) < point {
			w.must(err)
			return ""
		}
		return names[point-1]
	}
	for v := range w.visits(act, effect.KillAfter) {
		if closed := w.purge(); !slices.Equal(closed, full.guarded()) {
			w.Errorf("purge, %v, and repeated: FORWARD is closed in %v, and the guards were in %v", v, closed, full.guarded())
		}
		w.reset(blank) // forwarding stays on, as the purge says
		if diff := cmp.Diff(blank.dump, w.host.dump()); diff != "" {
			w.Errorf("purge, %v, and repeated, leaves (-blank +left): %s", v, diff)
		}
	}
}

// purge returns the programs whose FORWARD has the policy DROP from then on, and takes that back.
func (w *walker) purge() (closed []string) {
	w.Helper()
	w.must(w.host.purge())
	for _, program := range []string{"iptables", "ip6tables"} {
		if strings.HasPrefix(w.host.output(program, "-S", "FORWARD"), "-P FORWARD DROP\n") {
			closed = append(closed, program)
			w.host.output(program, "-P", "FORWARD", "ACCEPT")
		}
	}
	return closed
}

// guarded returns the programs whose FORWARD has a guard of ours at the moment.
func (m moment) guarded() (programs []string) {
	for _, program := range []string{"iptables", "ip6tables"} {
		if slices.Contains(m.dump, program+" *filter :DRAWBRIDGE-GUARD -") {
			programs = append(programs, program)
		}
	}
	return programs
}

// note counts a point.
func (w *walker) note(fault effect.Fault, hit string) {
	w.points[fault]++
	w.kinds[hit] = true
}

func (w *walker) plan(point int, fault effect.Fault) {
	w.Helper()
	w.must(effect.Plan{Point: point, Fault: fault}.Write(w.faults))
}

func (w *walker) walked() []string {
	w.Helper()
	names, err := effect.Walked(w.faults)
	w.must(err)
	return names
}

// await returns the name of the point when it has been passed and, if the daemon was killed there, that has ended; "" when the
// daemon has come to rest without.
func (w *walker) await(point int, fault effect.Fault) string {
	w.Helper()
	var why string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		status, err := w.host.status()
		ended := w.host.hasEnded()
		if why = unrest(status, err, w.host.reaping()); !ended && why != "" {
			continue
		}
		switch names := w.walked(); {
		case len(names) < point:
			return ""
		case ended || fault == effect.Fail || inRelay(names[point-1]):
			return names[point-1]
		default:
			why = fmt.Sprintf("it lives on behind %q", names)
		}
	}
	w.Fatalf("%s %d: the daemon does not come to rest: %s\n%s", fault, point, why, w.host.log.String())
	return ""
}

// unrest says what is still under way on the host, "" for nothing.
func unrest(status control.Status, err error, reaping bool) string {
	switch {
	case err != nil:
		return err.Error()
	case !status.Healthy():
		return strings.Join(status.Errors, "; ")
	case reaping:
		return "links are being deleted"
	}
	return ""
}

// inRelay reports whether the effect is one of the relay's, which the daemon starts again without a word from us.
func inRelay(name string) bool { return strings.HasPrefix(name, "socket.") }

func (w *walker) start() {
	w.Helper()
	w.host.launch(w.backend)
	w.host.settle()
}

func (w *walker) stop() {
	w.Helper()
	if w.host.daemon != nil {
		w.host.stop(unix.SIGKILL)
	}
}

// call makes a call that must succeed. A subnet whose network may be in the making, as the daemon remembers for some seconds, is
// asked for again behind a restart.
func (w *walker) call(s step) {
	w.Helper()
	refused, err := w.host.send(s.name, s.args)
	if strings.Contains(refused, "or try again in") {
		w.stop()
		w.start()
		refused, err = w.host.send(s.name, s.args)
	}
	if err != nil || refused != "" {
		w.Fatalf("%s: %v %s\n%s", s.name, err, refused, w.host.log.String())
	}
}

// moment writes down how things are.
func (w *walker) moment() moment {
	w.Helper()
	text := w.same("between two calls")
	file, err := os.ReadFile(w.host.path("state.db"))
	w.must(err)
	return moment{file: file, text: text, dump: w.host.dump()}
}

// same compares the host with a fresh one of the same state, which it returns as text.
func (w *walker) same(what string) string {
	w.Helper()
	w.host.settle()
	if found := w.host.verify(); len(found) > 0 {
		w.Errorf("%s: the daemon finds differences: %v", what, found)
	}
	now := w.host.snapshot()
	text := stateText(now)
	if _, known := w.fresh[text]; !known {
		w.fresh[text] = w.freshDump()
	}
	if diff := cmp.Diff(w.fresh[text], w.host.dump().without(now)); diff != "" {
		w.Errorf("%s: the host is not like a fresh one with this state (-fresh +used):\n%s\n%s", what, diff, text)
	}
	return text
}

func (w *walker) freshDump() dump {
	w.Helper()
	other := w.make(w.T)
	other.inherit(w.host)
	other.launch(w.backend)
	other.settle()
	if found := other.verify(); len(found) > 0 {
		w.Fatalf("a fresh host is not as the state wants it: %v\n%s", found, other.log.String())
	}
	d := other.dump()
	s := other.snapshot()
	other.stop(unix.SIGKILL)
	other.endRelay()
	return d.without(s)
}

// rewind makes the host what it was at a moment. A link of a container that has joined, which no daemon makes again, is made
// for a container that has not.
func (w *walker) rewind(m moment) {
	w.Helper()
	if !w.dirty && w.host.daemon != nil && stateText(w.host.snapshot()) == m.text && !w.lacksLinks(m) {
		return
	}
	w.stop()
	w.plan(0, "")
	if w.dirty || w.host.zoned() {
		w.purge() // firewalld does not forget a bridge that no state has
		w.dirty = false
	}
	w.reset(m)
	if w.lacksLinks(m) {
		w.must(os.WriteFile(w.host.path("state.db"), m.file, 0o600))
		s, err := store.Open(w.host.path("state.db"))
		w.must(err)
		_, err = s.Update(w.Context(), func(tx *store.Tx) error {
			for _, e := range tx.Endpoints() {
				e.Sandbox = ""
				tx.PutEndpoint(e)
			}
			return nil
		})
		w.must(err)
		w.must(s.Close())
		w.start()
		w.stop()
	}
	w.must(os.WriteFile(w.host.path("state.db"), m.file, 0o600))
	w.start()
}

// reset gives the host's switches the values that they had at the moment.
func (w *walker) reset(m moment) {
	w.Helper()
	for _, key := range switches {
		w.host.in(func() error { return os.WriteFile("/proc/sys/"+key, []byte(m.value(key)), 0) })
	}
}

// value is what a switch of the host was at the moment.
func (m moment) value(key string) string {
	for _, line := range m.dump {
		if value, ok := strings.CutPrefix(line, key+" = "); ok {
			return value
		}
	}
	return ""
}

// lacksLinks reports whether a link of a container at the moment is not there.
func (w *walker) lacksLinks(m moment) bool {
	w.Helper()
	for _, line := range m.dump {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "link "), ":")
		if strings.HasPrefix(line, "link ") && strings.Contains(rest, "endpoint") {
			if _, err := w.host.handle.LinkByName(name); err != nil {
				return true
			}
		}
	}
	return false
}

var freshHosts sync.Mutex // one firewalld starts at a time

// newZonedHost is a host with a firewalld.
func newZonedHost(t tester) *wholeHost {
	t.Helper()
	freshHosts.Lock()
	defer freshHosts.Unlock()
	h := newWholeHost(t)
	h.startFirewalld()
	return h
}
