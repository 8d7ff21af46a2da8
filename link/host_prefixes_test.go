package link

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func TestHostPrefixesOccupies(t *testing.T) {
	for _, row := range []struct {
		name, prefix string
		want         bool
	}{
		{"IPv4 subnet", "192.168.1.0/24", true},
		{"IPv6 subnet", "2001:db8::/64", true},
		{"IPv4 host", "10.0.0.1/32", true},
		{"IPv6 host", "2001:db8::1/128", true},
		{"unique local", "fd00::/8", true},
		{"whole private range", "10.0.0.0/8", true},
		{"IPv6 global range", "2000::/3", true},
		{"IPv4 link-local is a LAN's", "169.254.0.0/16", true},
		{"IPv4 default", "0.0.0.0/0", false},
		{"IPv6 default", "::/0", false},
		{"IPv4 default, lower half", "0.0.0.0/1", false},
		{"IPv4 default, upper half", "128.0.0.0/1", false},
		{"IPv6 default, lower half", "::/1", false},
		{"IPv6 default, upper half", "8000::/1", false},
		{"IPv4 loopback", "127.0.0.0/8", false},
		{"IPv4 loopback host", "127.0.0.53/32", false},
		{"IPv6 loopback", "::1/128", false},
		{"IPv4 multicast", "224.0.0.0/4", false},
		{"IPv6 multicast", "ff00::/8", false},
		{"IPv6 link-local", "fe80::/64", false},
		{"IPv6 link-local with host bits", "fe80::1/64", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := occupies(netip.MustParsePrefix(row.prefix)); got != row.want {
				t.Errorf("occupies(%s) = %v, want %v", row.prefix, got, row.want)
			}
		})
	}
}

func TestHostPrefixesNameservers(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       string
	}{
		{"both families", "nameserver 192.0.2.53\nnameserver 2001:db8::53\n", "192.0.2.53 2001:db8::53"},
		{"no newline at the end", "nameserver 192.0.2.53", "192.0.2.53"},
		{"tabs, blanks and a carriage return", " \tnameserver\t 192.0.2.53 \r\n", "192.0.2.53"},
		{"with a zone", "nameserver fe80::1%eth0\n", "fe80::1"},
		{"IPv4 in IPv6 form", "nameserver ::ffff:192.0.2.53\n", "192.0.2.53"},
		{"other lines", "# nameserver 192.0.2.1\n;nameserver 192.0.2.2\nsearch nameserver 192.0.2.3\noptions edns0\n", ""},
		{"malformed lines", "nameserver\nnameserver dns.example\nnameserver 192.0.2.0/24\nnameservers 192.0.2.4\n", ""},
		{"empty", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got []string
			for _, a := range nameservers([]byte(row.text)) {
				got = append(got, a.String())
			}
			if diff := cmp.Diff(row.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("nameservers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHostPrefixesNameserverFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	stub := write("stub", "nameserver 127.0.0.53\nnameserver 192.0.2.53\n")
	real := write("real", "nameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::53\n")
	missing := filepath.Join(dir, "missing")

	found := prefixSet{}
	if err := found.addNameservers([]string{stub, missing, real}); err != nil {
		t.Fatal(err)
	}
	checkPrefixSet(t, found, "192.0.2.53/32", "2001:db8::53/128")

	if err := (prefixSet{}).addNameservers([]string{dir}); err == nil {
		t.Error("a directory was read as a file without an error")
	}
}

func TestHostPrefixesSet(t *testing.T) {
	found := prefixSet{}
	found.add(netip.Prefix{})
	for _, p := range []string{"0.0.0.0/0", "::/0", "192.0.2.7/24", "192.0.2.9/24", "2001:db8::7/64", "192.0.2.1/32"} {
		found.add(netip.MustParsePrefix(p))
	}
	checkPrefixSet(t, found, "192.0.2.0/24", "192.0.2.1/32", "2001:db8::/64")
}

func checkPrefixSet(t *testing.T, found prefixSet, want ...string) {
	t.Helper()
	var got []string
	for p := range maps.Keys(found) {
		got = append(got, p.String())
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("prefixes (-want +got):\n%s", diff)
	}
}

func TestHostPrefixesUninterrupted(t *testing.T) {
	interrupted := fmt.Errorf("dump: %w", netlink.ErrDumpInterrupted)
	refused := errors.New("refused")
	repeat := func(err error, n int) []error { return slices.Repeat([]error{err}, n) }
	for _, row := range []struct {
		name    string
		answers []error // one per call; the last of them is not followed by a call
		want    error
	}{
		{"at once", []error{nil}, nil},
		{"after two interruptions", []error{interrupted, interrupted, nil}, nil},
		{"at the last attempt", append(repeat(interrupted, maxDumps-1), nil), nil},
		{"never", repeat(interrupted, maxDumps), netlink.ErrDumpInterrupted},
		{"another error", []error{refused}, refused},
		{"another error later", []error{interrupted, refused}, refused},
	} {
		t.Run(row.name, func(t *testing.T) {
			calls := 0
			err := uninterrupted(t.Context(), func() error {
				calls++
				return row.answers[calls-1]
			})
			if !errors.Is(err, row.want) {
				t.Errorf("error %v, want %v", err, row.want)
			}
			if calls != len(row.answers) {
				t.Errorf("%d calls, want %d", calls, len(row.answers))
			}
		})
	}
}

func TestHostPrefixesUninterruptedEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := uninterrupted(ctx, func() error {
		calls++
		cancel()
		return netlink.ErrDumpInterrupted
	})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("error %v after %d calls, want the context's after 1", err, calls)
	}
}
