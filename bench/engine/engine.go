// Package engine speaks the few words of Docker's API that the benchmark times. It uses the unix socket
// itself: the docker command would start a process for each of them.
package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
)

// A Client is one engine's. It keeps its connections open.
type Client struct{ http *http.Client }

// parallel is how many connections are kept, so that none is made in what is timed.
const parallel = 16

// Dial returns a client of the engine behind a socket.
func Dial(socket string) *Client {
	transport := unixsocket.Transport(socket)
	transport.MaxIdleConnsPerHost = parallel
	return &Client{&http.Client{Transport: transport}}
}

// Close closes the connections that are kept.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// version is one that all engines from 20.10 to 28 know.
const version = "/v1.41"

func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+version+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(said))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(said, answer)
}

// CreateNetwork makes a network of a driver, with the addresses of an IPAM driver.
func (c *Client) CreateNetwork(ctx context.Context, name, driver, ipam string) error {
	return c.do(ctx, http.MethodPost, "/networks/create", map[string]any{
		"Name": name, "Driver": driver, "IPAM": map[string]string{"Driver": ipam},
	}, nil)
}

// RemoveNetwork removes it.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/networks/"+name, nil, nil)
}

// A Port is a published one: HostIP may be empty, for all addresses.
type Port struct {
	HostIP          string
	Host, Container int
	Proto           string
}

type binding struct{ HostIp, HostPort string }

// StartContainer makes and starts a container on a network and returns its process id, as the engine sees it.
func (c *Client) StartContainer(ctx context.Context, name, network, image string, cmd []string, ports []Port) (pid int, err error) {
	exposed, bindings := map[string]struct{}{}, map[string][]binding{}
	for _, p := range ports {
		key := strconv.Itoa(p.Container) + "/" + p.Proto
		exposed[key] = struct{}{}
		bindings[key] = append(bindings[key], binding{p.HostIP, strconv.Itoa(p.Host)})
	}
	err = c.do(ctx, http.MethodPost, "/containers/create?name="+name, map[string]any{
		"Image": image, "Cmd": cmd, "ExposedPorts": exposed,
		"HostConfig": map[string]any{"NetworkMode": network, "PortBindings": bindings},
	}, nil)
	if err != nil {
		return 0, err
	}
	if err := c.do(ctx, http.MethodPost, "/containers/"+name+"/start", nil, nil); err != nil {
		return 0, err
	}
	var info struct{ State struct{ Pid int } }
	err = c.do(ctx, http.MethodGet, "/containers/"+name+"/json", nil, &info)
	return info.State.Pid, err
}

// Address is a running container's IPv4 address on a network.
func (c *Client) Address(ctx context.Context, container, network string) (netip.Addr, error) {
	var info struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := c.do(ctx, http.MethodGet, "/containers/"+container+"/json", nil, &info); err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(info.NetworkSettings.Networks[network].IPAddress)
}

// Connect attaches a running container to a network; its ports are published with that.
func (c *Client) Connect(ctx context.Context, network, container string) error {
	return c.do(ctx, http.MethodPost, "/networks/"+network+"/connect", map[string]string{"Container": container}, nil)
}

// Disconnect takes it off again, and its ports with it.
func (c *Client) Disconnect(ctx context.Context, network, container string) error {
	return c.do(ctx, http.MethodPost, "/networks/"+network+"/disconnect", map[string]string{"Container": container}, nil)
}

// Version is what the engine says that it and its kernel are.
func (c *Client) Version(ctx context.Context) (engine, kernel string, err error) {
	var v struct{ Version, KernelVersion string }
	err = c.do(ctx, http.MethodGet, "/version", nil, &v)
	return strings.TrimSpace(v.Version), v.KernelVersion, err
}
