package link

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestReadRoute(t *testing.T) {
	attr := func(kind int, value []byte) []byte { return nl.NewRtAttr(kind, value).Serialize() }
	message := func(head unix.RtMsg, attrs ...[]byte) []byte {
		return append((&nl.RtMsg{RtMsg: head}).Serialize(), slices.Concat(attrs...)...)
	}
	hop := func(link int32) []byte {
		return (&nl.RtNexthop{RtNexthop: unix.RtNexthop{Len: unix.SizeofRtNexthop, Ifindex: link}}).Serialize()
	}
	for _, row := range []struct {
		name   string
		m      []byte
		family int
		want   route
		ok     bool
	}{
		{
			"by a link", message(unix.RtMsg{Family: unix.AF_INET, Dst_len: 16, Type: unix.RTN_UNICAST, Table: 254},
				attr(unix.RTA_DST, []byte{10, 1, 0, 0}), attr(unix.RTA_OIF, nl.Uint32Attr(7)), attr(unix.RTA_PRIORITY, nl.Uint32Attr(9))),
			unix.AF_INET,
			route{to: netip.MustParsePrefix("10.1.0.0/16"), kind: unix.RTN_UNICAST, table: 254, link: 7, priority: 9},
			true,
		},
		{
			"default, with an MTU, by two gateways", message(unix.RtMsg{Family: unix.AF_INET6, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_RA},
				attr(unix.RTA_METRICS, attr(unix.RTAX_MTU, nl.Uint32Attr(1400))), attr(unix.RTA_MULTIPATH, append(hop(3), hop(4)...))),
			unix.AF_INET6,
			route{to: netip.MustParsePrefix("::/0"), kind: unix.RTN_UNICAST, protocol: unix.RTPROT_RA, link: 3, mtu: 1400},
			true,
		},
		{
			"of a table above 255", message(unix.RtMsg{Family: unix.AF_INET, Table: unix.RT_TABLE_COMPAT}, attr(unix.RTA_TABLE, nl.Uint32Attr(51820))),
			unix.AF_INET,
			route{to: netip.MustParsePrefix("0.0.0.0/0"), table: 51820},
			true,
		},
		{"of multicast (RTNL_FAMILY_IPMR)", message(unix.RtMsg{Family: 128}), unix.AF_INET, route{}, false},
		{"cached", message(unix.RtMsg{Family: unix.AF_INET6, Flags: unix.RTM_F_CLONED}), unix.AF_INET6, route{}, false},
		{"cut short", message(unix.RtMsg{Family: unix.AF_INET})[:8], unix.AF_INET, route{}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, ok := readRoute(row.m, row.family)
			if ok != row.ok || got != row.want {
				t.Errorf("%+v, %v; want %+v, %v", got, ok, row.want, row.ok)
			}
		})
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(7)).Serialize(), 0)
	f.Add([]byte{4, 0, 1, 0, 9, 0, 2, 0, 1}, 4)
	f.Fuzz(func(t *testing.T, message []byte, header int) {
		seen := 0
		for _, value := range attributes(message, max(header, 0)) {
			seen += unix.SizeofRtAttr + len(value)
		}
		if seen > len(message) {
			t.Errorf("%d bytes of attributes in %d", seen, len(message))
		}
		readAddress(message)
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			if r, ok := readRoute(message, family); ok && r.to.IsValid() && r.to.Bits() > r.to.Addr().BitLen() {
				t.Errorf("route %+v", r)
			}
		}
	})
}
