//go:build kernel

package link

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// box is a container: a network namespace, at a path as engines give it.
type box struct {
	*lab
	ns   netns.NsHandle
	path string
}

func (l *lab) box() *box {
	l.Helper()
	b := &box{lab: l, ns: l.namespace(), path: filepath.Join(l.TempDir(), "netns", "0123456789ab")}
	must(l, os.Mkdir(filepath.Dir(b.path), 0o700))
	must(l, os.WriteFile(b.path, nil, 0o600))
	must(l, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(l, unix.Mount(fmt.Sprintf("/proc/self/fd/%d", b.ns), b.path, "", unix.MS_BIND, ""))
	l.Cleanup(b.unmount)
	// As engines do: no IPv6 but for links that are to have it.
	l.inside(b.ns, func() { l.up("lo"); l.setSysctl("net/ipv6/conf/default/disable_ipv6", "1") })
	return b
}

// unmount takes the namespace from its path, where a file stays.
func (b *box) unmount() {
	if err := unix.Unmount(b.path, unix.MNT_DETACH); err != nil && err != unix.EINVAL {
		b.Error(err)
	}
}

// join does what an engine does after Join.
func (b *box) join(e state.Endpoint, name string, routers ...string) state.Endpoint {
	b.Helper()
	must(b, netlink.LinkSetNsFd(b.link(e.ContainerLink()), int(b.ns)))
	b.inside(b.ns, func() {
		link := b.link(e.ContainerLink())
		must(b, netlink.LinkSetName(link, name))
		if e.Addr6.IsValid() {
			b.setSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "0")
		}
		must(b, netlink.LinkSetUp(link))
		for _, p := range []netip.Prefix{e.Addr4, e.Addr6} {
			if p.IsValid() {
				must(b, netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}))
			}
		}
		for _, r := range routers {
			must(b, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(r)}))
		}
	})
	e.Sandbox = b.path
	return e
}

// describe tells all that there is of the container's links, but for what the kernel numbers anew.
func (b *box) describe() []string {
	b.Helper()
	var out []string
	b.inside(b.ns, func() {
		links, err := netlink.LinkList()
		must(b, err)
		names := map[int]string{}
		for _, link := range links {
			a := link.Attrs()
			names[a.Index] = a.Name
			out = append(out, fmt.Sprint(a.Name, " ", a.HardwareAddr, " mtu ", a.MTU, " up ", isUp(link), " ", b.addresses(a.Name),
				" no IPv6 ", b.sysctl("net/ipv6/conf/"+a.Name+"/disable_ipv6")))
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := netlink.RouteList(nil, family)
			must(b, err)
			for _, r := range routes {
				if r.Dst.IP.IsLinkLocalUnicast() {
					continue // as soon as there is a carrier
				}
				out = append(out, fmt.Sprint(r.Dst, " via ", r.Gw, " dev ", names[r.LinkIndex], " src ", r.Src, " ", r.Protocol, r.Priority))
			}
		}
	})
	slices.Sort(out)
	return out
}

// reaches asks a server on the host, in the container's network.
func (b *box) reaches(addrs ...string) {
	b.Helper()
	for _, a := range addrs {
		server, err := net.Listen("tcp", net.JoinHostPort(a, "0"))
		must(b, err)
		b.inside(b.ns, func() {
			c, err := net.DialTimeout("tcp", server.Addr().String(), 5*time.Second)
			if err != nil {
				b.Fatalf("from the container: %v", err)
			}
			c.Close()
		})
		server.Close()
	}
}

// same checks that the container is as before.
func (b *box) same(what string, want []string) {
	b.Helper()
	if diff := cmp.Diff(want, b.describe()); diff != "" {
		b.Errorf("%s (-before +after):\n%s", what, diff)
	}
}

