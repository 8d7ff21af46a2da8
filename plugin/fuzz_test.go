package plugin

import (
	"context"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/driver"
	"github.com/drawbridge-net/drawbridge/ipam"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// willing is a host that agrees to everything.
type willing struct{}

func (willing) Wait(context.Context, uint64, state.Scope) error { return nil }
func (willing) Release(state.EndpointID, []state.Port)          {}
func (willing) Forwarding(bool) (state.Forwarding, error)       { return state.Forwarding{}, nil }
func (willing) Boot() (string, error)                           { return "boot", nil }
func (willing) ForgetPublished(state.Endpoint, []state.Port)    {}
func (willing) Forget([]netip.Addr)                             {}
func (willing) ForgetPorts([]state.Port)                        {}
func (willing) Settle(context.Context) error                    { return nil }

func (willing) Reserve(_ context.Context, _ state.Endpoint, want []state.PortRequest) ([]state.Port, error) {
	var out []state.Port
	for _, r := range want {
		out = append(out, state.Port{Proto: r.Proto, HostIP: r.HostIP, HostPort: max(r.HostPort, 1), ContainerPort: r.ContainerPort})
	}
	return out, nil
}

func (willing) FitNetwork(_ context.Context, n state.Network) (state.Network, error) { return n, nil }

func (willing) Running(state.Endpoint) bool { return false }

func (willing) Lost(context.Context, []state.Endpoint) ([]state.Endpoint, error) { return nil, nil }

// FuzzRoutes sends any body to any route. The answer is an object or one sentence, and a refused call leaves
// the state as it was.
func FuzzRoutes(f *testing.F) {
	const network, endpoint = "111111111111", "222222222222"
	ids := `"NetworkID":"` + network + `","EndpointID":"` + endpoint + `"`
	create := `{` + ids + `,"Options":{"com.docker.network.generic":{"com.docker.network.driver.mtu":"1400","com.docker.network.bridge.gateway_mode_ipv6":"routed"}},` +
		`"IPv4Data":[{"AddressSpace":"drawbridge","Pool":"10.1.0.0/24","Gateway":"10.1.0.1/24"}],"IPv6Data":[]}`
	attach := `{` + ids + `,"Interface":{"Address":"10.1.0.2/24"},"Options":{"drawbridge.name":"web","drawbridge.link":"db",` +
		`"com.docker.network.endpoint.exposedports":[{"Proto":6,"Port":80}]}}`
	for which, body := range map[int]string{ // by the index of the route
		2: create, 4: attach, 7: `{` + ids + `,"SandboxKey":"/var/run/docker/netns/1"}`,
		9:  `{` + ids + `,"Options":{"com.docker.network.portmap":[{"Proto":6,"Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8090}]}}`,
		17: `{"Pool":"10.3.0.0/24","SubPool":"10.3.0.0/25","Options":{},"V6":false}`, 19: `{"PoolID":"drawbridge/10.2.0.0/24","Address":"10.2.0.9"}`,
		3: `{` + ids + `}`, 5: `null`, 8: `{`, 10: `{}{}`, 20: "",
	} {
		f.Add(which, []byte(body))
	}
	f.Fuzz(func(t *testing.T, which int, body []byte) {
		s, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		d := driver.New(s, willing{}, willing{}, willing{}, willing{}, driver.Options{})
		routes := Routes(d, ipam.New(s, emptyHost{}, nil))
		send := func(path, body string) {
			for _, r := range routes {
				if r.Path == path {
					if _, err := r.handle(t.Context(), []byte(body)); err != nil {
						t.Fatalf("%s: %v", path, err)
					}
				}
			}
		}
		send("/NetworkDriver.CreateNetwork", create)
		send("/NetworkDriver.CreateEndpoint", attach)
		send("/IpamDriver.RequestPool", `{"Pool":"10.2.0.0/24"}`)
		before := s.Snapshot()
		r := routes[(which%len(routes)+len(routes))%len(routes)]
		answer, err := r.handle(t.Context(), body)
		if err == nil {
			if !json.Valid(answer) || answer[0] != '{' {
				t.Errorf("%s %.200q answers %q", r.Path, body, answer)
			}
			return
		}
		if text := err.Error(); strings.Contains(text, "\n") || len(text) > 1000 {
			t.Errorf("%s %.200q: not one sentence: %.2000q", r.Path, body, text)
		}
		if diff := gocmp.Diff(before, s.Snapshot(), gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
			gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s %.200q was refused (%v) and leaves (-before +after):\n%s", r.Path, body, err, diff)
		}
	})
}
