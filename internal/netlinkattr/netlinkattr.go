// Package netlinkattr walks over the attributes of netlink messages, without a copy of any.
package netlinkattr

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// All iterates over the attributes in b, by their kinds, until one that is cut short. What an attribute holds may be attributes again.
func All(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofNlAttr || length > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min((length+3)/4*4, len(b)):]
		}
	}
}
