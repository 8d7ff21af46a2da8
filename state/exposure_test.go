package state

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParsePrefixes(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"192.0.2.0/24", "192.0.2.0/24", ""},
		{"2001:db8::1, 192.0.2.7,192.0.2.0/24,192.0.2.7", "192.0.2.0/24,192.0.2.7/32,2001:db8::1/128", ""},
		{"0.0.0.0/0,::/0", "0.0.0.0/0,::/0", ""},
		{"192.0.2.7/24", "", "write 192.0.2.0/24"},
		{"", "", "is no prefix"},
		{"192.0.2.0/24,", "", "is no prefix"},
		{"::ffff:192.0.2.1", "", "is no prefix"},
		{"fe80::1%eth0", "", "is no prefix"},
		{"eth0", "", "is no prefix"},
		{strings.Repeat("192.0.2.1,", 300) + "192.0.2.1", "", "301 prefixes"},
	} {
		got, err := ParsePrefixes(c.in)
		if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("ParsePrefixes(%.40q) = %q, %v; want %q, %q", c.in, got, err, c.want, c.err)
		}
	}
}

func TestModes(t *testing.T) {
	decided := Modes{Inherit: PublishHost, Auto: PublishLearned}
	strict := Modes{Strict: true}
	for _, c := range []struct {
		modes Modes
		mode  Publish
		proto Proto
		want  Publish
	}{
		{Modes{}, PublishInherit, TCP, PublishDNAT},
		{Modes{}, PublishAuto, UDP, PublishDNAT},
		{Modes{}, PublishHost, TCP, PublishHost},
		{decided, PublishInherit, TCP, PublishHost},
		{decided, PublishAuto, UDP, PublishLearned},
		{decided, PublishDNAT, TCP, PublishDNAT},
		{decided, PublishInherit, SCTP, PublishDNAT},
		{decided, PublishAuto, SCTP, PublishDNAT},
		{decided, PublishLocalhost, SCTP, PublishLocalhost},
		{Modes{Inherit: PublishLocalhost}, PublishInherit, SCTP, PublishLocalhost},
		{decided, PublishHost, SCTP, PublishHost}, // which the driver refuses
		{strict, PublishDNAT, TCP, PublishHost},
		{strict, PublishLearned, UDP, PublishHost},
		{strict, PublishInherit, TCP, PublishHost},
		{strict, PublishLocalhost, TCP, PublishLocalhost},
		{strict, PublishDNAT, SCTP, PublishDNAT},
	} {
		if got := c.modes.Of(Exposure{Publish: c.mode}, c.proto); got != c.want {
			t.Errorf("%q with %s and %+v is %s, not %s", c.mode, c.proto, c.modes, got, c.want)
		}
	}
}

func TestExposure(t *testing.T) {
	network := Exposure{Publish: PublishHost, From: "192.0.2.0/24", Links: "eth0"}
	n, e := Network{ID: "n", Exposure: network}, Endpoint{ID: "e", Network: "n"}
	s := Snapshot{Networks: []Network{n}, Endpoints: []Endpoint{e}}
	if got := s.Exposure(e); got != network {
		t.Errorf("an endpoint that says nothing has %+v", got)
	}
	before := e
	e.Exposure = Exposure{Publish: PublishDNAT, From: "2001:db8::/32"}
	if e.Equal(before) {
		t.Error("an endpoint with another exposure is the same")
	}
	if got, want := s.Exposure(e), (Exposure{PublishDNAT, "2001:db8::/32", "eth0"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for addr, want := range map[string]bool{"192.0.2.7": true, "192.0.3.7": false, "2001:db8::7": true, "2001:db9::7": false, "fe80::7": false} {
		if got := Prefixes("192.0.2.0/24,2001:db8::/32").Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is contained: %v", addr, got)
		}
	}
	if Prefixes("").Contains(netip.MustParseAddr("192.0.2.7")) {
		t.Error("no prefixes contain an address")
	}
	if got := network.From.Family(true); got != nil {
		t.Errorf("IPv6 prefixes of %s: %v", network.From, got)
	}
}
