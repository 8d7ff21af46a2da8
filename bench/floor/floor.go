// Package floor is a network plugin that does next to nothing: a bridge, a veth pair, and the answers that the
// engine wants. It has no firewall, no state, publishes nothing, and removes links in the background. What
// the engine takes with it is what any plugin has to pay.
//
// A direct one makes the container's end where it belongs, in the container's namespace, which the engine names in Join,
// and configures it. Moving a link between namespaces takes the kernel as long as removing one, and the engine does it at
// each connect and disconnect.
package floor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"sync"

	"github.com/docker/go-plugins-helpers/network"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Serve answers on the socket until ctx ends.
func Serve(ctx context.Context, socket string, direct bool) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	s := http.Server{Handler: (&plugin{links: h, direct: direct, addrs: map[string]string{}}).routes()}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// plugin has one lasting netlink socket: one that is closed after it removed a link makes its closer wait.
type plugin struct {
	links  *netlink.Handle
	direct bool

	mu    sync.Mutex
	addrs map[string]string // guarded by mu: of endpoints that have not joined, if direct
}

func (p *plugin) routes() http.Handler {
	mux := http.NewServeMux()
	handle(mux, "/Plugin.Activate", func(*struct{}) (any, error) {
		return map[string]any{"Implements": []string{"NetworkDriver"}}, nil
	})
	handle(mux, "/NetworkDriver.GetCapabilities", func(*struct{}) (any, error) {
		return network.CapabilitiesResponse{Scope: "local"}, nil
	})
	handle(mux, "/NetworkDriver.CreateNetwork", p.createNetwork)
	handle(mux, "/NetworkDriver.DeleteNetwork", func(r *network.DeleteNetworkRequest) (any, error) {
		return nil, p.remove(bridge(r.NetworkID))
	})
	handle(mux, "/NetworkDriver.CreateEndpoint", p.createEndpoint)
	handle(mux, "/NetworkDriver.DeleteEndpoint", func(r *network.DeleteEndpointRequest) (any, error) {
		return nil, p.remove(outer(r.EndpointID))
	})
	handle(mux, "/NetworkDriver.Join", p.join)
	for _, name := range []string{
		"EndpointOperInfo", "Leave", "DiscoverNew", "DiscoverDelete", "ProgramExternalConnectivity", "RevokeExternalConnectivity",
	} {
		handle(mux, "/NetworkDriver."+name, func(*struct{}) (any, error) { return nil, nil })
	}
	return mux
}

func handle[T any](mux *http.ServeMux, path string, do func(*T) (any, error)) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		req := new(T)
		// Activate and others come with an empty body.
		_ = json.NewDecoder(r.Body).Decode(req)
		answer, err := do(req)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			answer = map[string]string{"Err": err.Error()}
		}
		if answer == nil {
			answer = struct{}{}
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}

func bridge(id string) string { return "flo-" + id[:10] }
func outer(id string) string  { return "flv" + id[:10] }
func inner(id string) string  { return "flp" + id[:10] }

func (p *plugin) createNetwork(r *network.CreateNetworkRequest) (any, error) {
	if len(r.IPv4Data) == 0 {
		return nil, errors.New("no IPv4 pool")
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge(r.NetworkID)
	link := &netlink.Bridge{LinkAttrs: attrs}
	if err := p.links.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("creating the bridge: %w", err)
	}
	addr, err := netlink.ParseAddr(r.IPv4Data[0].Gateway)
	if err != nil {
		return nil, err
	}
	return nil, errors.Join(p.links.AddrAdd(link, addr), p.links.LinkSetUp(link))
}

func (p *plugin) createEndpoint(r *network.CreateEndpointRequest) (any, error) {
	answer := network.CreateEndpointResponse{Interface: &network.EndpointInterface{}}
	if p.direct {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.addrs[r.EndpointID] = r.Interface.Address
		return answer, nil
	}
	return answer, p.addVeth(r.NetworkID, r.EndpointID, inner(r.EndpointID), nil)
}

// addVeth makes both ends, the container's in a namespace if one is given.
func (p *plugin) addVeth(networkID, endpointID, peer string, namespace any) error {
	master, err := p.links.LinkByName(bridge(networkID))
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = outer(endpointID), master.Attrs().Index
	link := netlink.NewVeth(attrs)
	link.PeerName, link.PeerNamespace = peer, namespace
	if err := p.links.LinkAdd(link); err != nil {
		return fmt.Errorf("creating the veth pair: %w", err)
	}
	return p.links.LinkSetUp(link)
}

// joinDirectly makes the pair and configures the container's end.
func (p *plugin) joinDirectly(r *network.JoinRequest) error {
	p.mu.Lock()
	addr := p.addrs[r.EndpointID]
	delete(p.addrs, r.EndpointID)
	p.mu.Unlock()
	sandbox, err := netns.GetFromPath(r.SandboxKey)
	if err != nil {
		return fmt.Errorf("opening the container's namespace: %w", err)
	}
	defer sandbox.Close()
	const name = "eth0"
	if err := p.addVeth(r.NetworkID, r.EndpointID, name, netlink.NsFd(sandbox)); err != nil {
		return err
	}
	h, err := netlink.NewHandleAt(sandbox, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		return err
	}
	return errors.Join(h.AddrAdd(link, a), h.LinkSetUp(link))
}

func (p *plugin) join(r *network.JoinRequest) (any, error) {
	master, err := p.links.LinkByName(bridge(r.NetworkID))
	if err != nil {
		return nil, err
	}
	addrs, err := p.links.AddrList(master, netlink.FAMILY_V4)
	if err != nil || len(addrs) == 0 {
		return nil, errors.Join(err, errors.New("the bridge has no address"))
	}
	gateway := addrs[0].IP.String()
	if p.direct {
		err := p.joinDirectly(r)
		if !errors.Is(err, fs.ErrNotExist) {
			return map[string]string{"Gateway": gateway}, err
		}
		// Docker 20.10 names a namespace that is not there yet where a container starts.
		if err := p.addVeth(r.NetworkID, r.EndpointID, inner(r.EndpointID), nil); err != nil {
			return nil, err
		}
	}
	return network.JoinResponse{
		InterfaceName: network.InterfaceName{SrcName: inner(r.EndpointID), DstPrefix: "eth"},
		Gateway:       gateway,
	}, nil
}

// remove answers at once: the kernel takes tens of milliseconds over a link's end, and each caller would wait for
// that, though many are taken away in the time of one.
func (p *plugin) remove(name string) error {
	link, err := p.links.LinkByName(name)
	if err != nil {
		return nil // it is gone
	}
	go func() {
		// A handle has one socket per protocol: a call would wait for those before it.
		_ = netlink.LinkDel(link)
	}()
	return nil
}
