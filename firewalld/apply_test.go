package firewalld

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/drawbridge-net/drawbridge/state"
)

var (
	v4 = state.Subnet{Prefix: netip.MustParsePrefix("10.7.0.0/24"), Gateway: netip.MustParseAddr("10.7.0.1")}
	v6 = state.Subnet{Prefix: netip.MustParsePrefix("fd00:7::/64"), Gateway: netip.MustParseAddr("fd00:7::1")}

	only4    = state.Network{ID: "net000000004", Bridge: "br-four", V4: v4}
	only6    = state.Network{ID: "net000000006", Bridge: "br-six", V6: v6}
	dual     = state.Network{ID: "net000000046", Bridge: "br-both", V4: v4, V6: v6}
	internal = state.Network{ID: "net0000000ff", Bridge: "br-int", V4: v4, V6: v6, Internal: true}
)

// want builds a snapshot.
func want(networks ...state.Network) state.Snapshot {
	s := state.Snapshot{Revision: 1, Networks: networks}
	s.Sort()
	return s
}

func retired(s state.Snapshot, bridges ...string) state.Snapshot {
	s.Retired = bridges
	return s
}

// Unbind is for a host that is being cleared: it must not make the zone.
func TestUnbind(t *testing.T) {
	for name, row := range map[string]struct {
		given  []with
		writes []string
	}{
		"no zone docker":     {nil, nil},
		"bound":              {[]with{withDocker("br-old", "docker0")}, []string{"removeInterface docker br-old"}},
		"in the admin's own": {[]with{withDocker(), zone("dmz", "br-old")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBus(t)
			f := b.firewalld(row.given...)
			if err := b.plane().Unbind(t.Context(), []string{"br-old"}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.writes, f.taken()); diff != "" {
				t.Errorf("writes: %s", diff)
			}
		})
	}
}

func TestApply(t *testing.T) {
	rows := []struct {
		name   string
		given  []with
		state  state.Snapshot
		writes []string
		docker []string // what the zone holds afterwards
	}{
		{name: "no network yet", state: want(), writes: []string{"add docker", "add docker-forwarding", "reload"}},
		{
			name: "first network", state: want(dual),
			writes: []string{"add docker", "add docker-forwarding", "reload", "addInterface docker br-both"},
			docker: []string{"br-both"},
		},
		{
			name: "every kind of network", given: []with{withDocker()}, state: want(only4, only6, dual, internal),
			writes: []string{"addInterface docker br-four", "addInterface docker br-six", "addInterface docker br-both", "addInterface docker br-int"},
			docker: []string{"br-both", "br-four", "br-int", "br-six"},
		},
		{
			name: "all there", given: []with{withDocker("br-four", "br-six")}, state: want(only4, only6),
			docker: []string{"br-four", "br-six"},
		},
		{
			name: "Docker's own bridge stays", given: []with{withDocker("docker0")}, state: want(only4),
			writes: []string{"addInterface docker br-four"}, docker: []string{"br-four", "docker0"},
		},
		{
			name: "zone of an older Docker, no policy", given: []with{zone("docker", "docker0")}, state: want(only6),
			writes: []string{"add docker-forwarding", "reload", "addInterface docker br-six"}, docker: []string{"br-six", "docker0"},
		},
		{
			name: "a version without policies", given: []with{noPolicies}, state: want(only4),
			writes: []string{"add docker", "reload", "addInterface docker br-four"}, docker: []string{"br-four"},
		},
		{
			name: "a version without policies, all there", given: []with{noPolicies, zone("docker", "br-four")}, state: want(only4),
			docker: []string{"br-four"},
		},
		{
			name: "permanent but not loaded", given: []with{permanentOnly("docker"), permanentOnly("docker-forwarding")}, state: want(only4),
			writes: []string{"reload", "addInterface docker br-four"}, docker: []string{"br-four"},
		},
		{
			name: "retired", given: []with{withDocker("br-old", "br-four")}, state: retired(want(only4), "br-old"),
			writes: []string{"removeInterface docker br-old"}, docker: []string{"br-four"},
		},
		{
			name: "the last one retired", given: []with{withDocker("br-old")}, state: retired(want(), "br-old"),
			writes: []string{"removeInterface docker br-old"}, docker: []string{},
		},
		{
			name: "retired and in use again", given: []with{withDocker("br-four")}, state: retired(want(only4), "br-four"),
			docker: []string{"br-four"},
		},
		{name: "retired, in no zone", given: []with{withDocker()}, state: retired(want(), "br-old"), docker: []string{}},
		{name: "retired, in the admin's zone", given: []with{withDocker(), zone("dmz", "br-old")}, state: retired(want(), "br-old"), docker: []string{}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := startBus(t)
			f := b.firewalld(row.given...)
			p := b.plane()
			if err := p.Apply(t.Context(), row.state); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.writes, f.taken()); diff != "" {
				t.Errorf("writes: %s", diff)
			}
			for _, method := range []string{"addInterface", "removeInterface", "reload"} {
				if tried := f.called(method); tried != count(row.writes, method) {
					t.Errorf("%s was called %d times", method, tried)
				}
			}
			if diff := cmp.Diff(row.docker, f.linksOf("docker"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("zone docker: %s", diff)
			}
			if err := p.Apply(t.Context(), row.state); err != nil {
				t.Errorf("second pass: %v", err)
			}
			if again := f.taken(); again != nil {
				t.Errorf("second pass wrote %v", again)
			}
		})
	}
}

