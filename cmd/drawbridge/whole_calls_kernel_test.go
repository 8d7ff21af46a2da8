//go:build kernel

package main

import (
	"fmt"
	"maps"
	"slices"

	"pgregory.net/rapid"
)

// caller draws the calls of an engine that now and then does what none would.
type caller struct {
	*rapid.T
	networks  map[int]families // that there are
	endpoints map[int]int      // that there are, and their networks
}

type families struct{ v4, v6 bool }

// restart stands for a daemon that is killed and started again, among the calls.
const restart = "restart"

// call is a call of dockerd's; done notes that it succeeded.
type call struct {
	name string
	args map[string]any
	done func()
}

// calls by how often they are drawn.
var calls = []string{
	"CreateNetwork", "CreateNetwork", "CreateNetwork", "CreateNetwork",
	"CreateEndpoint", "CreateEndpoint", "CreateEndpoint", "CreateEndpoint", "CreateEndpoint", "CreateEndpoint",
	"Join", "Join",
	"ProgramExternalConnectivity", "ProgramExternalConnectivity", "ProgramExternalConnectivity", "ProgramExternalConnectivity",
	"ProgramExternalConnectivity", "ProgramExternalConnectivity", "ProgramExternalConnectivity",
	"RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "DeleteEndpoint", "DeleteNetwork", restart,
}

// How many objects the calls are about: few, so that calls meet.
const (
	maxNetworks  = 3
	maxEndpoints = 6
)

func networkID(n int) string  { return fmt.Sprintf("%012d%052d", n+1, 0) }
func endpointID(e int) string { return fmt.Sprintf("e%010d%053d", e+1, 0) }

// anyOf draws one of the values, each as often as any other, which rapid.SampledFrom does not.
func anyOf[T any](t *rapid.T, label string, values ...T) T {
	i := 0
	for _, bit := range rapid.SliceOfN(rapid.Bool(), 8, 8).Draw(t, label) {
		i *= 2
		if bit {
			i++
		}
	}
	return values[i%len(values)]
}

func (e caller) seldom(label string) bool {
	return anyOf(e.T, label, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1) == 1
}

func (e caller) draw() call {
	name := e.sensible(anyOf(e.T, "call", calls...))
	switch name {
	case restart:
		return call{name: name}
	case "CreateNetwork":
		return e.createNetwork()
	case "DeleteNetwork":
		n := e.known("network", maxNetworks, slices.Sorted(maps.Keys(e.networks)))
		return call{name, map[string]any{"NetworkID": networkID(n)}, func() {
			delete(e.networks, n)
			maps.DeleteFunc(e.endpoints, func(_, of int) bool { return of == n })
		}}
	case "CreateEndpoint":
		return e.createEndpoint()
	}
	id := e.known("endpoint", maxEndpoints, slices.Sorted(maps.Keys(e.endpoints)))
	n := e.endpoints[id]
	if e.seldom("of another network") {
		n = (n + 1) % maxNetworks
	}
	c := call{name, map[string]any{"NetworkID": networkID(n), "EndpointID": endpointID(id)}, func() {}}
	switch name {
	case "Join":
		c.args["SandboxKey"] = anyOf(e.T, "sandbox", "/var/run/docker/netns/0123", "/var/run/docker/netns/4567", "/var/run/docker/netns/89ab")
		if e.seldom("no sandbox") {
			c.args["SandboxKey"] = ""
		}
		c.args["Options"] = map[string]any{"com.docker.network.endpoint.exposedports": e.exposed()}
	case "ProgramExternalConnectivity":
		c.args["Options"] = map[string]any{"com.docker.network.portmap": e.portMap()}
	case "DeleteEndpoint":
		c.done = func() { delete(e.endpoints, id) }
	}
	return c
}

