package sctp

import (
	"encoding/binary"
	"hash/crc32"
)

// The chunks and the parameter that are spoken here.
const (
	chunkInit    = 1
	chunkInitAck = 2
	stateCookie  = 7 // may hold anything
)

const (
	headerSize = 12
	initSize   = 20 // of an INIT or INIT ACK without parameters
)

// packet is one with a single chunk.
type packet struct {
	from, to uint16 // ports
	vtag     uint32 // chosen by who receives the packet; 0 in an INIT
	chunk    byte
	tag      uint32 // what the receiver has to send as vtag
	cookie   []byte // only in an INIT ACK
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is over the packet with zeros in its place; unlike all else it goes in little-endian.
func checksum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, b[:8])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	return crc32.Update(sum, castagnoli, b[headerSize:])
}

func (p packet) marshal() []byte {
	be := binary.BigEndian
	b := be.AppendUint16(nil, p.from)
	b = be.AppendUint16(b, p.to)
	b = be.AppendUint32(b, p.vtag)
	b = be.AppendUint32(b, 0) // the checksum comes last
	size := initSize
	if p.cookie != nil {
		size += 4 + len(p.cookie)
	}
	b = append(b, p.chunk, 0)
	b = be.AppendUint16(b, uint16(size))
	b = be.AppendUint32(b, p.tag)
	b = be.AppendUint32(b, 1<<16) // receive window
	b = be.AppendUint16(b, 1)     // streams out
	b = be.AppendUint16(b, 1)     // and in
	b = be.AppendUint32(b, p.tag) // the first sequence number is as good as any other
	if p.cookie != nil {
		b = be.AppendUint16(b, stateCookie)
		b = be.AppendUint16(b, uint16(4+len(p.cookie)))
		b = append(b, p.cookie...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	binary.LittleEndian.PutUint32(b[8:], checksum(b))
	return b
}

// parse reads what marshal writes, and reports whether it is that.
func parse(b []byte) (packet, bool) {
	be := binary.BigEndian
	if len(b) < headerSize+initSize || binary.LittleEndian.Uint32(b[8:]) != checksum(b) {
		return packet{}, false
	}
	p := packet{
		from: be.Uint16(b), to: be.Uint16(b[2:]), vtag: be.Uint32(b[4:]),
		chunk: b[headerSize], tag: be.Uint32(b[headerSize+4:]),
	}
	if p.chunk != chunkInitAck {
		return p, p.chunk == chunkInit
	}
	param := b[headerSize+initSize:]
	if len(param) < 4 || be.Uint16(param) != stateCookie {
		return packet{}, false
	}
	size := int(be.Uint16(param[2:]))
	if size < 4 || size > len(param) {
		return packet{}, false
	}
	p.cookie = param[4:size]
	return p, true
}
