package nftables

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// datatype is a type of a field in a key or value, with nft's name and number for it.
type datatype struct {
	name  string
	magic uint32
	size  int
	text  func(raw string) string
}

var (
	addr4   = typeOf(nftables.TypeIPAddr, addrText)
	addr6   = typeOf(nftables.TypeIP6Addr, addrText)
	proto   = typeOf(nftables.TypeInetProto, protoText)
	service = typeOf(nftables.TypeInetService, portText)
	ifname  = typeOf(nftables.TypeIFName, ifnameText)
)

func typeOf(t nftables.SetDatatype, text func(string) string) datatype {
	return datatype{name: t.Name, magic: t.GetNFTMagic(), size: int(t.Bytes), text: text}
}

// width is the place that a field takes in a key: a whole number of registers.
func (d datatype) width() int { return (d.size + 3) / 4 * 4 }

// combined returns nft's number for a sequence of fields, and its length.
func combined(fields []datatype) (magic, length uint32) {
	for _, f := range fields {
		magic = magic<<nftables.SetConcatTypeBits | f.magic
		length += uint32(f.width())
	}
	if len(fields) == 1 {
		length = uint32(fields[0].size)
	}
	return magic, length
}

// flags returns the set's flags as the kernel has them.
func (s Set) flags() uint32 {
	var f uint32
	if s.Interval {
		f |= unix.NFT_SET_INTERVAL
		if len(s.Key) > 1 {
			f |= nftables.NFT_SET_CONCAT
		}
	}
	if len(s.Value) > 0 {
		f |= unix.NFT_SET_MAP
	}
	if s.Timeout > 0 {
		f |= unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
	}
	return f
}

// maxKey is what the kernel's registers hold.
const maxKey = 64

// pack joins fields to a key or value.
func pack(fields ...string) string {
	if len(fields) == 1 {
		return fields[0]
	}
	key := make([]byte, 0, maxKey)
	for _, f := range fields {
		key = append(key, f...)
		for len(key)%4 != 0 {
			key = append(key, 0)
		}
	}
	return string(key)
}

// packPlace and packValue are pack for ports, of which there may be very many: they allocate once.

// packPlace leaves out an address that is not valid.
func packPlace(addr netip.Addr, p state.Proto, port uint16) string {
	var key [maxKey]byte
	return string(append(appendAddr(key[:0], addr), byte(p), 0, 0, 0, byte(port>>8), byte(port), 0, 0))
}

func packValue(addr netip.Addr, port uint16) string {
	var value [maxKey]byte
	return string(append(appendAddr(value[:0], addr), byte(port>>8), byte(port), 0, 0))
}

func appendAddr(key []byte, addr netip.Addr) []byte {
	switch {
	case addr.Is4():
		raw := addr.As4()
		return append(key, raw[:]...)
	case addr.Is6():
		raw := addr.As16()
		return append(key, raw[:]...)
	}
	return key
}

// What a field holds, as bytes.

func packAddr(a netip.Addr) string { return string(a.AsSlice()) }

func packPort(p uint16) string { return string([]byte{byte(p >> 8), byte(p)}) }

func packProto(p state.Proto) string { return string([]byte{byte(p)}) }

// packName cuts what no link can be called.
func packName(name string) string {
	name = name[:min(len(name), ifname.size-1)]
	return name + strings.Repeat("\x00", ifname.size-len(name))
}

func addrText(raw string) string {
	a, _ := netip.AddrFromSlice([]byte(raw))
	return a.String()
}

func portText(raw string) string { return fmt.Sprint(uint16(raw[0])<<8 | uint16(raw[1])) }

func protoText(raw string) string { return state.Proto(raw[0]).String() }

func ifnameText(raw string) string { return fmt.Sprintf("%q", strings.TrimRight(raw, "\x00")) }

// element writes an element of the set as nft does.
func (s Set) element(e Element) string {
	text := fieldsText(s.Key, e.Key, e.End)
	if len(s.Value) > 0 {
		text += " : " + fieldsText(s.Value, e.Value, "")
	}
	return text
}

func fieldsText(fields []datatype, first, last string) string {
	var out []string
	at := 0
	for _, f := range fields {
		text := f.text(first[at : at+f.size])
		if last != "" && last[at:at+f.size] != first[at:at+f.size] {
			text = rangeText(f, first[at:at+f.size], last[at:at+f.size])
		}
		out = append(out, text)
		at += f.width()
	}
	return strings.Join(out, " . ")
}

// rangeText writes an interval, where it can be as a prefix.
func rangeText(f datatype, first, last string) string {
	from, ok := netip.AddrFromSlice([]byte(first))
	if ok {
		for bits := range from.BitLen() {
			if p := netip.PrefixFrom(from, bits); p.Masked() == p && packAddr(lastOf(p)) == last {
				return p.String()
			}
		}
	}
	return f.text(first) + "-" + f.text(last)
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for bit := p.Bits(); bit < p.Addr().BitLen(); bit++ {
		raw[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}
