package link

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// nla writes a netlink attribute as the kernel does.
func nla(kind uint16, parts ...[]byte) []byte {
	value := slices.Concat(parts...)
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func nested(kind uint16, parts ...[]byte) []byte { return nla(kind|nl.NLA_F_NESTED, parts...) }

// tuple is one direction of a flow; without ports for a protocol that has none.
func tuple(kind uint16, proto byte, from, to string, ports bool) []byte {
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	ip := []uint16{nl.CTA_IP_V4_SRC, nl.CTA_IP_V4_DST}
	if src.Addr().Is6() {
		ip = []uint16{nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST}
	}
	number := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	l4 := [][]byte{nla(nl.CTA_PROTO_NUM, []byte{proto})}
	if ports {
		l4 = append(l4, nla(nl.CTA_PROTO_SRC_PORT, number(src.Port())), nla(nl.CTA_PROTO_DST_PORT, number(dst.Port())))
	}
	return nested(kind,
		nested(nl.CTA_TUPLE_IP, nla(ip[0], src.Addr().AsSlice()), nla(ip[1], dst.Addr().AsSlice())),
		nested(nl.CTA_TUPLE_PROTO, l4...))
}

func TestParseFlow(t *testing.T) {
	header := make([]byte, nl.SizeofNfgenmsg)
	for _, row := range []struct {
		name                    string
		proto                   byte
		from, to, answers, back string
		ports                   bool
	}{
		{"tcp", 6, "192.0.2.9:40000", "192.0.2.1:8080", "10.1.0.2:80", "192.0.2.9:40000", true},
		{"udp, IPv6", 17, "[2001:db8::9]:40000", "[2001:db8::1]:53", "[fd00:1::2]:53", "[2001:db8::9]:40000", true},
		{"sctp", 132, "192.0.2.9:40000", "192.0.2.1:3868", "10.1.0.2:3868", "192.0.2.9:40000", true},
		{"icmp has no ports", 1, "192.0.2.9:0", "192.0.2.1:0", "192.0.2.1:0", "192.0.2.9:0", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			status := nla(nl.CTA_STATUS, []byte{0, 0, 0, 0}) // of no interest
			sent := tuple(nl.CTA_TUPLE_ORIG, row.proto, row.from, row.to, row.ports)
			answer := tuple(nl.CTA_TUPLE_REPLY, row.proto, row.answers, row.back, row.ports)
			message := slices.Concat(header, sent, answer, status)
			f, ok := parseFlow(message)
			if !ok || f.proto != state.Proto(row.proto) || !bytes.Equal(f.raw, message[len(header):]) {
				t.Fatalf("%+v %t", f, ok)
			}
			at := netip.MustParseAddrPort
			if want := (direction{at(row.from), at(row.to)}); f.sent != want {
				t.Errorf("sent %v, want %v", f.sent, want)
			}
			if want := (direction{at(row.answers), at(row.back)}); f.answer != want {
				t.Errorf("answers %v, want %v", f.answer, want)
			}
			if _, ok := parseFlow(slices.Concat(header, sent, status)); ok {
				t.Error("a flow of one direction is read")
			}
		})
	}
}

func FuzzParseFlow(f *testing.F) {
	f.Add(slices.Concat(make([]byte, nl.SizeofNfgenmsg),
		tuple(nl.CTA_TUPLE_ORIG, 132, "192.0.2.9:1", "192.0.2.1:2", true), tuple(nl.CTA_TUPLE_REPLY, 132, "192.0.2.1:2", "192.0.2.9:1", true)))
	f.Add([]byte{0, 0, 0, 0, 5, 0, 1, 128, 1})
	f.Fuzz(func(t *testing.T, message []byte) {
		if c, ok := parseFlow(message); ok && !(c.sent.to.IsValid() && c.answer.from.IsValid()) {
			t.Errorf("%x gives an invalid address", message)
		}
	})
}
