//go:build kernel

package main

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// TestClosedWhileKilled: a daemon is killed when it has closed one of a container's ports, and not yet ended the connections by it. The
// next one does so, and the connections by the other port go on.
func TestClosedWhileKilled(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			h := newWholeHost(t)
			h.launch(backend)
			h.settle()
			mapped := func(port int) any {
				return map[string]any{"Proto": 6, "Port": 80, "HostPort": port, "HostPortEnd": port}
			}
			h.succeed(createNet, createEndpoint, join, request{program.name, with(ofEndpoint, "Options", map[string]any{
				"com.docker.network.portmap": []any{mapped(8080), mapped(8081)},
			})})
			container := h.apart(state.Endpoint{ID: state.EndpointID(endpointID(1))}.ContainerLink(), "10.1.0.2/24", "10.1.0.1", "fd00:1::2/64", "fd00:1::1")
			container.in(func() error { return errors.Join(echoTCP(t, "10.1.0.2:80"), echoTCP(t, "[fd00:1::2]:80")) })
			client := h.apart("wire0", "192.0.2.2/24", "", "2001:db8::2/64", "")
			talks := map[string][]*talk{}
			for _, port := range []string{"8080", "8081"} {
				for _, host := range []string{"192.0.2.1", "2001:db8::1"} {
					client.in(func() error {
						c, err := net.DialTimeout("tcp", net.JoinHostPort(host, port), patience)
						if err == nil {
							t.Cleanup(func() { c.Close() })
							talks[port] = append(talks[port], &talk{t: t, Conn: c, r: bufio.NewReader(c)})
						}
						return err
					})
				}
			}
			for _, c := range slices.Concat(talks["8080"], talks["8081"]) {
				c.goesOn("published")
			}

			h.stop(unix.SIGKILL)
			h.close(8080)
			h.launch(backend)
			h.settle()
			for _, c := range talks["8080"] {
				c.isCut("closed")
			}
			for _, c := range talks["8081"] {
				c.goesOn("the other port is closed")
			}
			h.stop(unix.SIGTERM)
			if e := h.snapshot().Endpoints[0]; len(e.Closed) > 0 || len(e.Ports) == 0 {
				t.Errorf("in the end the endpoint has %v, and has lost %v", e.Ports, e.Closed)
			}
		})
	}
}

// close closes a port of the only endpoint in the state of a daemon that does not run.
func (h *wholeHost) close(port uint16) {
	h.t.Helper()
	st, err := store.Open(h.state)
	h.must(err)
	_, err = st.Update(h.t.Context(), func(tx *store.Tx) error {
		e := tx.Endpoints()[0]
		for _, p := range e.Ports {
			if p.HostPort == port {
				p.HostIP = netip.IPv4Unspecified()
				e.Closed = append(e.Closed, p)
				p.HostIP = netip.IPv6Unspecified()
				e.Closed = append(e.Closed, p)
			}
		}
		e.Ports = slices.DeleteFunc(e.Ports, func(p state.Port) bool { return p.HostPort == port })
		tx.PutEndpoint(e)
		return nil
	})
	h.must(errors.Join(err, st.Close()))
}