// sensible puts off most calls that are about something that is not there yet.
func (e caller) sensible(name string) string {
	switch {
	case name == restart || name == "CreateNetwork" || e.seldom("too early"):
	case len(e.networks) == 0:
		return "CreateNetwork"
	case len(e.endpoints) == 0:
		return "CreateEndpoint"
	}
	return name
}

// known draws an object, most often one that there is.
func (e caller) known(what string, among int, known []int) int {
	if len(known) > 0 && !e.seldom("unknown "+what) {
		return anyOf(e.T, what, known...)
	}
	return anyOf(e.T, what, 0, 1, 2, 3, 4, 5) % among
}

// networkOptions are values for each option.
var networkOptions = map[string][]string{
	"com.docker.network.bridge.name":                    {"bra", "brb"},
	"com.docker.network.driver.mtu":                     {"0", "1400", "9000"},
	"com.docker.network.bridge.enable_ip_masquerade":    {"true", "false"},
	"com.docker.network.host_ipv4":                      {"192.0.2.1", "192.0.2.7"},
	"com.docker.network.host_ipv6":                      {"2001:db8::1", "2001:db8::7"},
	"com.docker.network.bridge.host_binding_ipv4":       {"0.0.0.0", "::", "192.0.2.1", "127.0.0.1", "2001:db8::1"},
	"com.docker.network.bridge.gateway_mode_ipv4":       {"nat", "nat-unprotected", "routed", "routed", "isolated"},
	"com.docker.network.bridge.gateway_mode_ipv6":       {"nat", "nat-unprotected", "routed", "routed", "isolated"},
	"com.docker.network.bridge.inhibit_ipv4":            {"true", "true", "false"},
	"com.docker.network.bridge.trusted_host_interfaces": {"eth0", "eth0:lan0"},
	"com.docker.network.container_iface_prefix":         {"net", "web"},
}

// badOptions are refused.
var badOptions = [][2]string{
	{"com.docker.network.bridge.name", "eth0"},
	{"com.docker.network.bridge.name", "docker0"},
	{"com.docker.network.bridge.name", "much-too-long-a-name"},
	{"com.docker.network.driver.mtu", "many"},
	{"com.docker.network.bridge.enable_icc", "perhaps"},
	{"com.docker.network.host_ipv4", "fd00::1"},
	{"com.docker.network.bridge.host_binding_ipv4", "224.0.0.1"},
	{"com.docker.network.bridge.trusted_host_interfaces", "a b"},
	{"com.docker.network.container_iface_prefix", "much-too-long-a-name"},
	{"com.docker.network.bridge.unknown", "1"},
}

func (e caller) createNetwork() call {
	n := anyOf(e.T, "network", 0, 1, 2)
	generic := map[string]string{}
	keys := slices.Sorted(maps.Keys(networkOptions))
	for range anyOf(e.T, "options", 0, 1, 2, 3, 4) {
		key := anyOf(e.T, "option", keys...)
		generic[key] = anyOf(e.T, key, networkOptions[key]...)
	}
	if n == 2 && !e.seldom("not on the bridge that is there") {
		generic["com.docker.network.bridge.name"] = lanName
	}
	if anyOf(e.T, "apart", true, false) {
		generic["com.docker.network.bridge.enable_icc"] = "false"
	}
	if e.seldom("bad option") {
		bad := anyOf(e.T, "bad option", badOptions...)
		generic[bad[0]] = bad[1]
	}
	with := e.families()
	args := map[string]any{
		"NetworkID": networkID(n),
		"Options": map[string]any{
			"com.docker.network.generic":     generic,
			"com.docker.network.internal":    anyOf(e.T, "internal", false, false, false, false, true),
			"com.docker.network.enable_ipv4": with.v4,
			"com.docker.network.enable_ipv6": with.v6,
		},
	}
	if with.v4 {
		args["IPv4Data"] = []any{e.pool4(n)}
	}
	if with.v6 {
		args["IPv6Data"] = []any{map[string]any{"Pool": fmt.Sprintf("fd00:%d::/64", n), "Gateway": fmt.Sprintf("fd00:%d::1/64", n)}}
	}
	return call{"CreateNetwork", args, func() { e.networks[n] = with }}
}

