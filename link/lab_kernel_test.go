//go:build kernel

package link

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// insideEnv marks the process that TestMain started in its own namespaces.
const insideEnv = "DRAWBRIDGE_LINK_TEST"

// TestMain runs the tests in a network and a mount namespace of their own; each lab then makes
// a network namespace for itself, so that none is ever in the machine's.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// lab is a host: a network namespace that the test's goroutine is in. What /proc/sys/net shows
// goes by the thread that looks.
type lab struct {
	*testing.T
	links *Links
}

func newLab(t *testing.T) *lab {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test
	machine, err := netns.Get()
	must(t, err)
	own, err := netns.New()
	must(t, err)
	t.Cleanup(func() { machine.Close(); own.Close() })
	if own.Equal(machine) {
		t.Fatal("the test is not in a network namespace of its own")
	}
	links, err := New(Sysctl{Root: "/proc/sys"})
	must(t, err)
	t.Cleanup(links.Close)
	l := &lab{t, links}
	l.up("lo")
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// namespace makes another network namespace, for a container.
func (l *lab) namespace() netns.NsHandle {
	l.Helper()
	var ns netns.NsHandle
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		var err error
		ns, err = netns.New()
		done <- err
	}()
	must(l, <-done)
	l.Cleanup(func() { ns.Close() })
	return ns
}

// prepare also waits for the end of what is doomed.
func (l *lab) prepare(s state.Snapshot) {
	l.Helper()
	must(l, l.links.Prepare().Apply(l.Context(), s))
	must(l, l.links.reaper.reap())
}

func (l *lab) follow(from, to state.Snapshot) {
	l.Helper()
	must(l, l.links.Prepare().Follow(l.Context(), state.Compare(from, to)))
	must(l, l.links.Activate().Follow(l.Context(), state.Compare(from, to)))
}

func (l *lab) apply(s state.Snapshot) {
	l.Helper()
	l.prepare(s)
	must(l, l.links.Activate().Apply(l.Context(), s))
}

func (l *lab) has(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

func (l *lab) link(name string) netlink.Link {
	l.Helper()
	link, err := netlink.LinkByName(name)
	must(l, err)
	return link
}

func (l *lab) up(name string) { l.Helper(); must(l, netlink.LinkSetUp(l.link(name))) }

func (l *lab) remove(name string) { l.Helper(); must(l, netlink.LinkDel(l.link(name))) }

// foreign makes a link of somebody else.
func (l *lab) foreign(link netlink.Link, addrs ...string) netlink.Link {
	l.Helper()
	must(l, netlink.LinkAdd(link))
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		must(l, err)
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		must(l, netlink.AddrAdd(link, addr))
	}
	return l.link(link.Attrs().Name)
}

func bridgeNamed(name string) *netlink.Bridge {
	return &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1}}
}

func vethNamed(name, peer string) *netlink.Veth {
	return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1}, PeerName: peer}
}

// addresses of a link, but for IPv6 link-local ones, with what keeps an address from use.
func (l *lab) addresses(name string) string {
	l.Helper()
	addrs, err := netlink.AddrList(l.link(name), netlink.FAMILY_ALL)
	must(l, err)
	var out []string
	for _, a := range addrs {
		if a.IP.To4() == nil && a.IP.IsLinkLocalUnicast() {
			continue
		}
		s := a.IPNet.String()
		if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			s += "?"
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (l *lab) sysctl(key string) string {
	l.Helper()
	v, err := l.links.sysctl.get(key)
	must(l, err)
	return v
}

func (l *lab) setSysctl(key, value string) {
	l.Helper()
	must(l, os.WriteFile("/proc/sys/"+key, []byte(value), 0))
}

func (l *lab) same(what string, got, want any) {
	l.Helper()
	if got != want {
		l.Errorf("%s: %v, want %v", what, got, want)
	}
}

func id(i int) string { return fmt.Sprintf("%011x%053x", i, 0xd0c) }

func network(n int) state.Network {
	return state.Network{
		ID: state.NetworkID(id(n)), Bridge: fmt.Sprintf("br%d", n), MTU: 1400,
		V4: subnet(fmt.Sprintf("10.%d.0.0/16", n), fmt.Sprintf("10.%d.0.1", n)),
		V6: subnet(fmt.Sprintf("fd00:%x::/64", n), fmt.Sprintf("fd00:%x::1", n)),
	}
}

func subnet(prefix, gateway string) state.Subnet {
	return state.Subnet{Prefix: netip.MustParsePrefix(prefix), Gateway: netip.MustParseAddr(gateway)}
}

func endpoint(n, e int) state.Endpoint {
	return state.Endpoint{
		ID: state.EndpointID(id(e)), Network: state.NetworkID(id(n)), MAC: state.GenerateMAC(id(e)),
		Addr4: netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.%d/16", n, e/250, 2+e%250)),
		Addr6: netip.MustParsePrefix(fmt.Sprintf("fd00:%x::%x/64", n, e+2)),
	}
}

func snapshot(parts ...any) state.Snapshot {
	var s state.Snapshot
	for _, p := range parts {
		switch p := p.(type) {
		case state.Network:
			s.Networks = append(s.Networks, p)
		case state.Endpoint:
			s.Endpoints = append(s.Endpoints, p)
		case state.Forwarding:
			s.Forwarding = p
		}
	}
	s.Sort()
	return s
}

func isUp(link netlink.Link) bool { return link.Attrs().Flags&net.FlagUp != 0 }

// watching runs a watch in the lab's namespace until stop is called, and hands on what it tells.
func (l *lab) watching(watch func(ctx context.Context, changed func(reason string)) error) (reasons chan string, stop func()) {
	l.Helper()
	ns, err := netns.Get()
	must(l, err)
	ctx, cancel := context.WithCancel(l.Context())
	reasons, ended := make(chan string, 100), make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			ended <- err
			return
		}
		ended <- watch(ctx, func(reason string) { reasons <- reason })
	}()
	return reasons, func() {
		l.Helper()
		cancel()
		must(l, <-ended)
	}
}
