package link

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// FuzzParseAdoption: what the alias of an adopted bridge says is written as it was read, and of what no
// network of ours wrote nothing harms the owner: his alias comes back whole, and only what can be an address is taken off.
func FuzzParseAdoption(f *testing.F) {
	id := state.NetworkID(strings.Repeat("1", 64))
	f.Add(adoptedPrefix + string(id) + " 10.1.0.1/24,fd00::1/64,ipv6: uplink: of the lab")
	f.Add(adoptedPrefix + string(id) + " -: ")
	f.Add(adoptedPrefix + " ,10.1.0.1,fe80::1%x/64,::ffff:10.0.0.1/100")
	f.Add("drawbridge network " + string(id))
	f.Add(state.Endpoint{ID: state.EndpointID(id), Network: id}.Alias())
	f.Fuzz(func(t *testing.T, alias string) {
		whole := adoption{network: id, before: alias}
		if again, ok := parseAdoption(whole.String()); !ok || again.before != alias || again.network != id || len(again.added) > 0 || again.ipv6 {
			t.Errorf("alias %q, kept as %q, is given back as %+v", alias, whole.String(), again)
		}
		a, ok := parseAdoption(alias)
		if ok != strings.HasPrefix(alias, adoptedPrefix) {
			t.Errorf("%q is the mark of an adopted bridge: %t", alias, ok)
		}
		if !ok {
			return
		}
		for _, p := range a.added {
			if !p.IsValid() || p.Addr().Zone() != "" {
				t.Errorf("%q names address %s", alias, p)
			}
		}
		again, ok := parseAdoption(a.String())
		if !ok || again.network != a.network || again.before != a.before || again.ipv6 != a.ipv6 || !slices.Equal(again.added, a.added) {
			t.Errorf("%q is %+v, written as %q, and %+v", alias, a, a.String(), again)
		}
	})
}
