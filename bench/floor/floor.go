// Package floor is a network plugin that does next to nothing: a bridge, a veth pair, and the answers that the
// engine wants. It has no firewall, no state, publishes nothing, and removes links in the background. What
// the engine takes with it is what any plugin has to pay.
package floor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/docker/go-plugins-helpers/network"
	"github.com/vishvananda/netlink"
)

// Serve answers on the socket until ctx ends.
func Serve(ctx context.Context, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	s := http.Server{Handler: (&plugin{links: h}).routes()}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// plugin has one lasting netlink socket: one that is closed after it removed a link makes its closer wait.
type plugin struct{ links *netlink.Handle }

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
	master, err := p.links.LinkByName(bridge(r.NetworkID))
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = outer(r.EndpointID), master.Attrs().Index
	link := netlink.NewVeth(attrs)
	link.PeerName = inner(r.EndpointID)
	if err := p.links.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("creating the veth pair: %w", err)
	}
	return network.CreateEndpointResponse{Interface: &network.EndpointInterface{}}, p.links.LinkSetUp(link)
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
	return network.JoinResponse{
		InterfaceName: network.InterfaceName{SrcName: inner(r.EndpointID), DstPrefix: "eth"},
		Gateway:       addrs[0].IP.String(),
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
