package driver

import (
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"
)

// TestCreateEndpointAnswer: what the engine gave must not come back, and a MAC address must
// be given where it gave none.
func TestCreateEndpointAnswer(t *testing.T) {
	tests := []struct {
		name, v4, v6, mac string
		given             bool // the engine gave the MAC address
	}{
		{"dual", "10.1.0.2/24", "fd00:1::2/64", "", false},
		{"IPv4 only", "10.1.0.2/24", "", "", false},
		{"IPv6 only", "", "fd00:1::2/64", "", false},
		{"static MAC", "10.1.0.2/24", "fd00:1::2/64", "02:42:ac:11:00:02", true},
		{"static MAC in another form", "10.1.0.2/24", "", "02-42-AC-11-00-02", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, Options{})
			b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
			r, err := b.CreateEndpoint(b.ctx(), createEndpoint(t, 1, 1, tt.v4, tt.v6, tt.mac))
			b.ok(err)
			stored := b.endpoint(1)
			want := network.EndpointInterface{MacAddress: stored.MAC.String()}
			if tt.given {
				want.MacAddress = ""
				if stored.MAC.String() != "02:42:ac:11:00:02" {
					t.Errorf("stored MAC %s", stored.MAC)
				}
			} else if stored.MAC != defaultMAC(stored) {
				t.Errorf("MAC %s is not the endpoint's own", stored.MAC)
			}
			if d := cmp.Diff(want, *r.Interface); d != "" {
				t.Errorf("answer (-want +got):\n%s", d)
			}
			if stored.Addr4.IsValid() != (tt.v4 != "") || stored.Addr6.IsValid() != (tt.v6 != "") || stored.Joined() || stored.Ports != nil {
				t.Errorf("stored %+v", stored)
			}
		})
	}
}

func TestCreateEndpointRefuses(t *testing.T) {
	long := strings.Repeat("9", 100_000)
	tests := []struct {
		name, v4, v6, mac string
		want              string
	}{
		{"no address", "", "", "", "has no address: create the network with --ipam-driver drawbridge"},
		{"address without a length", "10.1.0.9", "", "", `address "10.1.0.9" is malformed`},
		{"address a word", "ten", "", "", "is malformed"},
		{"address oversized", long, "", "", "is malformed"},
		{"families swapped", "fd00:1::9/64", "10.1.0.9/24", "", "is malformed"},
		{"mapped", "", "::ffff:10.1.0.9/120", "", "is malformed"},
		{"zone", "", "fe80::9%eth0/64", "", "is malformed"},
		{"outside the subnet", "10.2.0.9/24", "", "", "address 10.2.0.9 is outside the network's subnet 10.1.0.0/24"},
		{"outside the subnet, IPv6", "10.1.0.9/24", "fd00:2::9/64", "", "address fd00:2::9 is outside the network's subnet fd00:1::/64"},
		{"the gateway", "10.1.0.1/24", "", "", "is the network's gateway"},
		{"the gateway, IPv6", "", "fd00:1::1/64", "", "is the network's gateway"},
		{"address of endpoint 1", "10.1.0.2/24", "", "", "address 10.1.0.2 is in use by endpoint " + id(1)[:12]},
		{"address of endpoint 1, IPv6", "10.1.0.9/24", "fd00:1::2/64", "", "address fd00:1::2 is in use by endpoint " + id(1)[:12]},
		{"MAC a word", "10.1.0.9/24", "", "mac", `MAC address "mac" is malformed`},
		{"MAC of 8 octets", "10.1.0.9/24", "", "02:42:ac:11:00:02:03:04", "is malformed"},
		{"MAC multicast", "10.1.0.9/24", "", "01:42:ac:11:00:02", "first octet must be even"},
		{"MAC zero", "10.1.0.9/24", "", "00:00:00:00:00:00", "must not be all zero"},
	}
	b := furnished(t)
	before := b.everything()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := b.CreateEndpoint(b.ctx(), createEndpoint(t, 1, 2, tt.v4, tt.v6, tt.mac))
			refused(t, err, tt.want)
		})
	}
	t.Run("no interface", func(t *testing.T) {
		_, err := b.CreateEndpoint(b.ctx(), parse[network.CreateEndpointRequest](t, `{"NetworkID": "`+id(1)+`", "EndpointID": "`+id(2)+`", "Interface": null}`))
		refused(t, err, "no interface: create the network with --ipam-driver drawbridge")
	})
	t.Run("other settings", func(t *testing.T) {
		_, err := b.CreateEndpoint(b.ctx(), createEndpoint(t, 1, 1, "10.1.0.9/24", "", ""))
		refused(t, err, "exists already with other settings")
	})
	t.Run("on two networks", func(t *testing.T) {
		b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 2)))
		_, err := b.CreateEndpoint(b.ctx(), newEndpoint(t, 2, 1))
		refused(t, err, "exists already with other settings")
		b.ok(b.deleteNetwork(2))
	})
	b.same(before)
}

