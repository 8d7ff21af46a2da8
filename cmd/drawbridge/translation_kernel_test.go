//go:build kernel

package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestUntranslatedFlow: a sender of UDP that began while somebody had flushed the rules, and never pauses, is translated once they are
// back.
func TestUntranslatedFlow(t *testing.T) {
	h := newPublishing(t)
	h.settle()
	var client net.Conn
	h.in(func() (err error) {
		client, err = net.Dial("udp", "[fd00:1::1]:5353")
		return err
	})
	defer client.Close()
	_, source, _ := strings.Cut(client.LocalAddr().String(), "]")
	h.output("nft", "flush", "ruleset")
	var last string
	for began := time.Now(); time.Since(began) < patience; time.Sleep(20 * time.Millisecond) {
		_, _ = client.Write([]byte("x"))
		select {
		case last = <-h.peers:
			if strings.HasSuffix(last, source) { // and not by the proxy
				return
			}
		default:
		}
	}
	t.Errorf("the container never got what port %s sent, but from %q:\n%s%s", source, last, h.output("cat", "/proc/thread-self/net/nf_conntrack"), h.log.String())
}

// TestModeTurnsUnderClients: when the host's firewall goes, so that ports are translated which were the host's, senders of UDP that never
// pause are translated from then on, and connections of TCP go on by the host's socket.
func TestModeTurnsUnderClients(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			h := newWholeHost(t)
			h.output("nft", "add table inet guard; add chain inet guard in { type filter hook input priority 0; }; add rule inet guard in tcp dport 9 drop")
			h.launch(backend)
			h.awaitLog("mode=learned", 1)
			h.settle()
			h.succeed(createNet, createEndpoint, join, request{program.name, with(ofEndpoint, "Options", map[string]any{
				"com.docker.network.portmap": []any{
					map[string]any{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080},
					map[string]any{"Proto": 17, "Port": 53, "HostPort": 5353, "HostPortEnd": 5353},
				},
			})})
			container := h.apart(state.Endpoint{ID: state.EndpointID(endpointID(1))}.ContainerLink(), "10.1.0.2/24", "10.1.0.1", "fd00:1::2/64", "fd00:1::1")
			seen := func(from net.Addr, _ []byte) []byte { return []byte(from.String()) }
			container.in(func() error {
				return errors.Join(echoTCP(t, "10.1.0.2:80"), echoTCP(t, "[fd00:1::2]:80"), answerUDP(t, "10.1.0.2:53", seen), answerUDP(t, "[fd00:1::2]:53", seen))
			})
			client := h.apart("wire0", "192.0.2.2/24", "", "2001:db8::2/64", "")

			var senders []net.Conn
			var talks []*talk
			open := func(network, port string) (out []net.Conn) {
				t.Helper()
				client.in(func() error {
					for _, host := range []string{"192.0.2.1", "2001:db8::1"} {
						c, err := net.DialTimeout(network, net.JoinHostPort(host, port), patience)
						if err != nil {
							return err
						}
						t.Cleanup(func() { c.Close() })
						out = append(out, c)
					}
					return nil
				})
				return out
			}
			check := func(when string, within time.Duration) {
				t.Helper()
				for _, c := range senders {
					began := time.Now()
					for seen := ""; seen != c.LocalAddr().String(); seen = ask(c) {
						if time.Since(began) > within {
							t.Fatalf("%s: %s is shown to the container as %q:\n%s%s", when, c.LocalAddr(), seen, h.output("cat", "/proc/thread-self/net/nf_conntrack"), h.log.String())
						}
					}
				}
				for _, c := range talks {
					c.goesOn(when)
				}
			}
			time.Sleep(500 * time.Millisecond) // until the flows that missed the new ports are forgotten
			senders = open("udp", "5353")
			check("new links", patience) // which take a moment
			for _, c := range open("tcp", "8080") {
				talks = append(talks, &talk{t: t, Conn: c, r: bufio.NewReader(c)})
			}
			check("learned", patience)
			h.output("nft", "delete table inet guard")
			h.awaitLog("mode=dnat", 1)
			check("dnat", checkInterval/3) // without a look that comes by time alone
			h.settle()
			time.Sleep(200 * time.Millisecond)
			check("dnat, later", checkInterval/3)
			h.stop(unix.SIGTERM)
		})
	}
}

// ask sends a datagram and returns the answer, "" for none within a moment.
func ask(c net.Conn) string {
	_, _ = c.Write([]byte("who am I?"))
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	answer := make([]byte, 100)
	n, _ := c.Read(answer)
	return string(answer[:n])
}

// echoTCP sends back what it gets.
func echoTCP(t *testing.T, at string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return nil
}

// answerUDP answers what anybody says.
func answerUDP(t *testing.T, at string, answer func(from net.Addr, said []byte) []byte) error {
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for buffer := make([]byte, 1500); ; {
			n, from, err := c.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(answer(from, buffer[:n]), from)
		}
	}()
	return nil
}

// namespace is one beside the host's.
type namespace struct {
	h     *wholeHost
	calls chan func()
}

// apart puts a link of the host into a namespace of its own, with addresses and, where they are given, routes by gateways.
func (h *wholeHost) apart(name, addr4, gateway4, addr6, gateway6 string) namespace {
	h.t.Helper()
	n := namespace{h, make(chan func())}
	made := make(chan netns.NsHandle)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the namespace
		ns, err := netns.New()
		if err != nil {
			h.t.Errorf("%v", err)
		}
		made <- ns
		for f := range n.calls {
			f()
		}
	}()
	h.t.Cleanup(func() { close(n.calls) })
	ns := <-made
	defer ns.Close()
	link, err := h.handle.LinkByName(name)
	h.must(err)
	h.must(h.handle.LinkSetNsFd(link, int(ns)))
	n.in(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, text := range []string{addr4, addr6} {
			addr, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		for _, gateway := range []string{gateway4, gateway6} {
			if gateway != "" {
				if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return n
}

// in runs f in the namespace.
func (n namespace) in(f func() error) {
	n.h.t.Helper()
	done := make(chan error)
	n.calls <- func() { done <- f() }
	n.h.must(<-done)
}
