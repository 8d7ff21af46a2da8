package driver

import (
	"context"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

// stage is a part of a script and what the endpoints publish after it.
type stage struct {
	script    string
	published map[int]string
}

// TestSplitGateways plays what Docker 28 and 29 say of the endpoints of one container. 28 revokes from all
// gateways of before whatever they keep, and says no_proxy_6to4 each time; 29 speaks only to those whose role changes,
// and only if the answer is yes.
func TestSplitGateways(t *testing.T) {
	const all, half4, half6 = "*:8080/tcp", "0.0.0.0:8080/tcp", "[::]:8080/tcp"
	split := map[int]string{1: half4, 2: half6}
	tests := []struct {
		name   string
		stages []stage
	}{
		{"29, IPv4-only, then IPv6-only, and back", []stage{
			{"net4:1 end4:1,1 enter:1,1 gateway:1,1", map[int]string{1: all}},
			{"net6:2 end6:2,2 enter:2,2 gateway:2,2", split},
			// 1 is not told, and has nothing on ::1 from now on.
			{"revoke:2,2 leave:2,2 rmend:2,2", map[int]string{1: half4}},
		}},
		{"29, IPv6-only, then IPv4-only, and back", []stage{
			{"net6:2 end6:2,2 enter:2,2 gateway:2,2", map[int]string{2: all}},
			{"net4:1 end4:1,1 enter:1,1 gateway4:1,1", split},
			{"revoke:1,1 leave:1,1 rmend:1,1", map[int]string{2: half6}},
		}},
		{"29, IPv4-only, then dual of lower priority", []stage{
			{"net4:1 end4:1,1 enter:1,1 gateway:1,1", map[int]string{1: all}},
			{"network:2 endpoint:2,2 enter:2,2 gateway:2,2", split},
			{"revoke:1,1 leave:1,1 rmend:1,1 gateway:2,2", map[int]string{2: all}},
		}},
		{"29, dual, then IPv4-only of higher priority", []stage{
			{"network:2 endpoint:2,2 enter:2,2 gateway:2,2", map[int]string{2: all}},
			{"net4:1 end4:1,1 enter:1,1 gateway:2,2 gateway4:1,1", split},
			{"revoke:1,1 leave:1,1 rmend:1,1 gateway:2,2", map[int]string{2: all}},
		}},
		{"29, dual, then IPv6-only of higher priority", []stage{
			{"network:1 endpoint:1,1 enter:1,1 gateway:1,1", map[int]string{1: all}},
			{"net6:2 end6:2,2 enter:2,2 gateway4:1,1", map[int]string{1: half4}},
			{"gateway:2,2", split},
			{"revoke:2,2 leave:2,2 rmend:2,2 gateway:1,1", map[int]string{1: all}},
		}},
		{"29, dual, then dual of higher priority, and back", []stage{
			{"network:1 endpoint:1,1 enter:1,1 gateway:1,1", map[int]string{1: all}},
			{"network:2 endpoint:2,2 enter:2,2 revoke:1,1 gateway:2,2", map[int]string{1: "", 2: all}},
			{"revoke:2,2 leave:2,2 rmend:2,2 gateway:1,1", map[int]string{1: all}},
		}},
		{"29, dual over both halves, and back", []stage{
			{"net4:1 end4:1,1 enter:1,1 gateway:1,1 net6:2 end6:2,2 enter:2,2 gateway:2,2", split},
			{"network:3 endpoint:3,3 enter:3,3 revoke:1,1 revoke:2,2 gateway:3,3", map[int]string{1: "", 2: "", 3: all}},
			{"revoke:3,3 leave:3,3 rmend:3,3 gateway4:1,1 gateway:2,2", split},
		}},
		{"29, the halves move in turn", []stage{
			{"net4:1 end4:1,1 enter:1,1 gateway:1,1 network:2 endpoint:2,2 enter:2,2 gateway:2,2", split},
			{"net4:3 end4:3,3 enter:3,3 revoke:1,1 gateway4:3,3", map[int]string{1: "", 2: half6, 3: half4}},
			{"net6:4 end6:4,4 enter:4,4 revoke:2,2 gateway:4,4", map[int]string{1: "", 2: "", 3: half4, 4: half6}},
			{"revoke:3,3 leave:3,3 rmend:3,3 gateway4:1,1", map[int]string{1: half4, 2: "", 4: half6}},
			{"revoke:4,4 leave:4,4 rmend:4,4 gateway:2,2", split},
		}},
		{"29, the second cannot be had", []stage{
			{"net4:1 end4:1,1 enter:1,1 gateway:1,1 net6:2 end6:2,2 enter:2,2", map[int]string{1: all}},
			{"fails:2,2", map[int]string{1: all, 2: ""}},
			{"leave:2,2 rmend:2,2", map[int]string{1: all}},
		}},
		{"29, the same once more", []stage{
			{"net4:1 end4:1,1 enter:1,1 gateway:1,1 net6:2 end6:2,2 enter:2,2 gateway:2,2", split},
			{"gateway:2,2 gateway4:1,1 gateway:2,2", split},
		}},
		{"28, IPv4-only, then IPv6-only, and back", []stage{
			{"net4:1 end4:1,1 enter:1,1 gateway28:1,1", map[int]string{1: all}},
			{"net6:2 end6:2,2 enter:2,2 revoke:1,1 gateway4:1,1", map[int]string{1: half4}},
			{"gateway28:2,2", split},
			{"revoke:2,2 leave:2,2 rmend:2,2 revoke:1,1 gateway28:1,1", map[int]string{1: all}},
		}},
		{"28, IPv6-only, then IPv4-only, and back", []stage{
			{"net6:2 end6:2,2 enter:2,2 gateway28:2,2", map[int]string{2: all}},
			{"net4:1 end4:1,1 enter:1,1 gateway4:1,1", split},
			{"revoke:1,1 leave:1,1 rmend:1,1", map[int]string{2: half6}},
		}},
		{"28, dual over both halves, and back", []stage{
			{"net6:2 end6:2,2 enter:2,2 gateway28:2,2 net4:1 end4:1,1 enter:1,1 gateway4:1,1", split},
			{"network:3 endpoint:3,3 enter:3,3 revoke:1,1 revoke:2,2 gateway28:3,3", map[int]string{1: "", 2: "", 3: all}},
			{"revoke:3,3 leave:3,3 rmend:3,3 gateway4:1,1 gateway28:2,2", split},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, Options{})
			for i, s := range tt.stages {
				b.run(s.script)
				for e, want := range s.published {
					if got := describe(b.endpoint(e).Ports); got != want {
						t.Errorf("after part %d endpoint %d publishes %q, want %q", i+1, e, got, want)
					}
					if got := describe(b.ports.all()[state.EndpointID(id(e))]); got != want {
						t.Errorf("after part %d endpoint %d holds %q, want %q", i+1, e, got, want)
					}
				}
			}
			b.run("rmnetwork:1 rmnetwork:2 rmnetwork:3 rmnetwork:4")
			b.empty()
		})
	}
}

