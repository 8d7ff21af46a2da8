package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/state"
)

// fakeHost is what looks find. Whoever is woken by the clock alone is ordered by nothing else: mu is held while a test changes what is found.
type fakeHost struct {
	mu       sync.Mutex
	found    hostfw.Finding
	err      error
	bySource string
	badRules error
	looks    int
	strict   bool
}

func (f *fakeHost) RoutedBySource() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bySource, f.badRules
}

func (f *fakeHost) Look(context.Context) (hostfw.Finding, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return f.found, f.err
}

func (f *fakeHost) auto(inherit state.Publish, log *slog.Logger) *auto {
	return newAuto(f, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.strict
	}, inherit, log)
}

// change has looks find something else from now on.
func (f *fakeHost) change(to func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to()
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestAuto: what counts before and after looks, and what is told when it changes.
func TestAuto(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{}
		a := host.auto(state.PublishAuto, discard())
		var told []string
		expect := func(want state.Publish, because string, changes ...string) {
			t.Helper()
			synctest.Wait()
			if mode, reason := a.Auto(); mode != want || !strings.Contains(reason, because) {
				t.Errorf("auto means %s, %q, want %s, %q", mode, reason, want, because)
			}
			if diff := cmp.Diff(changes, told); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			host.change(func() { told = nil })
		}
		expect(state.PublishHost, "not been looked at yet")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- a.Run(ctx, func(reason string) { host.change(func() { told = append(told, reason) }) })
		}()
		expect(state.PublishDNAT, "no firewall", "published ports are served by mode dnat: no firewall of the host is active")

		host.change(func() { host.found = hostfw.Finding{Active: true, Why: "ufw is active"} })
		expect(state.PublishDNAT, "no firewall") // nobody said so yet
		a.Suspect()
		expect(state.PublishLearned, "ufw is active", "published ports are served by mode learned: ufw is active")
		host.change(func() { host.found.Why = "firewalld runs" })
		a.Suspect()
		expect(state.PublishLearned, "firewalld runs")
		host.change(func() { host.found.Beyond = "limit" })
		a.Suspect()
		expect(state.PublishHost, "INPUT counts or looks into packets (limit)",
			"published ports are served by mode host: firewalld runs; INPUT counts or looks into packets (limit), which learned clients would pass by")
		host.change(func() { host.found.Beyond = "" })
		a.Suspect()
		expect(state.PublishLearned, "firewalld runs", "published ports are served by mode learned: firewalld runs")
		host.change(func() { host.bySource = "100: from 192.0.2.1" })
		a.Suspect()
		expect(state.PublishHost, "a routing rule (100: from 192.0.2.1)",
			"published ports are served by mode host: firewalld runs; a routing rule (100: from 192.0.2.1) does not hold for answers to learned clients")
		host.change(func() { host.badRules = errors.New("no answer") })
		a.Suspect()
		expect(state.PublishHost, "could not be looked at")
		host.change(func() { host.bySource, host.badRules = "", nil })
		a.Suspect()
		expect(state.PublishLearned, "firewalld runs", "published ports are served by mode learned: firewalld runs")
		host.change(func() { host.strict = true })
		a.Suspect()
		expect(state.PublishHost, "StrictForwardPorts=yes", "published ports are served by mode host: firewalld refuses translated ports (StrictForwardPorts=yes)")
		host.change(func() { host.strict, host.found, host.bySource = false, hostfw.Finding{}, "100: from 192.0.2.1" }) // as with Docker
		a.Suspect()
		expect(state.PublishDNAT, "no firewall", "published ports are served by mode dnat: no firewall of the host is active")
		host.change(func() { host.bySource, host.err = "", errors.New("no answer") })
		a.Suspect()
		expect(state.PublishHost, "could not be looked at", "published ports are served by mode host: the host's firewall could not be looked at")
		host.change(func() { host.err = nil }) // it is looked at again without a word
		time.Sleep(lookAgain)                  // of the bubble's clock
		expect(state.PublishDNAT, "no firewall", "published ports are served by mode dnat: no firewall of the host is active")
		host.change(func() { host.found = hostfw.Finding{Active: true, Why: "ufw is active"} }) // unheard
		time.Sleep(checkInterval)
		expect(state.PublishLearned, "ufw is active", "published ports are served by mode learned: ufw is active")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestAutoFirstLook: what a pass is told waits for the first look, and no longer than a while.
func TestAutoFirstLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{}
		a := host.auto(state.PublishDNAT, discard())
		began := time.Now()
		for range 3 { // the first of which waits
			if got, want := a.Modes(), (state.Modes{Inherit: state.PublishDNAT, Auto: state.PublishHost}); got != want {
				t.Errorf("before a look %+v", got)
			}
		}
		if waited := time.Since(began); waited != firstLook {
			t.Errorf("waited for %v for a look that does not come", waited)
		}
		a = host.auto(state.PublishAuto, discard())
		var automatic atomic.Value
		go func() { automatic.Store(a.Modes().Auto) }()
		synctest.Wait()
		if automatic.Load() != nil {
			t.Error("it does not wait for the first look")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = a.Run(ctx, func(string) {}) }()
		synctest.Wait()
		if automatic.Load() != state.PublishDNAT {
			t.Errorf("after a look auto means %v", automatic.Load())
		}
		cancel()
	})
}

