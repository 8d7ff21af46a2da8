//go:build kernel

package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// A large host.
const (
	manyNetworks    = 500
	endpointsOfEach = 4
	portsOfEach     = 5
	manyEndpoints   = manyNetworks * endpointsOfEach
	manyPorts       = manyEndpoints * portsOfEach
	firstPort       = 20000
)

// TestStartup: a daemon of a large host makes everything that its state has: from nothing as after a boot, beside what is
// there already, by another backend, and where all rules were flushed. Meanwhile its socket answers from the first.
func TestStartup(t *testing.T) {
	h := newWholeHost(t)
	t.Cleanup(h.clear)
	h.fill()
	h.restore("from nothing", "nftables")
	h.stop(unix.SIGKILL)
	h.restore("links and rules there", "nftables")
	h.stop(unix.SIGKILL)
	h.restore("rules of the other backend there", "iptables")
	h.stop(unix.SIGKILL)
	h.output("nft", "flush", "ruleset")
	h.restore("links there", "iptables")
	h.stop(unix.SIGTERM)
}

// clear deletes the bridges one by one. All at once, as with the namespace, would take the kernel many seconds, in which nobody on
// the machine could change a link: other tests would wait for their addresses.
func (h *wholeHost) clear() {
	links, err := h.handle.LinkList()
	h.must(err)
	for _, link := range links {
		if link.Type() == "bridge" {
			h.must(h.handle.LinkDel(link))
		}
	}
}

// restore starts the daemon and checks that it answers at once and that everything is there in the end.
func (h *wholeHost) restore(what, backend string) {
	h.t.Helper()
	fresh := !strings.Contains(h.output("ip", "-o", "link"), ": br-")
	began := time.Now()
	h.launch(backend)
	h.activate()
	answered := time.Since(began)
	if fresh && strings.Count(h.output("ip", "-o", "link"), ": veth") == manyEndpoints {
		h.t.Fatalf("%s: all was there before the first answer", what)
	}
	h.settle()
	h.t.Logf("%s, %s: answered after %v, all there after %v", backend, what, answered, time.Since(began))
	links := h.output("ip", "-o", "link")
	if bridges, ends := strings.Count(links, ": br-"), strings.Count(links, ": veth"); bridges != manyNetworks || ends != manyEndpoints {
		h.t.Errorf("%s: %d bridges and %d links of endpoints, want %d and %d", what, bridges, ends, manyNetworks, manyEndpoints)
	}
	rules := h.output(map[string][]string{
		"iptables": {"iptables-save", "-t", "nat"},
		"nftables": {"nft", "list", "table", "inet", "drawbridge"},
	}[backend]...)
	for _, port := range []int{firstPort, firstPort + manyPorts/2, firstPort + manyPorts - 1} {
		if !strings.Contains(rules, fmt.Sprint(port)) {
			h.t.Errorf("%s: no rule names port %d", what, port)
		}
	}
}

// activate makes the engine's first call as soon as somebody listens.
func (h *wholeHost) activate() {
	h.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		resp, err := h.http.Post("http://plugin/Plugin.Activate", "application/json", nil)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("no answer: %v\n%s", err, h.log.String())
		}
	}
}

// fill writes the state of a large host.
func (h *wholeHost) fill() {
	h.t.Helper()
	st, err := store.Open(h.state)
	h.must(err)
	_, err = st.Update(h.t.Context(), func(tx *store.Tx) error {
		for i := range manyNetworks {
			n := largeNetwork(i)
			tx.PutNetwork(n)
			for j := range endpointsOfEach {
				tx.PutEndpoint(largeEndpoint(n, i, j))
			}
		}
		return nil
	})
	h.must(errors.Join(err, st.Close()))
}

func largeNetwork(i int) state.Network {
	n := state.Network{ID: state.NetworkID(fmt.Sprintf("%012x%052x", i, 0))}
	n.Bridge = state.DefaultBridgeName(n.ID)
	n.V4 = state.Subnet{
		Prefix:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(100 + i/250), byte(i % 250), 0}), 24),
		Gateway: netip.AddrFrom4([4]byte{10, byte(100 + i/250), byte(i % 250), 1}),
	}
	return n
}

func largeEndpoint(n state.Network, i, j int) state.Endpoint {
	number := i*endpointsOfEach + j
	e := state.Endpoint{ID: state.EndpointID(fmt.Sprintf("%011x%053x", number, 0)), Network: n.ID}
	host := n.V4.Prefix.Addr().As4()
	host[3] = byte(2 + j)
	e.Addr4, e.MAC = netip.PrefixFrom(netip.AddrFrom4(host), 24), state.GenerateMAC(string(e.ID))
	for k := range portsOfEach {
		// In one family, so that the sockets stay below a common limit of open files.
		e.Ports = append(e.Ports, state.Port{Proto: state.TCP, HostIP: netip.IPv4Unspecified(), HostPort: uint16(firstPort + number*portsOfEach + k), ContainerPort: uint16(80 + k)})
	}
	return e
}