// halves are the two endpoints of a container, the first of which alone publishes so far.
func halves(t *testing.T) *bench {
	b := newBench(t, Options{})
	b.run("net4:1 end4:1,1 enter:1,1 net6:2 end6:2,2 enter:2,2")
	return b
}

// TestSplitPorts: each sort of port goes where its family is.
func TestSplitPorts(t *testing.T) {
	list := "[" + strings.Join([]string{
		tcp(80, 8080), bound(17, 53, "0.0.0.0", 53, 53), bound(17, 53, "::", 53, 53), bound(6, 1, "192.0.2.9", 1, 1),
		bound(6, 2, "2001:db8::9", 2, 2), bound(6, 3, "127.0.0.1", 3, 3), bound(6, 3, "::1", 3, 3),
	}, ",") + "]"
	const four = "192.0.2.9:1/tcp 127.0.0.1:3/tcp 0.0.0.0:8080/tcp 0.0.0.0:53/udp"
	const six = "[2001:db8::9]:2/tcp [::1]:3/tcp [::]:8080/tcp [::]:53/udp"
	elsewhere := `,"` + optIPv6Elsewhere + `":true`
	for name, order := range map[string]func(*bench) error{
		"IPv4 first": func(b *bench) error { b.ok(b.program(1, 1, list+elsewhere)); return b.program(2, 2, list) },
		"IPv6 again": func(b *bench) error {
			b.ok(b.program(1, 1, list+elsewhere))
			b.ok(b.program(2, 2, list))
			return b.program(2, 2, list)
		},
		"IPv4 again": func(b *bench) error {
			b.ok(b.program(1, 1, list+elsewhere))
			b.ok(b.program(2, 2, list))
			return b.program(1, 1, list+elsewhere)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := halves(t)
			b.ok(order(b))
			if d := cmp.Diff([]string{four, six}, []string{describe(b.endpoint(1).Ports), describe(b.endpoint(2).Ports)}); d != "" {
				t.Errorf("published (-want +got):\n%s", d)
			}
		})
	}
}

