package state_test

import (
	"cmp"
	"slices"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

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
		for _, n := range s.ByHost(func(e state.Exposure) state.Publish { return cmp.Or(e.Publish, daemon) }) {
			got = append(got, n.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("with %s: %v, want %v", daemon, got, want)
		}
	}
}