// TestRewire: whatever pair is deleted, on whichever side, the container is as it was.
func TestRewire(t *testing.T) {
	l := newLab(t)
	web, back, four, inner := network(1), network(2), network(3), network(4)
	four.V6, inner.Internal = state.Subnet{}, true
	e1, e2, e3, e4 := endpoint(1, 11), endpoint(2, 12), endpoint(3, 13), endpoint(4, 14)
	e3.Addr6 = netip.Prefix{}
	l.apply(snapshot(web, back, four, inner, e1, e2, e3, e4))
	b := l.box()
	// Not in the order of their ids.
	e4 = b.join(e4, "eth0")
	e2 = b.join(e2, "eth1", "10.2.0.1", "fd00:2::1")
	e1, e3 = b.join(e1, "eth2"), b.join(e3, "eth3")
	s := snapshot(web, back, four, inner, e1, e2, e3, e4)
	l.apply(s)
	before := b.describe()
	b.reaches("10.1.0.1", "fd00:1::1", "10.2.0.1", "fd00:2::1", "10.3.0.1", "10.4.0.1", "fd00:4::1")

	e2.Ports = []state.Port{{Proto: state.TCP, HostPort: 80, ContainerPort: 80}} // that one is the way out
	s = snapshot(web, back, four, inner, e1, e2, e3, e4)
	for name, remove := range map[string]func(){
		"the way out, on the host":      func() { l.remove(e2.HostLink()) },
		"another one, on the host":      func() { l.remove(e1.HostLink()) },
		"the way out, in the container": func() { l.inside(b.ns, func() { l.remove("eth1") }) },
		"one without IPv6":              func() { l.inside(b.ns, func() { l.remove("eth3") }) },
		"one of an internal network":    func() { l.remove(e4.HostLink()) },
		"the bridge and the pair":       func() { l.remove(back.Bridge); l.remove(e2.HostLink()) },
		"all of them": func() {
			l.remove(e1.HostLink())
			l.remove(e2.HostLink())
			l.remove(e3.HostLink())
			l.remove(e4.HostLink())
		},
		"all of them, with their bridges": func() { must(t, first2(l.links.Purge())); l.same("links", len(l.everything()), 1) },
	} {
		remove()
		l.apply(s)
		b.same(name, before)
		b.reaches("10.1.0.1", "fd00:1::1", "10.2.0.1", "fd00:2::1", "10.3.0.1", "10.4.0.1", "fd00:4::1")
		for _, e := range []state.Endpoint{e1, e2, e3, e4} {
			host := l.link(e.HostLink())
			l.same(name+": alias", host.Attrs().Alias, e.Alias())
			l.same(name+": IPv6 at the host's end", l.sysctl("net/ipv6/conf/"+e.HostLink()+"/disable_ipv6"), "1")
		}
		if lost, err := l.links.Lost(t.Context(), []state.Endpoint{e1, e2, e3, e4}); err != nil || len(lost) > 0 {
			t.Errorf("%s: lost %v, %v", name, lost, err)
		}
	}
}

// TestRewireWaysOut: a container goes out as before, by whichever link the engine chose in each family, and not at all in one for
// which it chose none.
func TestRewireWaysOut(t *testing.T) {
	for name, routers := range map[string][2][]string{
		"by the second":           {nil, {"10.2.0.1", "fd00:2::1"}},
		"one family each":         {{"fd00:1::1"}, {"10.2.0.1"}},
		"IPv4 only by the second": {nil, {"10.2.0.1"}},
		"nowhere":                 {},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			web, back, e1, e2 := network(1), network(2), endpoint(1, 11), endpoint(2, 12)
			l.apply(snapshot(web, back, e1, e2))
			b := l.box()
			e1, e2 = b.join(e1, "eth0", routers[0]...), b.join(e2, "eth1", routers[1]...)
			s := snapshot(web, back, e1, e2)
			l.apply(s)
			before := b.describe()
			for _, lost := range [][]state.Endpoint{{e1, e2}, {e1}, {e2}} {
				for _, e := range lost {
					l.remove(e.HostLink())
				}
				l.apply(s)
				b.same(fmt.Sprint(len(lost), " lost"), before)
			}
		})
	}
}

func first2[T any](_ T, err error) error { return err }

// TestRewireUnseen: a daemon that was started after the deletion gives the first free name, and tells what it found.
func TestRewireUnseen(t *testing.T) {
	l := newLab(t)
	n, other, e, neighbour := network(1), network(2), endpoint(1, 11), endpoint(2, 12)
	n.LinkPrefix = "lan"
	l.apply(snapshot(n, other, e, neighbour))
	b := l.box()
	e, neighbour = b.join(e, "lan0", "10.1.0.1", "fd00:1::1"), b.join(neighbour, "lan1")
	s := snapshot(n, other, e, neighbour)
	l.apply(s)
	before := b.describe()
	l.remove(e.HostLink())
	next, err := New(Sysctl{Root: "/proc/sys"})
	must(t, err)
	t.Cleanup(next.Close)
	l.links = next
	found, err := next.Prepare().Inspect(t.Context(), s)
	must(t, err)
	l.same("differences", texts(found), "link "+e.HostLink()+" is missing")
	l.same("made by a mere look", l.has(e.HostLink()), false)
	must(t, next.Prepare().Apply(t.Context(), s))
	l.same("repairs", texts(next.Prepare().Found()), "link "+e.HostLink()+" is missing")
	must(t, next.Activate().Apply(t.Context(), s))
	b.same("the container", before)
}