// TestSplitEphemeral: what the first was given by chance stays when the other family goes.
func TestSplitEphemeral(t *testing.T) {
	b := halves(t)
	b.ok(b.program(1, 1, "["+tcp(80, 0)+"]"))
	b.ok(b.program(2, 2, "["+tcp(80, 0)+"]"))
	if got := describe(b.endpoint(1).Ports); got != "0.0.0.0:32768/tcp" {
		t.Errorf("the first publishes %q", got)
	}
	if got := describe(b.endpoint(2).Ports); got != "[::]:32768/tcp" {
		t.Errorf("the second publishes %q", got)
	}
}

// TestSiblings: only endpoints that are in the same container now have a say.
func TestSiblings(t *testing.T) {
	const all = "*:9090/tcp"
	tests := []struct {
		name  string
		first func(*bench)
		want  string // what the dual endpoint 3 publishes at 9090
	}{
		{"alone", func(*bench) {}, all},
		{"one that publishes nothing", func(b *bench) { b.run("enter:1,1") }, all},
		{"one that publishes IPv4", func(b *bench) { b.run("enter:1,1 gateway4:1,1") }, "[::]:9090/tcp"},
		{"one that publishes IPv6, which this one takes over", func(b *bench) { b.run("enter:2,2 gateway:2,2") }, all},
		{"another container's", func(b *bench) { b.run("join:1,1 gateway4:1,1") }, all},
		{"one that left", func(b *bench) { b.run("enter:1,1 gateway4:1,1 leave:1,1") }, all},
		{"one that was revoked", func(b *bench) { b.run("enter:1,1 gateway4:1,1 revoke:1,1") }, all},
		{"one that left while the daemon was away", func(b *bench) {
			b.run("enter:1,1 gateway4:1,1")
			b.host.lost = map[state.EndpointID]bool{state.EndpointID(id(1)): true}
		}, all},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, Options{})
			b.run("net4:1 end4:1,1 net6:2 end6:2,2 network:3 endpoint:3,3 enter:3,3")
			tt.first(b)
			b.ok(b.program(3, 3, "["+tcp(80, 9090)+"]"))
			if got := describe(b.endpoint(3).Ports); got != tt.want {
				t.Errorf("published %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("the host cannot say", func(t *testing.T) {
		b := newBench(t, Options{})
		b.run("net4:1 end4:1,1 enter:1,1 gateway4:1,1 network:3 endpoint:3,3 enter:3,3")
		before := b.everything()
		b.host.noLost = errHost
		refused(t, b.program(3, 3, "["+tcp(80, 9090)+"]"), errHost.Error())
		b.same(before)
	})
}

