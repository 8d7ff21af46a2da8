package state

import (
	"net/netip"
	"testing"
)

func TestKnownEndpoint(t *testing.T) {
	k := NewKnown()
	k.Networks["web"], k.Networks["big"] = true, true
	k.Inspected["web"], k.Inspected["gone"] = true, true
	k.Endpoints["e1"] = true
	for name, c := range map[string]struct {
		e    Endpoint
		want bool
	}{
		"known":                             {Endpoint{ID: "e1", Network: "web"}, true},
		"missing":                           {Endpoint{ID: "e2", Network: "web"}, false},
		"network that was not looked into":  {Endpoint{ID: "e2", Network: "big"}, true},
		"network that is missing":           {Endpoint{ID: "e1", Network: "gone"}, false},
		"network missing and not looked at": {Endpoint{ID: "e1", Network: "other"}, false},
	} {
		if got := k.HasEndpoint(c.e); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestKnownPool(t *testing.T) {
	k := NewKnown()
	for _, p := range []string{"10.1.0.0/24", "0.0.0.0/26", "fd00::/64"} {
		k.Subnets[netip.MustParsePrefix(p)] = true
	}
	for prefix, want := range map[string]bool{
		"10.1.0.0/24": true, "fd00::/64": true,
		"10.2.0.0/24": false, "fd01::/64": false,
		"10.9.0.64/26": true, // of the network that named no more than a size
		"fd02::/26":    false,
	} {
		if got := k.HasPool(Pool{Prefix: netip.MustParsePrefix(prefix)}); got != want {
			t.Errorf("%s: %t", prefix, got)
		}
	}
}

// TestSeenIsNoChange: what means nothing to the host is no work for it.
func TestSeenIsNoChange(t *testing.T) {
	from := Snapshot{Networks: []Network{{ID: "web", Bridge: "br-web"}}}
	to := Snapshot{Networks: []Network{{ID: "web", Bridge: "br-web", Seen: true}}}
	if c := Compare(from, to); len(c.Networks) > 0 {
		t.Errorf("%v differ", c.Networks)
	}
}