// count returns how many of the writes are calls of method.
func count(writes []string, method string) int {
	n := 0
	for _, w := range writes {
		if strings.HasPrefix(w, method) {
			n++
		}
	}
	return n
}

func TestObjectsAreDockers(t *testing.T) {
	b := startBus(t)
	f := b.firewalld()
	if err := b.plane().Apply(t.Context(), want(dual)); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	wantObjects := map[string]any{
		"docker": zoneSettings{Version: "1.0", Short: "docker", Description: "zone for docker bridge network interfaces", Target: "ACCEPT"},
		"docker-forwarding": map[string]any{
			"version": "1.0", "description": "allow forwarding to the docker zone", "target": "ACCEPT",
			"ingress_zones": []string{"ANY"}, "egress_zones": []string{"docker"},
		},
	}
	if diff := cmp.Diff(wantObjects, f.permanent, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestBridgeInAnotherZone(t *testing.T) {
	b := startBus(t)
	f := b.firewalld(withDocker(), zone("public", "br-four"), zone("work", "br-six"))
	err := b.plane().Apply(t.Context(), want(only4, only6, dual))
	for _, row := range []struct {
		network    state.NetworkID
		zone, link string
	}{{only4.ID, "public", "br-four"}, {only6.ID, "work", "br-six"}} {
		mine := state.Scope{Network: row.network}.Select(err)
		if mine == nil {
			t.Fatalf("network %s: no error in %v", row.network, err)
		}
		for _, command := range []string{
			"firewall-cmd --zone=" + row.zone + " --remove-interface=" + row.link,
			"firewall-cmd --permanent --zone=" + row.zone + " --remove-interface=" + row.link,
		} {
			if !strings.Contains(mine.Error(), command) {
				t.Errorf("error %q lacks %q", mine, command)
			}
		}
		if strings.Contains(mine.Error(), "\n") {
			t.Errorf("network %s sees more than its own error: %q", row.network, mine)
		}
	}
	if err := (state.Scope{Network: dual.ID}).Select(err); err != nil {
		t.Errorf("the network without conflict sees %v", err)
	}
	if diff := cmp.Diff([]string{"addInterface docker br-both"}, f.taken()); diff != "" {
		t.Errorf("writes: %s", diff)
	}
}

// Another program may act between our question and our request.
func TestOvertaken(t *testing.T) {
	rows := []struct {
		name, method, zone string
		state              state.Snapshot
		fails              bool
	}{
		{"bound to our zone", "addInterface", "docker", want(only4), false},
		{"bound to another zone", "addInterface", "public", want(only4), true},
		{"retired bridge unbound", "removeInterface", "", retired(want(), "br-four"), false},
		{"retired bridge moved", "removeInterface", "public", retired(want(), "br-four"), false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := startBus(t)
			var bound []string
			if row.method == "removeInterface" {
				bound = []string{"br-four"}
			}
			f := b.firewalld(withDocker(bound...), ahead(row.method, func(f *fake) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.zones["docker"] = nil
				if row.zone != "" {
					f.zones[row.zone] = []string{"br-four"}
				}
			}))
			err := b.plane().Apply(t.Context(), row.state)
			if (err != nil) != row.fails || row.fails && !strings.Contains(err.Error(), "--zone="+row.zone) {
				t.Errorf("got %v", err)
			}
			if w := f.taken(); w != nil {
				t.Errorf("writes: %v", w)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	rows := []struct {
		name  string
		given []with
		state state.Snapshot
		want  string
		whole bool // of the whole plane, so that networks not at fault see it too
	}{
		{"panic mode", []with{withDocker(), inPanic}, want(only4), "firewall-cmd --panic-off", false},
		{
			"not authorised",
			[]with{withDocker(), refusing("addInterface", service+".NotAuthorizedException", "Not Authorized(uid): x")},
			want(only4), "must run as root", true,
		},
		{
			"the zone cannot be made",
			[]with{refusing("addZone", service+".Exception", "INVALID_TARGET: x")},
			want(only4), "making firewalld's zone docker: calling firewalld's config.addZone: INVALID_TARGET: x", true,
		},
		{
			"the reload fails",
			[]with{refusing("reload", service+".Exception", "COMMAND_FAILED: nft")},
			want(only4), "reloading firewalld after adding the zone docker: calling firewalld's reload: COMMAND_FAILED: nft", true,
		},
		{
			"a retired bridge stays",
			[]with{withDocker("br-old"), refusing("removeInterface", service+".Exception", "COMMAND_FAILED")},
			retired(want(), "br-old"), "taking bridge br-old out of firewalld's zone docker", false,
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := startBus(t)
			b.firewalld(row.given...)
			err := b.plane().Apply(t.Context(), row.state)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got %v, want %q", err, row.want)
			}
			if seen := (state.Scope{Network: "another00000"}).Select(err); (seen != nil) != row.whole {
				t.Errorf("another network sees %v", seen)
			}
		})
	}
}

// A zone that firewalld does not load must not make each pass reload it: each
// reload triggers a pass.
func TestUnloadableZoneIsReloadedOnce(t *testing.T) {
	b := startBus(t)
	f := b.firewalld(unable)
	p := b.plane()
	for i := range 3 {
		if err := p.Apply(t.Context(), want(only4)); err == nil || !strings.Contains(err.Error(), "firewall-cmd --check-config") {
			t.Errorf("pass %d: %v", i, err)
		}
	}
	if diff := cmp.Diff([]string{"add docker", "add docker-forwarding", "reload"}, f.taken()); diff != "" {
		t.Errorf("writes: %s", diff)
	}
	f.mu.Lock() // the admin repairs it
	f.broken = false
	f.mu.Unlock()
	if err := f.reload(); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context(), want(only4)); err != nil {
		t.Errorf("after the repair: %v", err)
	}
	if p.unloadable {
		t.Error("the failure is remembered after it was repaired")
	}
}

// A reload that failed after the zone was made is made up for by the next pass.
func TestFailedReloadIsRepeated(t *testing.T) {
	b := startBus(t)
	f := b.firewalld(refusing("reload", service+".Exception", "COMMAND_FAILED"))
	p := b.plane()
	if err := p.Apply(t.Context(), want(only4)); err == nil {
		t.Fatal("the first pass succeeded")
	}
	f.mu.Lock()
	delete(f.refuse, "reload")
	f.writes = nil
	f.mu.Unlock()
	if err := p.Apply(t.Context(), want(only4)); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"reload", "addInterface docker br-four"}, f.taken()); diff != "" {
		t.Errorf("writes: %s", diff)
	}
}

