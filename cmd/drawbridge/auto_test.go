package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/state"
)

// fakeHost is what looks find.
type fakeHost struct {
	found  hostfw.Finding
	err    error
	looks  int
	strict bool
}

func (f *fakeHost) Look(context.Context) (hostfw.Finding, error) {
	f.looks++
	return f.found, f.err
}

func (f *fakeHost) auto(inherit state.Publish, log *slog.Logger) *auto {
	return newAuto(f, func() bool { return f.strict }, inherit, log)
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
			told = nil
		}
		expect(state.PublishLearned, "not been looked at yet")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx, func(reason string) { told = append(told, reason) }) }()
		expect(state.PublishDNAT, "no firewall", "published ports are served by mode dnat: no firewall of the host is active")

		host.found = hostfw.Finding{Active: true, Why: "ufw is active"}
		expect(state.PublishDNAT, "no firewall") // nobody said so yet
		a.Suspect()
		expect(state.PublishLearned, "ufw is active", "published ports are served by mode learned: ufw is active")
		host.found.Why = "firewalld runs"
		a.Suspect()
		expect(state.PublishLearned, "firewalld runs")
		host.strict = true
		a.Suspect()
		expect(state.PublishHost, "StrictForwardPorts=yes", "published ports are served by mode host: firewalld refuses translated ports (StrictForwardPorts=yes)")
		host.strict, host.found = false, hostfw.Finding{}
		a.Suspect()
		expect(state.PublishDNAT, "no firewall", "published ports are served by mode dnat: no firewall of the host is active")
		host.err = errors.New("no answer")
		a.Suspect()
		expect(state.PublishLearned, "could not be looked at", "published ports are served by mode learned: the host's firewall could not be looked at")
		host.err = nil        // it is looked at again without a word
		time.Sleep(lookAgain) // of the bubble's clock
		expect(state.PublishDNAT, "no firewall", "published ports are served by mode dnat: no firewall of the host is active")
		host.found = hostfw.Finding{Active: true, Why: "ufw is active"} // unheard
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
			if got, want := a.Modes(), (state.Modes{Inherit: state.PublishDNAT, Auto: state.PublishLearned}); got != want {
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
