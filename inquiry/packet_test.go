package inquiry

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestFrame: what is sent is what the rules look for, has sums that hold, and says from where it comes.
func TestFrame(t *testing.T) {
	hardware := net.HardwareAddr{2, 1, 2, 3, 4, 5}
	for _, proto := range state.InquiryProtos {
		protocol, _ := protocolOf(proto)
		for _, ends := range [][2]string{{"192.0.2.2:1234", "192.0.2.1:8080"}, {"[2001:db8::2]:1234", "[2001:db8::1]:8080"}} {
			from, to := netip.MustParseAddrPort(ends[0]), netip.MustParseAddrPort(ends[1])
			v6 := from.Addr().Is6()
			f := frame(protocol, from, to, hardware, 1<<31)
			if string(f[:6]) != string(hardware) {
				t.Errorf("%s %s: it is for %x", proto, from, f[:6])
			}
			packet := f[etherSize:]
			length, header, addresses := binary.BigEndian.Uint16(packet[2:]), ip4Size, packet[12:20]
			if v6 {
				length, header, addresses = binary.BigEndian.Uint16(packet[4:]), ip6Size, packet[8:40]
			} else if folded(sum(0, packet[:ip4Size])) != 0 {
				t.Errorf("%s %s: the header's sum does not hold", proto, from)
			}
			if least, greatest := state.LengthInquiry(proto, v6); length < least || length > greatest {
				t.Errorf("%s %s: %d bytes, want %d to %d", proto, from, length, least, greatest)
			}
			segment := packet[header:]
			if folded(sum(sum(uint32(protocol)+uint32(len(segment)), addresses), segment)) != 0 {
				t.Errorf("%s %s: the sum does not hold", proto, from)
			}
			if p, whence, ok := source(packet); !ok || p != protocol || whence != from {
				t.Errorf("%s: read as %d from %s, %v", from, p, whence, ok)
			}
			if proto == state.TCP && (segment[13] != flagSYN || int(segment[12]>>4)*4 != len(segment)) {
				t.Errorf("%s: %x opens no connection", from, segment)
			}
		}
	}
	if _, ok := protocolOf(state.SCTP); ok {
		t.Error("nobody can be asked about SCTP")
	}
}

// TestSourceOfNothing: whatever is cut short is nobody's.
func TestSourceOfNothing(t *testing.T) {
	f := frame(unix.IPPROTO_TCP, netip.MustParseAddrPort("192.0.2.2:1"), netip.MustParseAddrPort("192.0.2.1:2"), nil, 0)[etherSize:]
	for n := range ip4Size + 2 {
		if _, from, ok := source(f[:n]); ok {
			t.Errorf("%d bytes are from %s", n, from)
		}
	}
	if _, _, ok := source([]byte{0x50}); ok {
		t.Error("IP 5 is from somebody")
	}
}

// TestTell: an answer replaces what nobody has read, and no loss replaces an answer.
func TestTell(t *testing.T) {
	c := make(chan bool, 1)
	tell(c, false)
	tell(c, true)
	tell(c, false)
	tell(c, true)
	if !<-c {
		t.Error("the answer is lost")
	}
	select {
	case more := <-c:
		t.Errorf("%v is left", more)
	default:
	}
}