func (e caller) families() families {
	both := families{true, true}
	return anyOf(e.T, "families", both, both, both, both, both, both, families{v4: true}, families{v6: true})
}

func (e caller) pool4(n int) map[string]any {
	pool := map[string]any{"Pool": fmt.Sprintf("10.%d.0.0/24", n), "Gateway": fmt.Sprintf("10.%d.0.1/24", n)}
	switch {
	case e.seldom("overlap"):
		pool["Pool"] = "10.0.0.0/8"
	case e.seldom("no gateway"):
		delete(pool, "Gateway")
	case e.seldom("router"):
		pool["AuxAddresses"] = map[string]any{"DefaultGatewayIPv4": fmt.Sprintf("10.%d.0.254/24", n)}
	}
	return pool
}

var names = []string{"db", "web", "cache"}

func (e caller) createEndpoint() call {
	n := e.known("network", maxNetworks, slices.Sorted(maps.Keys(e.networks)))
	id := anyOf(e.T, "endpoint", 0, 1, 2, 3, 4, 5)
	link := map[string]any{}
	last := id + 2
	if e.seldom("gateway's address") {
		last = 1
	}
	with, ok := e.networks[n]
	if !ok || e.seldom("families of its own") {
		with = e.families()
	}
	if with.v4 {
		link["Address"] = fmt.Sprintf("10.%d.0.%d/24", n, last)
	}
	if with.v6 {
		link["AddressIPv6"] = fmt.Sprintf("fd00:%d::%d/64", n, last)
	}
	if e.seldom("MAC") {
		link["MacAddress"] = anyOf(e.T, "MAC address", "02:00:00:00:00:07", "01:00:00:00:00:07", "x")
	}
	options := map[string]any{"com.docker.network.endpoint.exposedports": e.exposed()}
	if anyOf(e.T, "named", true, true, true, false) {
		options["drawbridge.name"] = names[id%len(names)]
	}
	if anyOf(e.T, "linked", true, true, false) {
		options["drawbridge.link"] = anyOf(e.T, "links", "db", "db", "web,cache", "db,web", "cache", "db,db", "nobody")
	}
	if e.seldom("unknown option") {
		options[anyOf(e.T, "key", "drawbridge.lnik", "drawbridge.link")] = " "
	}
	args := map[string]any{"NetworkID": networkID(n), "EndpointID": endpointID(id), "Interface": link, "Options": options}
	return call{"CreateEndpoint", args, func() { e.endpoints[id] = n }}
}

func (e caller) exposed() []any {
	ports := []any{}
	for _, p := range []int{80, 81} {
		if rapid.Bool().Draw(e.T, "exposed") {
			ports = append(ports, map[string]any{"Proto": 6, "Port": p})
		}
	}
	return ports
}

func (e caller) portMap() []any {
	ports := []any{}
	for range anyOf(e.T, "ports", 0, 1, 1, 2, 3) {
		host := anyOf(e.T, "host port", 0, 8080, 8081, 8082, 8083, 8084)
		p := map[string]any{
			"Proto":       anyOf(e.T, "proto", 6, 6, 6, 17, 17, 132),
			"Port":        anyOf(e.T, "port", 80, 81),
			"HostIP":      anyOf(e.T, "host address", "", "", "", "", "0.0.0.0", "::", "127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"),
			"HostPort":    host,
			"HostPortEnd": host,
		}
		switch {
		case host != 0 && e.seldom("range"):
			p["HostPortEnd"] = 8090
		case e.seldom("bad port"):
			p["Proto"] = 33
		case e.seldom("bad address"):
			p["HostIP"] = anyOf(e.T, "bad host address", "192.0.2.99", "x")
		}
		ports = append(ports, p)
	}
	return ports
}
