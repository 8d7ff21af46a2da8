package nftables

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzMessages reads what the kernel never sends, and what others may have written into rules and tables.
func FuzzMessages(f *testing.F) {
	b := batch{}
	b.add([]edit{addTable{}})
	f.Add(b.buf[unix.SizeofNlMsghdr:])
	f.Add([]byte{})
	f.Add(attr([]byte{unix.NFPROTO_INET, 0, 0, 0}, unix.NFTA_TABLE_FLAGS, 1))
	f.Add(attr([]byte{unix.NFPROTO_INET, 0, 0, 0}, nftaTableUserdata, 0, 200, 'x'))
	f.Add(nest([]byte{unix.NFPROTO_INET, 0, 0, 0}, unix.NFTA_CHAIN_HOOK, func(b []byte) []byte { return attr(b, unix.NFTA_HOOK_PRIORITY, 1, 2) }))
	f.Add(attrName([]byte{unix.NFPROTO_INET, 0, 0, 0}, unix.NFTA_RULE_CHAIN, "forward"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := message{kind: unix.NLMSG_ERROR, data: data}
		if m.errno() > 0 && len(data) < 4 {
			t.Errorf("error %d of %d bytes", m.errno(), len(data))
		}
		h := &held{chains: map[string]heldChain{"forward": {}}, sets: map[string]heldSet{}}
		readTable(m)
		h.readChain(tableName, m)
		h.readRule(m)
		h.readSet(m)
		generationOf(m)
		author(m)
		e, _ := readElement(data)
		if len(e.Key)+len(e.End)+len(e.Value) > 3*len(data) {
			t.Errorf("element %v of %d bytes", e, len(data))
		}
		elements := []Element{e}
		closeIntervals(elements, []string{e.End})
	})
}
