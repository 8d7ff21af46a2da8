//go:build engine

package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// project is what people write: each option once.
const project = `
version: "2.4"
services:
  web:
    image: lab:latest
    command: ["/probe", "serve", "-name", "web", "tcp", ":80", ":81", ":82"]
    ports: ["8080:80", "8081-8082:81-82", "127.0.0.1:8090:80", "198.51.100.1:8091:80", "[2001:db8:1::1]:8092:80"]
    networks:
      front: {aliases: [www], ipv4_address: 10.81.0.80, ipv6_address: "fd81::80"}
      back: {aliases: [api]}
  names:
    image: lab:latest
    command: ["/probe", "serve", "-name", "names", "udp", ":53"]
    ports: ["5353:53/udp"]
    expose: ["53/udp"]
    networks: [front]
  db:
    image: lab:latest
    command: ["/probe", "serve", "-name", "db", "tcp", ":80"]
    expose: ["80"]
    networks:
      back: {ipv4_address: 10.82.0.9}
  worker:
    image: lab:latest
    command: ["/probe", "serve", "tcp", ":80"]
    ports: ["80"]
    networks: [front, back]
networks:
  front:
    driver: drawbridge
    enable_ipv6: true
    driver_opts:
      com.docker.network.bridge.name: front0
      com.docker.network.driver.mtu: "1400"
      com.docker.network.bridge.enable_icc: "false"
      com.docker.network.bridge.host_binding_ipv4: 198.51.100.1
      com.docker.network.container_iface_prefix: lan
    ipam:
      driver: drawbridge
      config:
        - {subnet: 10.81.0.0/24, ip_range: 10.81.0.128/25, gateway: 10.81.0.254, aux_addresses: {nas: 10.81.0.128}}
        - {subnet: "fd81::/64"}
  back:
    driver: drawbridge
    internal: true
    ipam:
      driver: drawbridge
      config: [{subnet: 10.82.0.0/24}]
`

// TestCompose brings a project up and down; everything in it is by names, as the user has them.
func TestCompose(t *testing.T) {
	b := up(t, options{before: func(h *lab.Host) {
		preset(t)(h)
		// Where br_netfilter is: see docs/limits.md for what containers that are kept apart do not reach with it.
		if _, err := h.Run(t.Context(), "sysctl", "-e", "-w", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0"); err != nil {
			t.Fatal(err)
		}
	}})
	b.outside()
	if _, err := b.docker.Image(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(b.Dir(), "compose.yaml")
	if err := os.WriteFile(file, []byte(project), 0o644); err != nil {
		t.Fatal(err)
	}
	compose := func(args ...string) { b.run("docker-compose", append([]string{"-p", "lab", "-f", file}, args...)...) }
	around := func() map[string]string {
		rules, sysctls, links := b.observe()
		return map[string]string{
			"rules": foreign(rules), "sysctls": cmp.Diff(nil, sysctls), "links": cmp.Diff(nil, links),
			"sets": b.run("ipset", "list"), "sockets": b.run("ss", "-Hltun"), "ports": b.run(binary(t), "ports"),
		}
	}
	before := around()
	compose("up", "-d")
	t.Run("up", func(t *testing.T) { b.composed(t) })
	t.Run("scaled and restarted", func(t *testing.T) {
		compose("up", "-d", "--no-recreate", "--scale", "worker=3")
		compose("restart", "-t", "0", "web", "db")
		b.composed(t)
		workers := map[uint16]bool{}
		for _, p := range b.ports() {
			if p.ContainerPort == 80 && p.HostPort >= 32768 {
				workers[p.HostPort] = true
				lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), p.HostPort))
			}
		}
		if len(workers) != 3 {
			t.Errorf("three workers publish at %v", workers)
		}
	})
	compose("down", "-t", "0")
	if diff := cmp.Diff(before, around()); diff != "" {
		t.Errorf("(-before up +after down):\n%s", diff)
	}
	b.nothingLeft()
}

// composed checks what the project lets pass and what not.
func (b *bed) composed(t *testing.T) {
	t.Helper()
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	// Versions 1 and 2 name containers in different ways.
	service := func(name string) *lab.Container {
		return b.docker.Container(b.do("ps", "-q", "--filter", "label=com.docker.compose.service="+name))
	}
	web, names, db := service("web"), service("names"), service("db")
	if a := b.addr(web, "lab_front").String() + " " + b.addr6(web, "lab_front").String() + " " + b.addr(db, "lab_back").String(); a != "10.81.0.80 fd81::80 10.82.0.9" {
		t.Errorf("addresses %s", a)
	}
	out, err := web.Run(t.Context(), "/bin/busybox", "ip", "addr")
	if err != nil || !strings.Contains(out, ": lan0") && !strings.Contains(out, ": lan1") || !strings.Contains(out, "mtu 1400") {
		t.Errorf("links of web: %v\n%s", err, out)
	}

	for _, port := range []uint16{8080, 8081, 8082, 8091} {
		if r := lab.Eventually(t, b.client, "tcp", at(host4, port)); r.Server != "web" {
			t.Errorf("%s answers at %d", r.Server, port)
		}
	}
	lab.Eventually(t, b.client, "udp", at(host4, 5353)) // another container, whose server may be later
	lab.Reaches(t, b.client, "tcp", at(host6, 8092))
	lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8090")
	lab.Blocked(t, b.client, "tcp", at(host4, 8090))
	lab.Blocked(t, b.client, "tcp", at(host6, 8080)) // host_binding_ipv4
	lab.Blocked(t, b.Host, "tcp", "127.0.0.1:8080")

	same(t, lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 80)).Peer.Addr(), host4)
	same(t, lab.Reaches(t, web, "tcp", at(b.client.Addr6(), 80)).Peer.Addr(), host6)
	lab.Blocked(t, db, "tcp", at(b.client.Addr4(), 80)) // internal
	for _, name := range []string{"api", "web"} {
		if r := lab.Eventually(t, db, "tcp", name+":80"); r.Server != "web" {
			t.Errorf("%s answers as %s", r.Server, name)
		}
	}
	if r := lab.Eventually(t, web, "tcp", "db:80"); r.Server != "db" {
		t.Errorf("%s answers as db", r.Server)
	}
	lab.Blocked(t, names, "tcp", "www:80") // icc=false
	lab.Blocked(t, names, "tcp", "[fd81::80]:80")
	lab.Blocked(t, names, "tcp", "10.82.0.9:80")
	lab.Reaches(t, names, "tcp", at(host4, 8080)) // published is for all
}
