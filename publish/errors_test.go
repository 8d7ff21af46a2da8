package publish

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestRefuse(t *testing.T) {
	tests := []struct {
		name string
		at   string
		err  syscall.Errno
		want string
	}{
		{"foreign address", "10.0.0.9:80", syscall.EADDRNOTAVAIL, "port 10.0.0.9:80/tcp cannot be published: 10.0.0.9 is not an address of this host"},
		{"foreign v6 address", "[2001:db8::9]:80", syscall.EADDRNOTAVAIL, "port [2001:db8::9]:80/tcp cannot be published: 2001:db8::9 is not an address of this host"},
		{"no v6", "[::]:80", syscall.EAFNOSUPPORT, "port [::]:80/tcp cannot be published: this host has no IPv6"},
		{"no v4", "0.0.0.0:80", syscall.EAFNOSUPPORT, "port 0.0.0.0:80/tcp cannot be published: this host has no IPv4"},
		{"link-local", "[fe80::1]:80", syscall.EINVAL, "port [fe80::1]:80/tcp cannot be published: fe80::1 is a link-local address, which is not unique on this host: give another address or none"},
		{"files of the process", "0.0.0.0:80", syscall.EMFILE, "port 0.0.0.0:80/tcp cannot be published: drawbridge has as many files open as it may: raise the limit (LimitNOFILE= in drawbridge-relay.service, ulimit -n elsewhere)"},
		{"files of the host", "0.0.0.0:80", syscall.ENFILE, "port 0.0.0.0:80/tcp cannot be published: this host has as many files open as it may: raise the sysctl fs.file-max"},
		{"permission", "0.0.0.0:80", syscall.EACCES, "port 0.0.0.0:80/tcp cannot be published: drawbridge is not permitted to bind it: it needs CAP_NET_ADMIN, for low ports CAP_NET_BIND_SERVICE, and a security module may forbid more"},
		{"anything else", "0.0.0.0:80", syscall.ENOBUFS, "binding port 0.0.0.0:80/tcp: bind: no buffer space available"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := place{state.TCP, netip.MustParseAddrPort(tt.at)}
			got := refuse(at, os.NewSyscallError("bind", tt.err))
			if got.Error() != tt.want {
				t.Errorf("%q\nwant %q", got, tt.want)
			}
			if !errors.Is(got, tt.err) {
				t.Errorf("errors.Is does not find %v", tt.err)
			}
		})
	}
}

func TestConflictSentence(t *testing.T) {
	at := place{state.UDP, netip.MustParseAddrPort("0.0.0.0:53")}
	e := endpoint("0")
	tests := []struct {
		name string
		c    conflict
		want string
	}{
		{"process", conflict{at: at, owner: "dnsmasq (pid 7)"}, "port 0.0.0.0:53/udp is already in use by dnsmasq (pid 7)"},
		{
			"Docker's",
			conflict{at: at, owner: "docker-proxy (pid 7), which publishes it for the container 172.17.0.2:53 of Docker's own networks"},
			"port 0.0.0.0:53/udp is already in use by docker-proxy (pid 7), which publishes it for the container 172.17.0.2:53 of Docker's own networks",
		},
		{"unknown", conflict{at: at}, "port 0.0.0.0:53/udp is already in use on this host"},
		{"ours", conflict{at: at, holder: &binding{endpoint: e.ID, network: e.Network}}, "port 0.0.0.0:53/udp is already published by endpoint 000000000000 of network ffffffffffff"},
		{"twice", conflict{at: at, twice: true}, "port 0.0.0.0:53/udp is requested twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.c.Error(); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if !errors.Is(&tt.c, syscall.EADDRINUSE) {
				t.Error("is not an EADDRINUSE")
			}
		})
	}
}