// TestSplitFlows: who is connected by the family that a sibling gives up is cut, nobody else.
func TestSplitFlows(t *testing.T) {
	b := newBench(t, Options{})
	b.run("network:1 endpoint:1,1 enter:1,1 gateway:1,1 net4:2 end4:2,2 enter:2,2")
	b.flows.forgotten()
	b.run("gateway4:2,2")
	if addrs, closed := b.flows.forgotten(); len(addrs) > 0 || closed != "0.0.0.0:8080/tcp" {
		t.Errorf("flows of %v and by %q are forgotten", addrs, closed)
	}
	b.run("gateway:1,1 gateway4:2,2") // nothing changes hands any more
	if addrs, closed := b.flows.forgotten(); len(addrs) > 0 || closed != "" {
		t.Errorf("flows of %v and by %q are forgotten the second time", addrs, closed)
	}
}

// TestSplitRouted: a port that is only opened is given up like others.
func TestSplitRouted(t *testing.T) {
	b := newBench(t, Options{})
	b.ok(b.CreateNetwork(b.ctx(), createNetwork(t, 1, `{"com.docker.network.enable_ipv6": true, "com.docker.network.generic": {
		"com.docker.network.bridge.gateway_mode_ipv4": "routed", "com.docker.network.bridge.gateway_mode_ipv6": "routed"}}`, pool4(1), pool6(1))))
	b.run("endpoint:1,1 enter:1,1 gateway:1,1 net4:2 end4:2,2 enter:2,2 gateway4:2,2")
	if got := b.endpoint(1).Ports; len(got) != 1 || !got[0].Routed() || !got[0].HostIP.Is6() {
		t.Errorf("the routed one publishes %v", got)
	}
	if got := describe(b.endpoint(2).Ports); got != "0.0.0.0:8080/tcp" {
		t.Errorf("the other one publishes %q", got)
	}
}

// TestSplitFailures: whichever step fails, the endpoints publish what they did before.
func TestSplitFailures(t *testing.T) {
	for name, fail := range map[string]func(*bench){
		"the port cannot be had":                   func(b *bench) { b.ports.err = errHost },
		"what the sibling gives up stays open":     func(b *bench) { b.loop.fail = []error{errHost} },
		"what comes in its place cannot be opened": func(b *bench) { b.loop.fail = []error{nil, errHost} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Options{})
			b.run("network:1 endpoint:1,1 enter:1,1 gateway:1,1 net4:2 end4:2,2 enter:2,2")
			before := b.everything()
			fail(b)
			err := b.program(2, 2, "["+tcp(80, 8080)+`],"`+optIPv6Elsewhere+`":true`)
			b.ports.err, b.loop.fail = nil, nil
			if err == nil || !strings.Contains(err.Error(), errHost.Error()) {
				t.Errorf("error %v", err)
			}
			b.run("info:1,1")
			b.same(before)
			b.run("leave:2,2 rmend:2,2 rmnetwork:1 rmnetwork:2")
			b.empty()
		})
	}
}

// TestSiblingGoes: an endpoint that is removed while its sibling is programmed is no reason to fail.
func TestSiblingGoes(t *testing.T) {
	b := newBench(t, Options{})
	b.run("net4:1 end4:1,1 enter:1,1 gateway:1,1 net6:2 end6:2,2 enter:2,2")
	b.Driver.host = leaving{b.host, b}
	b.run("gateway:2,2")
	if got := describe(b.endpoint(2).Ports); got != "*:8080/tcp" {
		t.Errorf("published %q", got)
	}
}

// leaving is a host on which network 1 goes while it is asked.
type leaving struct {
	*fakeHost
	b *bench
}

func (l leaving) Lost(ctx context.Context, endpoints []state.Endpoint) ([]state.Endpoint, error) {
	l.b.ok(l.b.DeleteNetwork(ctx, &network.DeleteNetworkRequest{NetworkID: id(1)}))
	return l.fakeHost.Lost(ctx, endpoints)
}
