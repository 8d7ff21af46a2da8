package sctp

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestPacket holds the form against a packet that is written out by hand, all but its checksum: that is
// proved by the kernel's connection tracking, which drops what has another (link, TestFlows).
func TestPacket(t *testing.T) {
	p := packet{from: 40000, to: 3868, chunk: chunkInit, tag: 0x01020304}
	raw := p.marshal()
	want := "9c400f1c" + "00000000" + hex.EncodeToString(raw[8:12]) + "01000014" + "01020304" + "00010000" + "00010001" + "01020304"
	if got := hex.EncodeToString(raw); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, ok := parse(raw); !ok || got.from != p.from || got.to != p.to || got.tag != p.tag || got.cookie != nil {
		t.Errorf("read back as %+v %t", got, ok)
	}
	raw[20]++
	if _, ok := parse(raw); ok {
		t.Error("a broken packet is read")
	}
}

func TestCookie(t *testing.T) {
	for _, cookie := range []string{"", "a", "ab", "abc", "abcd", "web 192.0.2.1:5"} {
		p := packet{from: 1, to: 2, vtag: 3, chunk: chunkInitAck, tag: 4, cookie: []byte(cookie)}
		raw := p.marshal()
		got, ok := parse(raw)
		if !ok || !bytes.Equal(got.cookie, p.cookie) || len(raw)%4 != 0 {
			t.Errorf("%q is read back as %q %t from %d bytes", cookie, got.cookie, ok, len(raw))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(packet{chunk: chunkInit}.marshal())
	f.Add(packet{chunk: chunkInitAck, cookie: []byte("x")}.marshal())
	f.Fuzz(func(_ *testing.T, b []byte) {
		parse(b)
		if len(b) >= headerSize+initSize { // with the right checksum, so that the rest is read too
			sum := checksum(b)
			b[8], b[9], b[10], b[11] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
			parse(b)
		}
	})
}

// TestRoundTrip speaks over loopback, in both families.
func TestRoundTrip(t *testing.T) {
	for _, row := range []struct{ name, serve, ask, bind, want string }{
		{"IPv4", "127.0.0.1:3868", "127.0.0.1:3868", "", "web 127.0.0.1"},
		{"IPv4 from another source", ":3868", "127.0.0.1:3868", "127.0.0.9:4000", "web 127.0.0.9"},
		{"IPv6", "[::1]:3868", "[::1]:3868", "", "web ::1"},
		{"IPv6 by every address", ":3868", "[::1]:3868", "[::1]:4000", "web ::1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, err := Listen(row.serve)
			if errors.Is(err, os.ErrPermission) {
				t.Skip("raw sockets need CAP_NET_RAW")
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var source uint16
			go s.Serve(func(p netip.AddrPort) string { return "web " + p.Addr().String() })
			var d net.Dialer
			if row.bind != "" {
				at := netip.MustParseAddrPort(row.bind)
				d.LocalAddr, source = net.UDPAddrFromAddrPort(at), at.Port()
			}
			c, err := Dial(context.Background(), d, row.ask)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := c.local.Port(); source != 0 && got != source || got == 0 {
				t.Errorf("the source port is %d", got)
			}
			c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Write(nil); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) != row.want {
				t.Errorf("%q %v, want %q", buf[:n], err, row.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOPROTOOPT, syscall.EPROTO} {
		if err := refused(os.NewSyscallError("read", errno)); !errors.Is(err, syscall.ECONNREFUSED) || !errors.Is(err, errno) {
			t.Errorf("%v", err)
		}
	}
	if err := refused(os.ErrDeadlineExceeded); !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
}

func TestBadAddresses(t *testing.T) {
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:x", "host:1", "127.0.0.1:70000"} {
		if s, err := Listen(addr); err == nil {
			s.Close()
			t.Errorf("listens on %q", addr)
		}
		if c, err := Dial(context.Background(), net.Dialer{}, addr); err == nil {
			c.Close()
			t.Errorf("dials %q", addr)
		}
	}
}
