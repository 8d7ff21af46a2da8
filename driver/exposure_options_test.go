package driver

import (
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// exposed is the endpoint 2 of network 1 with options.
func (b *bench) exposed(options map[string]any) error {
	r := newEndpoint(b.t, 1, 2)
	r.Options = options
	_, err := b.CreateEndpoint(b.ctx(), r)
	return err
}

func TestEndpointExposure(t *testing.T) {
	options := map[string]any{"drawbridge.publish": "localhost", "drawbridge.publish.from": "192.0.2.7", "drawbridge.publish.iface": "eth0"}
	b := furnished(t)
	b.ok(b.exposed(options))
	b.ok(b.exposed(options))
	want := state.Exposure{Publish: state.PublishLocalhost, From: "192.0.2.7/32", Links: "eth0"}
	if got := b.endpoint(2).Exposure; got != want {
		t.Errorf("endpoint has %+v, not %+v", got, want)
	}
	for key, other := range map[string]string{"drawbridge.publish": "dnat", "drawbridge.publish.from": "192.0.2.8", "drawbridge.publish.iface": "eth1"} {
		before := options[key]
		options[key] = other
		refused(t, b.exposed(options), "exists already with other settings")
		options[key] = before
	}
	refused(t, b.exposed(map[string]any{"drawbridge.publish": "open"}), `drawbridge.publish: "open" is not one of auto, dnat, host, learned, localhost`)
	refused(t, b.exposed(map[string]any{"drawbridge.publish.from": "all"}), `drawbridge.publish.from: "all" is no prefix`)
	refused(t, b.exposed(map[string]any{"drawbridge.publish.iface": "eth0;eth1"}), "drawbridge.publish.iface: link name")
	refused(t, b.exposed(map[string]any{"drawbridge.publish.iface": ","}), "drawbridge.publish.iface: the name of a link must not be empty")
}

// TestExposureSeparators: a list of links is written as one of prefixes may be.
func TestExposureSeparators(t *testing.T) {
	for _, links := range []string{"eth0:wg0", "eth0,wg0", "eth0 wg0", " eth0, wg0"} {
		b := furnished(t)
		b.ok(b.exposed(map[string]any{"drawbridge.publish.iface": links, "drawbridge.publish.from": "192.0.2.0/24 2001:db8::/32"}))
		want := state.Exposure{From: "192.0.2.0/24,2001:db8::/32", Links: "eth0:wg0"}
		if got := b.endpoint(2).Exposure; got != want {
			t.Errorf("%q: endpoint has %+v, not %+v", links, got, want)
		}
	}
}

// TestExposureOfRouted: no INPUT rule is asked about what is routed to a container.
func TestExposureOfRouted(t *testing.T) {
	b := newBench(t, Options{})
	const routed = `{"com.docker.network.generic": {"com.docker.network.bridge.gateway_mode_ipv6": "routed"}}`
	b.ok(b.CreateNetwork(b.ctx(), createNetwork(t, 1, routed, pool4(1), pool6(1))))
	refused(t, b.exposed(map[string]any{"drawbridge.publish": "host"}), "not possible with gateway mode routed")
	b.ok(b.exposed(map[string]any{"drawbridge.publish": "auto", "drawbridge.publish.from": "2001:db8::/32"}))
}

// TestLimitsNeedRules: without a firewall nobody would keep them.
func TestLimitsNeedRules(t *testing.T) {
	b := newBench(t, Options{NoRules: true})
	for _, option := range []string{`"drawbridge.publish.from": "192.0.2.7"`, `"drawbridge.publish.iface": "eth0"`} {
		refused(t, b.CreateNetwork(b.ctx(), createNetwork(t, 1, generic("{"+option+"}"), pool4(1), `null`)), "start the daemon without the flag")
	}
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	refused(t, b.exposed(map[string]any{"drawbridge.publish.from": "192.0.2.7"}), "start the daemon without the flag")
	b.ok(b.exposed(map[string]any{"drawbridge.publish": "localhost"}))

	b = newBench(t, Options{NoRules6: true})
	const limit = `{"drawbridge.publish.from": "192.0.2.7"}`
	refused(t, b.CreateNetwork(b.ctx(), createNetwork(t, 1, `{"com.docker.network.generic": `+limit+`}`, pool4(1), pool6(1))), "--ip6tables=false: leave them out")
	b.ok(b.CreateNetwork(b.ctx(), createNetwork(t, 1, generic(limit), pool4(1), `null`)))
}

// TestSCTPByTheHost: who asks for a socket is told that there is none for SCTP; who leaves the mode to others is not.
func TestSCTPByTheHost(t *testing.T) {
	list := "[" + bound(132, 3868, "", 3868, 3868) + "]"
	for mode, want := range map[string]string{
		"host":    "container port 3868/sctp cannot be published with drawbridge.publish=host, since no socket of the host can serve SCTP: give the container drawbridge.publish=dnat",
		"learned": "drawbridge.publish=learned", "auto": "", "dnat": "", "localhost": "",
	} {
		for _, of := range []string{"network", "endpoint"} {
			t.Run(mode+" of the "+of, func(t *testing.T) {
				b := newBench(t, Options{})
				network, endpoint := generic(`{"drawbridge.publish": "`+mode+`"}`), map[string]any{"drawbridge.publish": mode}
				if of == "network" {
					endpoint = nil
				} else {
					network = generic(`{"drawbridge.publish": "learned"}`)
				}
				b.ok(b.CreateNetwork(b.ctx(), createNetwork(t, 1, network, pool4(1), `null`)))
				r := newEndpoint(t, 1, 2)
				r.Options, r.Interface.AddressIPv6 = endpoint, ""
				_, err := b.CreateEndpoint(b.ctx(), r)
				b.ok(err)
				b.join(1, 2)
				err = b.program(1, 2, list)
				if want == "" {
					b.ok(err)
					return
				}
				refused(t, err, want)
				b.ok(b.program(1, 2, "["+tcp(80, 8080)+"]"))
			})
		}
	}
}
