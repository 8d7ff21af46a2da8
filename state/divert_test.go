package state_test

import (
	"slices"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestResolve(t *testing.T) {
	tests := []struct{ mode, daemon, want state.Publish }{
		{state.PublishInherit, state.PublishInherit, state.PublishDNAT},
		{state.PublishAuto, state.PublishInherit, state.PublishDNAT},
		{state.PublishInherit, state.PublishHost, state.PublishHost},
		{state.PublishAuto, state.PublishLearned, state.PublishLearned},
		{state.PublishDNAT, state.PublishHost, state.PublishDNAT},
		{state.PublishLocalhost, state.PublishHost, state.PublishLocalhost},
	}
	for _, tt := range tests {
		if got := tt.mode.Resolve(tt.daemon); got != tt.want {
			t.Errorf("%q under %q: %q, want %q", tt.mode, tt.daemon, got, tt.want)
		}
	}
}

// TestByHost: a network counts by its own mode or by that of one endpoint, and an internal one never.
func TestByHost(t *testing.T) {
	mode := func(p state.Publish) state.Exposure { return state.Exposure{Publish: p} }
	s := state.Snapshot{
		Networks: []state.Network{
			{ID: "a", Exposure: mode(state.PublishHost)},
			{ID: "b", Exposure: mode(state.PublishHost), Internal: true},
			{ID: "c"},
			{ID: "d"},
			{ID: "e", Exposure: mode(state.PublishLearned)},
			{ID: "f", Exposure: mode(state.PublishDNAT)},
		},
		Endpoints: []state.Endpoint{
			{ID: "1", Network: "d", Exposure: mode(state.PublishLearned)},
			{ID: "2", Network: "c", Exposure: mode(state.PublishLocalhost)},
			{ID: "3", Network: "f"},
		},
	}
	for daemon, want := range map[state.Publish][]state.NetworkID{
		state.PublishDNAT: {"a", "d", "e"},
		state.PublishHost: {"a", "c", "d", "e"},
	} {
		var got []state.NetworkID
		for _, n := range s.ByHost(func(e state.Exposure) state.Publish { return e.Publish.Resolve(daemon) }) {
			got = append(got, n.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("with %s: %v, want %v", daemon, got, want)
		}
	}
}