// TestUnknownEndpointOptions: each is refused with a hint that does not mislead.
func TestUnknownEndpointOptions(t *testing.T) {
	const listed = "is unknown: `drawbridge options` lists those of containers"
	tests := map[string]string{
		"drawbridge.color":                            listed,
		"drawbridge.lnk":                              "did you mean drawbridge.link?",
		"com.docker.network.endpoint.sysctl":          "did you mean com.docker.network.endpoint.sysctls?",
		"com.docker.network.ifname":                   "did you mean com.docker.network.endpoint.ifname?",
		"com.docker.network.bridge.enable_icc":        "is an option of networks: give it to `docker network create -o com.docker.network.bridge.enable_icc=…`",
		"com.docker.network.bridge.host_binding_ipv4": "is an option of networks",
		"com.docker.network.driver.mtu":               "is an option of networks",
		"com.docker.network.enable_icc":               "did you mean com.docker.network.bridge.enable_icc, an option of networks",
		"com.docker.network.internal":                 "docker network create has a flag for it",
		"drawbridge." + strings.Repeat("x", 10_000):   listed,
	}
	b := furnished(t)
	before := b.everything()
	for key, want := range tests {
		t.Run(key[:min(len(key), 50)], func(t *testing.T) {
			r := newEndpoint(t, 1, 2)
			r.Options[key] = "true"
			_, err := b.CreateEndpoint(b.ctx(), r)
			refused(t, err, want)
		})
	}
	t.Run("not a string", func(t *testing.T) {
		r := newEndpoint(t, 1, 2)
		r.Options["drawbridge.name"] = 7
		_, err := b.CreateEndpoint(b.ctx(), r)
		refused(t, err, "option drawbridge.name must be a string")
	})
	b.same(before)
}

// TestNewerEngineOptions: what resembles no key may be one of an engine to come.
func TestNewerEngineOptions(t *testing.T) {
	b := newBench(t, Options{})
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	r := newEndpoint(t, 1, 2)
	r.Options["com.docker.network.endpoint.bogus"] = "true"
	r.Options["com.docker.network."+strings.Repeat("x", 10_000)] = "true"
	_, err := b.CreateEndpoint(b.ctx(), r)
	b.ok(err)
}

// TestEngineOptions lets through what engines and compose files send with an endpoint.
func TestEngineOptions(t *testing.T) {
	b := newBench(t, Options{})
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	r := newEndpoint(t, 1, 1)
	for key, value := range map[string]any{
		"com.docker.network.endpoint.macaddress": "AkKsEQAC",
		"com.docker.network.endpoint.dnsservers": []any{"9.9.9.9"},
		"com.docker.network.endpoint.sysctls":    "net.ipv4.conf.IFNAME.log_martians=1",
		"com.docker.network.endpoint.name":       "web",
		"com.docker.network.of.tomorrow":         map[string]any{},
		"com.docker.network.driver.private.x":    "of the engine's parts",
		"org.example.color":                      nil,
	} {
		r.Options[key] = value
	}
	_, err := b.CreateEndpoint(b.ctx(), r)
	b.ok(err)
	r = newEndpoint(t, 1, 2)
	r.Options = nil
	_, err = b.CreateEndpoint(b.ctx(), r)
	b.ok(err)
}

func TestJoinAnswer(t *testing.T) {
	tests := []struct {
		name, options, v4, v6 string
		want                  network.JoinResponse
	}{
		{"dual", `{}`, "10.1.0.2/24", "fd00:1::2/64", network.JoinResponse{Gateway: "10.1.0.1", GatewayIPv6: "fd00:1::1"}},
		{"IPv4 only", `{}`, "10.1.0.2/24", "", network.JoinResponse{Gateway: "10.1.0.1"}},
		// A gateway of a family that the endpoint lacks would end the start of the container.
		{"IPv6 only", `{}`, "", "fd00:1::2/64", network.JoinResponse{GatewayIPv6: "fd00:1::1"}},
		{"internal", `{"com.docker.network.internal": true}`, "10.1.0.2/24", "fd00:1::2/64", network.JoinResponse{DisableGatewayService: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, Options{})
			b.ok(b.CreateNetwork(b.ctx(), createNetwork(t, 1, tt.options, pool4(1), pool6(1))))
			_, err := b.CreateEndpoint(b.ctx(), createEndpoint(t, 1, 1, tt.v4, tt.v6, ""))
			b.ok(err)
			tt.want.InterfaceName = network.InterfaceName{SrcName: "dbr" + id(1)[:12], DstPrefix: "eth"}
			if d := cmp.Diff(&tt.want, b.join(1, 1)); d != "" {
				t.Errorf("answer (-want +got):\n%s", d)
			}
			if got := b.endpoint(1).Sandbox; got != sandbox(1) {
				t.Errorf("sandbox %q", got)
			}
		})
	}
	t.Run("no sandbox", func(t *testing.T) {
		b := furnished(t)
		before := b.everything()
		_, err := b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(1), EndpointID: id(1)})
		refused(t, err, "no sandbox")
		b.same(before)
	})
}
