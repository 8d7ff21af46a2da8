package nftables

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/netlinkattr"
)

// batch is netlink messages one after the other. Expressions are the library's; the messages around them are written
// here, because a transaction of ours is bound to a generation and may have thousands of elements.
type batch struct {
	table  string // that it is about, and its flags
	flags  uint32
	buf    []byte
	seq    uint32 // of the next message
	sets   uint32 // numbers of new sets within the transaction
	edits  []edit // by message, for the words of an error
	failed error
}

// The attributes and flags that package unix does not have.
const (
	nfnlBatchGenID     = 1
	nftaTableUserdata  = 6
	nftaTableOwner     = 7
	nftaSetFieldLen    = 1
	nftaSetElemKeyEnd  = nftables.NFTA_SET_ELEM_KEY_END
	concat             = nftables.NFT_SET_CONCAT
	udataTableComment  = 0
	udataSetByteOrder  = userdata.NFTNL_UDATA_SET_KEYBYTEORDER
	byteOrderHost      = 1 // tells nft how to print a key; names are numbers to it
	byteOrderBigEndian = 2
)

// elementBytes bounds the elements of one message: the length of an attribute is a number of 16 bits.
const elementBytes = 32 << 10

// message appends a message whose attributes fill appends.
func (b *batch) message(kind uint16, flags uint16, family byte, resource uint16, fill func([]byte) []byte) {
	start := len(b.buf)
	b.buf = append(b.buf, make([]byte, unix.SizeofNlMsghdr)...)
	b.buf = append(b.buf, family, unix.NFNETLINK_V0, byte(resource>>8), byte(resource))
	if fill != nil {
		b.buf = fill(b.buf)
	}
	h := b.buf[start:]
	binary.NativeEndian.PutUint32(h, uint32(len(h)))
	binary.NativeEndian.PutUint16(h[4:], kind)
	binary.NativeEndian.PutUint16(h[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(h[8:], b.seq)
	b.seq++
}

// request appends a message of nf_tables about our table.
func (b *batch) request(kind uint16, flags uint16, fill func([]byte) []byte) {
	b.message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, unix.NFPROTO_INET, 0, fill)
}

// begin opens a transaction that the kernel refuses if the rules are not of that generation any more.
func (b *batch) begin(generation uint32) {
	b.message(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, func(buf []byte) []byte {
		return attr32(buf, nfnlBatchGenID, generation)
	})
}

// add appends the messages of edits.
func (b *batch) add(edits []edit) {
	for _, e := range edits {
		first := b.seq
		e.encode(b)
		for range b.seq - first {
			b.edits = append(b.edits, e)
		}
	}
}

func (b *batch) end() { b.message(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil) }

// attr appends an attribute.
func attr(buf []byte, kind uint16, data ...byte) []byte {
	buf = binary.NativeEndian.AppendUint16(buf, uint16(unix.SizeofNlAttr+len(data)))
	buf = binary.NativeEndian.AppendUint16(buf, kind)
	buf = append(buf, data...)
	for len(buf)%4 != 0 {
		buf = append(buf, 0)
	}
	return buf
}

func attr32(buf []byte, kind uint16, v uint32) []byte {
	return attr(buf, kind, binary.BigEndian.AppendUint32(nil, v)...)
}

func attrName(buf []byte, kind uint16, name string) []byte {
	return attr(buf, kind, append([]byte(name), 0)...)
}

// nest appends an attribute made of those that fill appends.
func nest(buf []byte, kind uint16, fill func([]byte) []byte) []byte {
	start := len(buf)
	buf = fill(append(buf, 0, 0, 0, 0))
	binary.NativeEndian.PutUint16(buf[start:], uint16(len(buf)-start))
	binary.NativeEndian.PutUint16(buf[start+2:], kind|unix.NLA_F_NESTED)
	return buf
}

// attributes iterates over the attributes in a message, until one that is cut short.
var attributes = netlinkattr.All

func (addTable) encode(b *batch) {
	b.request(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, func(buf []byte) []byte {
		buf = attrName(buf, unix.NFTA_TABLE_NAME, b.table)
		buf = attr32(buf, unix.NFTA_TABLE_FLAGS, b.flags)
		return attr(buf, nftaTableUserdata, userdata.AppendString(nil, udataTableComment, tableComment)...)
	})
}

func (deleteTable) encode(b *batch) {
	b.request(unix.NFT_MSG_DELTABLE, 0, func(buf []byte) []byte { return attrName(buf, unix.NFTA_TABLE_NAME, b.table) })
}

func (e addSet) encode(b *batch) {
	b.sets++
	k := e.kind()
	b.request(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, func(buf []byte) []byte {
		buf = attrName(buf, unix.NFTA_SET_TABLE, b.table)
		buf = attrName(buf, unix.NFTA_SET_NAME, e.Name)
		buf = attr32(buf, unix.NFTA_SET_FLAGS, k.flags)
		buf = attr32(buf, unix.NFTA_SET_KEY_TYPE, k.keyType)
		buf = attr32(buf, unix.NFTA_SET_KEY_LEN, k.keyLen)
		buf = attr32(buf, unix.NFTA_SET_ID, b.sets)
		if len(e.Value) > 0 {
			buf = attr32(buf, unix.NFTA_SET_DATA_TYPE, k.valueType)
			buf = attr32(buf, unix.NFTA_SET_DATA_LEN, k.valueLen)
		}
		if k.flags&nftables.NFT_SET_CONCAT != 0 {
			buf = nest(buf, unix.NFTA_SET_DESC, e.description)
		}
		if k.learns() {
			buf = attr(buf, unix.NFTA_SET_TIMEOUT, binary.BigEndian.AppendUint64(nil, k.timeout)...)
			buf = nest(buf, unix.NFTA_SET_DESC, func(buf []byte) []byte { return attr32(buf, unix.NFTA_SET_DESC_SIZE, e.Size) })
		}
		order := uint32(byteOrderBigEndian)
		if len(e.Key) == 1 && e.Key[0].magic == ifname.magic {
			order = byteOrderHost
		}
		return attr(buf, unix.NFTA_SET_USERDATA, userdata.AppendUint32(nil, udataSetByteOrder, order)...)
	})
}

// description tells the kernel the fields of which an interval is made.
func (s Set) description(buf []byte) []byte {
	return nest(buf, nftables.NFTA_SET_DESC_CONCAT, func(buf []byte) []byte {
		for _, f := range s.Key {
			buf = nest(buf, unix.NFTA_LIST_ELEM, func(buf []byte) []byte {
				return attr32(buf, nftaSetFieldLen, uint32(f.size))
			})
		}
		return buf
	})
}

func (e deleteSet) encode(b *batch) {
	b.request(unix.NFT_MSG_DELSET, 0, func(buf []byte) []byte {
		buf = attrName(buf, unix.NFTA_SET_TABLE, b.table)
		return attrName(buf, unix.NFTA_SET_NAME, e.name)
	})
}

// encode names no element, which stands for all.
func (e flushSet) encode(b *batch) {
	b.request(unix.NFT_MSG_DELSETELEM, 0, func(buf []byte) []byte {
		buf = attrName(buf, unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
		return attrName(buf, unix.NFTA_SET_ELEM_LIST_SET, e.name)
	})
}

func (e addElements) encode(b *batch)    { b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, e.Set) }
func (e deleteElements) encode(b *batch) { b.elements(unix.NFT_MSG_DELSETELEM, 0, e.Set) }

// elements appends as many messages as the elements of the set need.
func (b *batch) elements(kind uint16, flags uint16, s Set) {
	for rest := s.Elements; len(rest) > 0; {
		b.request(kind, flags, func(buf []byte) []byte {
			buf = attrName(buf, unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
			buf = attrName(buf, unix.NFTA_SET_ELEM_LIST_SET, s.Name)
			return nest(buf, unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(buf []byte) []byte {
				for start := len(buf); len(rest) > 0 && len(buf)-start < elementBytes; rest = rest[1:] {
					buf = s.appendElement(buf, rest[0])
				}
				return buf
			})
		})
	}
}

// appendElement writes an element as the kernel knows it: an interval of several fields has a last key, one of a
// single field is two elements, the second of which is the first key behind it.
func (s Set) appendElement(buf []byte, e Element) []byte {
	several := len(s.Key) > 1
	buf = nest(buf, unix.NFTA_LIST_ELEM, func(buf []byte) []byte {
		buf = appendData(buf, unix.NFTA_SET_ELEM_KEY, e.Key)
		if s.Interval && several {
			buf = appendData(buf, nftaSetElemKeyEnd, e.End)
		}
		if len(s.Value) > 0 {
			buf = appendData(buf, unix.NFTA_SET_ELEM_DATA, e.Value)
		}
		return buf
	})
	if end, ok := after(e.End); s.Interval && !several && ok {
		buf = nest(buf, unix.NFTA_LIST_ELEM, func(buf []byte) []byte {
			buf = attr32(buf, unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
			return appendData(buf, unix.NFTA_SET_ELEM_KEY, end)
		})
	}
	return buf
}

func appendData(buf []byte, kind uint16, data string) []byte {
	return nest(buf, kind, func(buf []byte) []byte { return attr(buf, unix.NFTA_DATA_VALUE, []byte(data)...) })
}

// after returns the next key; there is none behind the last.
func after(k string) (string, bool) {
	raw := []byte(k)
	for i := len(raw) - 1; i >= 0; i-- {
		if raw[i]++; raw[i] != 0 {
			return string(raw), true
		}
	}
	return "", false
}

// before returns the key before one that after returned.
func before(k string) string {
	raw := []byte(k)
	for i := len(raw) - 1; i >= 0; i-- {
		if raw[i]--; raw[i] != 0xff {
			break
		}
	}
	return string(raw)
}

func (e addChain) encode(b *batch) {
	b.request(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, func(buf []byte) []byte {
		buf = attrName(buf, unix.NFTA_CHAIN_TABLE, b.table)
		buf = attrName(buf, unix.NFTA_CHAIN_NAME, e.Name)
		if e.Base.Type == "" {
			return buf
		}
		buf = nest(buf, unix.NFTA_CHAIN_HOOK, func(buf []byte) []byte {
			buf = attr32(buf, unix.NFTA_HOOK_HOOKNUM, e.Base.Hook)
			return attr32(buf, unix.NFTA_HOOK_PRIORITY, uint32(e.Base.Priority))
		})
		buf = attr32(buf, unix.NFTA_CHAIN_POLICY, uint32(nftables.ChainPolicyAccept))
		return attrName(buf, unix.NFTA_CHAIN_TYPE, e.Base.Type)
	})
}

func (e flushChain) encode(b *batch) {
	b.request(unix.NFT_MSG_DELRULE, 0, func(buf []byte) []byte {
		buf = attrName(buf, unix.NFTA_RULE_TABLE, b.table)
		return attrName(buf, unix.NFTA_RULE_CHAIN, e.name)
	})
}

func (e deleteChain) encode(b *batch) {
	b.request(unix.NFT_MSG_DELCHAIN, 0, func(buf []byte) []byte {
		buf = attrName(buf, unix.NFTA_CHAIN_TABLE, b.table)
		return attrName(buf, unix.NFTA_CHAIN_NAME, e.name)
	})
}

func (e addRule) encode(b *batch) {
	b.request(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, func(buf []byte) []byte {
		buf = attrName(buf, unix.NFTA_RULE_TABLE, b.table)
		buf = attrName(buf, unix.NFTA_RULE_CHAIN, e.chain)
		buf = nest(buf, unix.NFTA_RULE_EXPRESSIONS, func(buf []byte) []byte {
			for _, x := range e.exprs() {
				raw, err := expr.Marshal(unix.NFPROTO_INET, x)
				if err != nil {
					b.failed = err
				}
				buf = attr(buf, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, raw...)
			}
			return buf
		})
		return attr(buf, unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, comment(e.id, e.Why))...)
	})
}