// TestRewireApart: the new port is apart from the others like the one before.
func TestRewireApart(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 11)
	n.NoICC = true
	l.apply(snapshot(n, e))
	b := l.box()
	e = b.join(e, "eth0")
	s := snapshot(n, e)
	l.apply(s)
	portNow := func() port {
		ports := map[int]port{}
		must(t, l.links.readPorts(ports, 0, l.link(e.HostLink()).Attrs().Index))
		return ports[l.link(e.HostLink()).Attrs().Index]
	}
	before := portNow()
	l.remove(e.HostLink())
	l.prepare(s)
	l.same("up before the firewall", isUp(l.link(e.HostLink())), false)
	l.apply(s)
	l.same("port", portNow(), before)
	l.same("isolated", portNow().isolated, true)
	b.reaches("10.1.0.1", "fd00:1::1")
}

// TestRewireUnfinished: a pair that a crash left half made is made anew.
func TestRewireUnfinished(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 11)
	l.apply(snapshot(n, e))
	b := l.box()
	e = b.join(e, "eth0", "10.1.0.1", "fd00:1::1")
	s := snapshot(n, e)
	l.apply(s)
	before := b.describe()
	l.remove(e.HostLink())
	half := newVeth(l.link(n.Bridge), n, e)
	half.PeerName, half.PeerNamespace = "eth0", netlink.NsFd(b.ns)
	must(t, netlink.LinkAdd(half))
	l.apply(s)
	b.same("the container", before)
	b.reaches("10.1.0.1", "fd00:1::1")
}

// TestNotRewired: nothing is made, and nothing fails, where there is no container to give a link to.
func TestNotRewired(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 11)
	l.apply(snapshot(n, e))
	b := l.box()
	e = b.join(e, "eth0")
	l.apply(snapshot(n, e))
	l.remove(e.HostLink())
	dir := filepath.Dir(b.path)
	mount := func(name, what string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, unix.Mount(what, path, "", unix.MS_BIND, ""))
		t.Cleanup(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
		return path
	}
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, os.Symlink(b.path, filepath.Join(dir, "linked")))
	own := mount("own", fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	sandboxes := map[string]string{
		"missing":                   filepath.Join(dir, "none"),
		"the host's own":            own,
		"of another kind":           mount("uts", "/proc/self/ns/uts"),
		"a pipe":                    filepath.Join(dir, "fifo"),
		"a link":                    filepath.Join(dir, "linked"),
		"with a way round":          filepath.Join(dir, "..", "netns", "0123456789ab") + "/../0123456789ab",
		"relative":                  "netns/0123456789ab",
		"in another folder":         fmt.Sprintf("/proc/self/fd/%d", b.ns),
		"longer than a path can be": "/" + strings.Repeat("a", 5000) + "/netns/0123456789ab",
	}
	nothing := func(what, sandbox string) {
		t.Helper()
		e.Sandbox = sandbox
		s := snapshot(n, e)
		l.apply(s)
		l.same(what+": host's end", l.has(e.HostLink()), false)
		l.same(what+": container's end on the host", l.has(e.ContainerLink()), false)
		l.same(what+": links in the container", len(b.describe()), 1)
		found, err := l.links.Prepare().Inspect(t.Context(), s)
		must(t, err)
		l.same(what+": differences", texts(found), "")
	}
	for what, sandbox := range sandboxes {
		nothing(what, sandbox)
	}
	b.unmount()
	nothing("gone, its path left over", b.path)

	// A link that the engine has put back, or not taken yet, is not lost.
	l.apply(snapshot(n))
	e.Sandbox = ""
	l.apply(snapshot(n, e))
	e.Sandbox = l.box().path
	l.apply(snapshot(n, e))
	l.same("container's end on the host", l.has(e.ContainerLink()), true)
}
