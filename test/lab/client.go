package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// outside is the network namespace in which the uplinks' switches stand.
const outside = "outside"

// An Uplink is a link of the host to the outside: one segment with any number
// of clients on it.
type Uplink struct {
	Name  string         // the link's name on the host
	Addrs []netip.Prefix // the host's addresses on it, one of each family at most
	next  []netip.Addr   // the last address given to a client, for each of Addrs
	// hardware is the address that the link has whenever it is plugged in.
	hardware string
}

// defaultUplinks are the addresses of uplinks for which none are given.
var defaultUplinks = map[string][]netip.Prefix{
	"ext0": {netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("2001:db8:1::1/64")},
	"ext1": {netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("2001:db8:2::1/64")},
}

// AddUplink gives the host a link to the outside. Without addresses, ext0 gets
// 198.51.100.1/24 and 2001:db8:1::1/64, ext1 203.0.113.1/24 and 2001:db8:2::1/64.
func (h *Host) AddUplink(ctx context.Context, name string, addrs ...netip.Prefix) (*Uplink, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.uplinks[name]; u != nil {
		return nil, fmt.Errorf("uplink %s is there already, with %v", name, u.Addrs)
	}
	if len(addrs) == 0 {
		addrs = defaultUplinks[name]
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("uplink %s needs addresses: only ext0 and ext1 have default ones", name)
	}
	u := &Uplink{Name: name, Addrs: addrs}
	for _, p := range addrs {
		u.next = append(u.next, p.Addr())
	}
	return u, h.buildUplink(ctx, u)
}

// buildUplink registers the uplink; the caller holds mu.
func (h *Host) buildUplink(ctx context.Context, u *Uplink) error {
	var script []string
	if len(h.uplinks) == 0 {
		// The first uplink brings the namespace.
		script = append(script, "netns add "+outside)
	}
	h.uplinks[u.Name] = u
	u.hardware = fmt.Sprintf("02:00:00:00:00:%02x", len(h.uplinks))
	if err := h.ip(ctx, "", script...); err != nil {
		return err
	}
	// No snooping: nobody answers queries, and neighbour discovery is multicast.
	err := h.ip(ctx, outside,
		fmt.Sprintf("link add sw-%s index %d type bridge mcast_snooping 0", u.Name, h.nextIndex()),
		fmt.Sprintf("link set sw-%s up", u.Name))
	if err != nil {
		return err
	}
	return h.Plug(ctx, u)
}

// Unplug takes the uplink's link from the host, with its addresses. The clients stay where they are.
func (h *Host) Unplug(ctx context.Context, u *Uplink) error {
	return h.ip(ctx, "", "link del "+u.Name)
}

// Plug gives it to the host again: to the kernel it is another link, and to clients the neighbour that they knew.
func (h *Host) Plug(ctx context.Context, u *Uplink) error {
	// Pid 1 is in the host's own namespace, which has no name for ip to use.
	err := h.ip(ctx, outside, fmt.Sprintf("link add %s index %d type veth peer name %s address %s netns 1", u.Name, h.nextIndex(), u.Name, u.hardware))
	if err != nil {
		return err
	}
	script := []string{fmt.Sprintf("link set %s up", u.Name)}
	for _, p := range u.Addrs {
		script = append(script, "addr add "+p.String()+" dev "+u.Name+nodad(p.Addr()))
	}
	if err := h.ip(ctx, "", script...); err != nil {
		return err
	}
	if err := h.ip(ctx, outside, fmt.Sprintf("link set %s master sw-%s up", u.Name, u.Name)); err != nil {
		return err
	}
	return h.awaitForwarding(ctx, u.Name)
}

// nextIndex numbers the links in the outside namespace away from all others.
// The kernel takes a veth whose peer has the same index, in another namespace,
// for an ordinary device and sits on its carrier for up to a second.
func (h *Host) nextIndex() int { return int(h.indexes.Add(1)) + 1000 }

// awaitForwarding waits until a switch passes packets from and to a port.
func (h *Host) awaitForwarding(ctx context.Context, port string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		out, err := h.Run(ctx, "ip", "netns", "exec", outside, "bridge", "link", "show", "dev", port)
		if err != nil {
			return fmt.Errorf("waiting for the outside switch: %w", err)
		}
		if strings.Contains(out, "state forwarding") {
			return nil
		}
	}
}

// ClientOptions say where an outside machine stands.
type ClientOptions struct {
	Uplink string         // the host's link; default ext0, which is made when missing
	Addrs  []netip.Prefix // default: the next free address of each family (.2, .3 …)
}

// A Client is an outside machine: a network namespace with one link, eth0, and
// its default routes through the host.
type Client struct {
	Name  string
	Addrs []netip.Prefix // in the order of the uplink's: IPv4 first by default
	Host  *Uplink        // Host.Addrs are the addresses at which the client knows the host
	host  *Host
}

