package firewalld

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/drawbridge-net/drawbridge/state"
)

// watcher runs Watch and collects the reasons.
type watcher struct {
	t       *testing.T
	reasons chan string
}

func watch(t *testing.T, p *Plane) *watcher {
	t.Helper()
	w := &watcher{t, make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	say := func(reason string) { w.reasons <- reason }
	go func() { ended <- p.Watch(ctx, say, say) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Watch returned %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Watch did not return")
		}
	})
	return w
}

func (w *watcher) expect(want string) {
	w.t.Helper()
	select {
	case got := <-w.reasons:
		if got != want {
			w.t.Fatalf("got %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		w.t.Fatalf("nothing was reported, want %q", want)
	}
}

// expectNothing does so for a moment, and makes sure that the watch is alive by what comes next.
func (w *watcher) expectNothing() {
	w.t.Helper()
	select {
	case got := <-w.reasons:
		w.t.Fatalf("got %q, want nothing", got)
	case <-time.After(50 * time.Millisecond):
	}
}

func TestWatchSignals(t *testing.T) {
	b := startBus(t)
	w := watch(t, b.plane())
	w.expect("connected to the system bus")

	f := b.firewalld(withDocker())
	w.expect("firewalld started")
	if err := f.reload(); err != nil {
		t.Fatal(err)
	}
	w.expect("firewalld was reloaded")
	if err := f.emit("SomethingElse"); err != nil {
		t.Fatal(err)
	}
	w.expectNothing()
	f.leave()
	w.expect("firewalld stopped")
	b.firewalld()
	w.expect("firewalld started")
}

// TestWatchBridges: it is told when somebody takes a bridge of ours out of the zone or puts it into another one, and when it leaves that;
// neither what we do ourselves nor what happens to links of others.
func TestWatchBridges(t *testing.T) {
	b := startBus(t)
	f := b.firewalld(withDocker())
	p := b.plane()
	w := watch(t, p)
	w.expect("connected to the system bus")
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	by := func(_ string, err *dbus.Error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := want(only4)
	bridge := only4.Bridge
	do(p.Apply(t.Context(), s))
	by(f.addInterface("docker", "br-other"))
	by(f.removeInterface("docker", "br-other"))
	by("", f.change("trusted", "eth0"))
	w.expectNothing()
	by(f.removeInterface("docker", bridge))
	w.expect("bridge " + bridge + " was taken out of firewalld's zone docker")
	do(p.Apply(t.Context(), s))
	w.expectNothing()
	by("", f.change("trusted", bridge))
	w.expect("bridge " + bridge + " was put into firewalld's zone trusted")
	if err := p.Apply(t.Context(), s); err == nil {
		t.Error("a bridge in another zone is no error")
	}
	by(f.removeInterface("trusted", bridge))
	w.expect("bridge " + bridge + " was taken out of firewalld's zone trusted")
	do(p.Apply(t.Context(), s))
	do(p.Apply(t.Context(), state.Snapshot{Retired: []string{bridge}}))
	by(f.addInterface("trusted", bridge))
	w.expectNothing()
	if got := f.linksOf("docker"); len(got) > 0 {
		t.Errorf("in the zone: %q", got)
	}
}

// TestRunning: firewalld is there or not, and a host without a bus has none.
func TestRunning(t *testing.T) {
	b := startBus(t)
	p := b.plane()
	expect := func(want bool) {
		t.Helper()
		if got, err := p.Running(t.Context()); got != want || err != nil {
			t.Errorf("running is %v, %v, want %v", got, err, want)
		}
	}
	expect(false)
	f := b.firewalld(withDocker())
	expect(true)
	f.leave()
	expect(false)
	b.kill()
	expect(false)
}

// TestStrict: the setting is as firewalld said when it was last heard of.
func TestStrict(t *testing.T) {
	b := startBus(t)
	p := b.plane()
	w := watch(t, p)
	heard := func(reason string, want bool) {
		t.Helper()
		w.expect(reason)
		if p.Strict() != want {
			t.Errorf("%s: strict is %v", reason, p.Strict())
		}
	}
	heard("connected to the system bus", false)
	f := b.firewalld(withDocker(), func(f *fake) { f.strict = "yes" })
	heard("firewalld started", true)
	f.mu.Lock()
	f.strict = "no"
	f.mu.Unlock()
	if err := f.reload(); err != nil {
		t.Fatal(err)
	}
	heard("firewalld was reloaded", false)
	f.leave()
	heard("firewalld stopped", false)
	f = b.firewalld(func(f *fake) { f.strict = "yes" })
	heard("firewalld started", true)
	f.leave()
	heard("firewalld stopped", false)
	b.firewalld() // of an older version
	heard("firewalld started", false)
}

func TestWatchIgnoresOtherNames(t *testing.T) {
	b := startBus(t)
	w := watch(t, b.plane())
	w.expect("connected to the system bus")
	conn, err := dbus.Connect(b.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.RequestName("org.example.Other", 0); err != nil {
		t.Fatal(err)
	}
	// The same signal from someone who is not firewalld.
	if err := conn.Emit(path, service+".Reloaded"); err != nil {
		t.Fatal(err)
	}
	w.expectNothing()
	b.firewalld()
	w.expect("firewalld started")
}

// firewalld takes its name before it has set up, and flushed, its rules.
func TestWatchReportsAStartOnceFirewalldAnswers(t *testing.T) {
	b := startBus(t)
	w := watch(t, b.plane())
	w.expect("connected to the system bus")
	loaded := make(chan struct{})
	b.firewalld(stuck("", loaded))
	w.expectNothing()
	close(loaded)
	w.expect("firewalld started")
}

func TestWatchStartThatNeverFinishes(t *testing.T) {
	b := startBus(t)
	w := watch(t, b.plane())
	w.expect("connected to the system bus")
	release := make(chan struct{})
	f := b.firewalld(stuck("", release))
	w.expectNothing()
	f.leave()
	close(release)
	w.expect("firewalld started") // it did, and the pass will find what is there
	w.expect("firewalld stopped")
}

func TestWatchOutlivesTheBus(t *testing.T) {
	b := newBus(t)
	w := watch(t, b.plane())
	w.expectNothing()
	b.start()
	w.expect("connected to the system bus")
	f := b.firewalld()
	w.expect("firewalld started")
	f.leave()
	w.expect("firewalld stopped")
	b.kill()
	w.expectNothing()
	b.start()
	w.expect("connected to the system bus")
	b.firewalld()
	w.expect("firewalld started")
}

// The pass that follows our own reload finds nothing to do: otherwise it would go on for ever.
func TestOwnReloadComesToRest(t *testing.T) {
	b := startBus(t)
	f := b.firewalld()
	p := b.plane()
	w := watch(t, p)
	w.expect("connected to the system bus")
	for _, reason := range []string{"firewalld was reloaded", ""} {
		if err := p.Apply(t.Context(), want(only4)); err != nil {
			t.Fatal(err)
		}
		if reason != "" {
			w.expect(reason)
			f.taken()
		}
	}
	w.expectNothing()
	if again := f.taken(); again != nil {
		t.Errorf("the second pass wrote %v", again)
	}
}

func TestWatchBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		p := New(Options{Connect: func(context.Context) (*dbus.Conn, error) {
			tries.Add(1)
			return nil, errors.New("no luck")
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		never := func(string) { t.Error("a change was reported") }
		if err := p.Watch(ctx, never, never); err != nil {
			t.Error(err)
		}
		// 100 ms, 200, 400 … 3.2 s make six tries in 6.3 s, then one each 5 s.
		if n := tries.Load(); n < 15 || n > 19 {
			t.Errorf("%d tries in a minute", n)
		}
	})
}