// TestMode: what a port's own mode, that of the daemon and the host come to.
func TestMode(t *testing.T) {
	for _, tt := range []struct {
		name           string
		said, inherit  state.Publish
		active, strict bool
		want           state.Publish
	}{
		{"by the network", state.PublishHost, state.PublishDNAT, false, false, state.PublishHost},
		{"by the flag", "", state.PublishDNAT, true, false, state.PublishDNAT},
		{"auto by the network, open", state.PublishAuto, state.PublishHost, false, false, state.PublishDNAT},
		{"auto by the network, guarded", state.PublishAuto, state.PublishDNAT, true, false, state.PublishLearned},
		{"auto by the flag, guarded", "", state.PublishAuto, true, false, state.PublishLearned},
		{"auto, strict", "", state.PublishAuto, true, true, state.PublishHost},
		{"dnat, strict", state.PublishDNAT, state.PublishAuto, true, true, state.PublishHost},
		{"learned, strict", state.PublishLearned, state.PublishAuto, true, true, state.PublishHost},
		{"dnat by the flag, strict", "", state.PublishDNAT, true, true, state.PublishHost},
		{"localhost, strict", state.PublishLocalhost, state.PublishAuto, true, true, state.PublishLocalhost},
		{"host, strict", state.PublishHost, state.PublishAuto, true, true, state.PublishHost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := &fakeHost{strict: tt.strict}
			if tt.active {
				host.found = hostfw.Finding{Active: true, Why: "ufw is active"}
			}
			a := host.auto(tt.inherit, discard())
			if err := a.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			if mode := a.Mode(state.Exposure{Publish: tt.said}); mode != tt.want {
				t.Errorf("it is %s, not %s", mode, tt.want)
			}
		})
	}
}

// TestLed: what leads to the host's sockets stays when ports that they served are translated, and is not there before.
func TestLed(t *testing.T) {
	host := &fakeHost{}
	a := host.auto(state.PublishAuto, discard())
	const dnat, learned, by = state.PublishDNAT, state.PublishLearned, state.PublishHost
	for _, step := range []struct {
		name           string
		active, strict bool
		mode, led, own state.Publish // own is that of a network in the mode dnat
	}{
		{"open", false, false, dnat, dnat, dnat},
		{"guarded", true, false, learned, learned, dnat},
		{"open again", false, false, dnat, learned, dnat},
		{"strict", true, true, by, by, by},
		{"strict no more", false, false, dnat, by, by},
	} {
		host.strict, host.found = step.strict, hostfw.Finding{Active: step.active}
		if err := a.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		mode, led, own := a.Mode(state.Exposure{}), a.Led(state.Exposure{}), a.Led(state.Exposure{Publish: dnat})
		if mode != step.mode || led != step.led || own != step.own {
			t.Errorf("%s: mode %s, led as %s and, in a network of its own, as %s", step.name, mode, led, own)
		}
	}
}