// AddClient puts an outside machine on an uplink. Its name becomes that of its
// network namespace and must be short (11 characters).
func (h *Host) AddClient(ctx context.Context, name string, o ClientOptions) (*Client, error) {
	if len(name) == 0 || len(name) > 11 || name == outside {
		return nil, fmt.Errorf("client name %q: 1 to 11 characters, and not %q", name, outside)
	}
	if o.Uplink == "" {
		o.Uplink = "ext0"
	}
	h.mu.Lock()
	u := h.uplinks[o.Uplink]
	h.mu.Unlock()
	if u == nil {
		var err error
		if u, err = h.AddUplink(ctx, o.Uplink); err != nil {
			return nil, err
		}
	}
	if len(o.Addrs) == 0 {
		o.Addrs = h.nextAddrs(u)
	}
	c := &Client{Name: name, Addrs: slices.Clone(o.Addrs), Host: u, host: h}
	if err := c.build(ctx); err != nil {
		return nil, fmt.Errorf("adding client %s: %w", name, err)
	}
	return c, nil
}

func (h *Host) nextAddrs(u *Uplink) []netip.Prefix {
	h.mu.Lock()
	defer h.mu.Unlock()
	var addrs []netip.Prefix
	for i, p := range u.Addrs {
		u.next[i] = u.next[i].Next()
		addrs = append(addrs, netip.PrefixFrom(u.next[i], p.Bits()))
	}
	return addrs
}

func (c *Client) build(ctx context.Context) error {
	port := "to-" + c.Name
	if err := c.host.ip(ctx, "", "netns add "+c.Name); err != nil {
		return err
	}
	err := c.host.ip(ctx, outside,
		fmt.Sprintf("link add %s index %d type veth peer name eth0 netns %s", port, c.host.nextIndex(), c.Name),
		fmt.Sprintf("link set %s master sw-%s up", port, c.Host.Name))
	if err != nil {
		return err
	}
	script := []string{"link set lo up", "link set eth0 up"}
	for _, p := range c.Addrs {
		script = append(script, "addr add "+p.String()+" dev eth0"+nodad(p.Addr()))
	}
	for _, p := range c.Host.Addrs {
		script = append(script, "route add default via "+p.Addr().String())
	}
	if err := c.host.ip(ctx, c.Name, script...); err != nil {
		return err
	}
	return c.host.awaitForwarding(ctx, port)
}

// Addr4 is the client's first IPv4 address, invalid if it has none.
func (c *Client) Addr4() netip.Addr { return first(c.Addrs, netip.Addr.Is4) }

// Addr6 is the client's first IPv6 address, invalid if it has none.
func (c *Client) Addr6() netip.Addr { return first(c.Addrs, netip.Addr.Is6) }

// Addr4 is the host's first IPv4 address on the uplink, invalid if it has none.
func (u *Uplink) Addr4() netip.Addr { return first(u.Addrs, netip.Addr.Is4) }

// Addr6 is the host's first IPv6 address on the uplink, invalid if it has none.
func (u *Uplink) Addr6() netip.Addr { return first(u.Addrs, netip.Addr.Is6) }

// Command prepares a command in the client's network namespace.
func (c *Client) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return c.host.Command(ctx, "ip", append([]string{"netns", "exec", c.Name, name}, args...)...)
}

// Run runs a command in the client's network namespace and returns its standard output.
func (c *Client) Run(ctx context.Context, name string, args ...string) (string, error) {
	return run(c.Command(ctx, name, args...), append([]string{c.Name + ":", name}, args...))
}

// Probe is the helper program's path.
func (c *Client) Probe() string { return c.host.Probe() }

// Serve answers on the client's addresses and returns when it listens.
func (c *Client) Serve(ctx context.Context, network string, addrs ...string) (*Process, error) {
	argv := []string{"ip", "netns", "exec", c.Name, c.Probe(), "serve", "-name", c.Name, network}
	return c.host.serve(ctx, c.Name, argv, network, addrs)
}

// Serve answers on the host's own addresses, as any daemon there would, and
// returns when it listens.
func (h *Host) Serve(ctx context.Context, network string, addrs ...string) (*Process, error) {
	return h.serve(ctx, "host", []string{h.Probe(), "serve", "-name", "host", network}, network, addrs)
}

func (h *Host) serve(ctx context.Context, who string, argv []string, network string, addrs []string) (*Process, error) {
	name := strings.NewReplacer("/", "_", "*", "_").Replace(who + "-" + network + "-" + strings.Join(addrs, ","))
	// The log goes on over restarts, and so do the lines in it.
	seen := strings.Count((&Process{path: h.logPath(name)}).Log(), "ready\n")
	p, err := h.Start(name, append(argv, addrs...), nil)
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, func(context.Context) error {
		if strings.Count(p.Log(), "ready\n") > seen {
			return nil
		}
		return fmt.Errorf("%s is not listening yet", name)
	})
}

// ip runs a batch of ip(8) commands, in a network namespace of the lab if one is named.
func (h *Host) ip(ctx context.Context, netns string, script ...string) error {
	args := []string{"-batch", "-"}
	if netns != "" {
		args = append([]string{"-n", netns}, args...)
	}
	if len(script) == 0 {
		return nil
	}
	cmd := h.Command(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(script, "\n") + "\n")
	_, err := run(cmd, append([]string{"ip"}, script...))
	return err
}

// nodad has an IPv6 address usable at once instead of after a second's wait for its duplicates.
func nodad(a netip.Addr) string {
	if a.Is6() {
		return " nodad"
	}
	return ""
}

func first(prefixes []netip.Prefix, family func(netip.Addr) bool) netip.Addr {
	for _, p := range prefixes {
		if family(p.Addr()) {
			return p.Addr()
		}
	}
	return netip.Addr{}
}