func TestNoFirewalldIsFine(t *testing.T) {
	rows := []struct {
		name string
		make func(t *testing.T) *testBus
	}{
		{"no bus", newBus},
		{"a dead bus", func(t *testing.T) *testBus { b := startBus(t); b.kill(); return b }},
		{"a bus without firewalld", startBus},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := row.make(t)
			p := b.plane()
			if err := p.Apply(t.Context(), retired(want(dual), "br-old")); err != nil {
				t.Errorf("Apply: %v", err)
			}
			if _, err := os.Stat(b.dir + "/activated"); err == nil {
				t.Error("the bus was made to start firewalld")
			}
		})
	}
}

func TestDefaultConnectionIsTheSystemBus(t *testing.T) {
	b := startBus(t)
	f := b.firewalld(withDocker())
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", b.address())
	if err := New(Options{}).Apply(t.Context(), want(only4)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"addInterface docker br-four"}, f.taken()); diff != "" {
		t.Errorf("writes: %s", diff)
	}
}

func TestSilentFirewalld(t *testing.T) {
	for _, method := range []string{"getZones", "getZoneOfInterface", "addInterface"} {
		t.Run(method, func(t *testing.T) {
			b := startBus(t)
			release := make(chan struct{})
			defer close(release)
			b.firewalld(withDocker(), stuck(method, release))
			const timeout = time.Second // in which the methods ahead of it are answered, on a busy machine too
			p := New(Options{Connect: b.connect, Timeout: timeout})
			began := time.Now()
			err := p.Apply(t.Context(), retired(want(only4, only6, dual, internal), "br-old"))
			if err == nil || !strings.Contains(err.Error(), "on the D-Bus system bus but did not answer zone."+method) {
				t.Errorf("got %v", err)
			}
			if seen := (state.Scope{Network: internal.ID}).Select(err); seen == nil {
				t.Error("a network that was not reached sees no error")
			}
			if took := time.Since(began); took > 3*timeout { // there are five bridges
				t.Errorf("took %s: it waited for each bridge", took)
			}
		})
	}
}

func TestSilentBus(t *testing.T) {
	b := newBus(t)
	l, err := net.Listen("unix", b.dir+"/bus") // accepts into its backlog and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := New(Options{Connect: b.connect, Timeout: 100 * time.Millisecond})
	if err := p.Apply(t.Context(), want(only4)); err == nil || !strings.Contains(err.Error(), "system bus did not answer within 100ms") {
		t.Errorf("got %v", err)
	}
}

func TestCancelled(t *testing.T) {
	b := startBus(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.firewalld(withDocker(), ahead("addInterface", func(*fake) { cancel(); <-ctx.Done() }))
	err := b.plane().Apply(ctx, want(only4, only6))
	// Which of the two is noticed first, the cancelled call or its closed connection,
	// is open; either way it is an error that every network sees.
	if seen := (state.Scope{Network: only6.ID}).Select(err); seen == nil {
		t.Errorf("got %v", err)
	}
	if err := b.plane().Apply(ctx, want(only4)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled from the start: %v", err)
	}
}

func TestFirewalldGoesAwayDuringThePass(t *testing.T) {
	rows := []struct {
		name    string
		returns bool // at once, as in a restart
	}{{"stopped", false}, {"restarted", true}}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := startBus(t)
			b.firewalld(withDocker(), ahead("addInterface", func(f *fake) {
				if row.returns {
					b.firewalld(withDocker())
				}
				f.leave()
			}))
			err := b.plane().Apply(t.Context(), want(only4, only6))
			switch {
			case !row.returns && err != nil:
				t.Errorf("got %v, want nil: there is no firewalld any more", err)
			case row.returns && (err == nil || !strings.Contains(err.Error(), "went away during")):
				t.Errorf("got %v, want an error that makes the pass be repeated", err)
			}
		})
	}
}

// A firewalld that left between two calls must not be started by the second.
func TestCallsDoNotStartFirewalld(t *testing.T) {
	b := startBus(t)
	conn, err := b.plane().open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	if _, err := conn.zoneOf(t.Context(), "br-four"); classify(err) != gone {
		t.Errorf("got %v, want that firewalld is gone", err)
	}
	if _, err := os.Stat(b.dir + "/activated"); err == nil {
		t.Error("the bus was made to start firewalld")
	}
}
