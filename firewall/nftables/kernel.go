package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/effect"
)

// kernel edits the table over one lasting netlink socket: a socket that is closed after it deleted something makes its
// closer wait for an RCU grace period.
//
// A batch is followed by a question for the generation. Both are answered in order, so that what comes before that
// answer is the batch's: errors, or nothing where all went well. No message needs an answer of its own.
type kernel struct {
	table  string // its name, in the family inet
	flags  uint32 // that it has
	fd     int
	port   uint32 // of the socket, by which the kernel knows the owner
	seq    uint32
	sndbuf int // what fits in a transaction
	buf    []byte
}

// answerTime bounds the wait for the kernel's answer, which may first load a module.
const answerTime = 5 // seconds

// errChanged says that somebody changed rules between our reading and our writing.
var errChanged = errors.New("somebody else keeps changing the host's nftables rules")

// foreign says that the name of a table of ours is taken.
type foreign string

func (f foreign) Error() string {
	return fmt.Sprintf("a table inet %[1]s exists that is not Drawbridge's: remove it with `nft delete table inet %[1]s`", string(f))
}

// newKernel opens the kernel for one table. Flags other than 0 bind the table to the socket that it opens.
func newKernel(table string, flags uint32) (*kernel, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for nftables: %w", err)
	}
	k := &kernel{table: table, flags: flags, fd: fd, seq: 1, buf: make([]byte, 64<<10)}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(fd)
	}
	if at, ok := bound.(*unix.SockaddrNetlink); ok {
		k.port = at.Pid
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTime})
	}
	if err != nil {
		k.close()
		return nil, fmt.Errorf("opening a netlink socket for nftables: %w", err)
	}
	return k, nil
}

// close gives the socket back.
func (k *kernel) close() { unix.Close(k.fd) }

// batch returns an empty one, about the kernel's table.
func (k *kernel) batch() batch { return batch{table: k.table, flags: k.flags, seq: k.seq} }

// message is an answer.
type message struct {
	kind, flags uint16
	seq         uint32
	data        []byte // behind the header
}

// errno returns the error that a message is, 0 for a confirmation.
func (m message) errno() unix.Errno {
	if m.kind != unix.NLMSG_ERROR || len(m.data) < 4 {
		return 0
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(m.data)))
}

// attributes skips the family's header.
func (m message) attributes() func(func(uint16, []byte) bool) {
	return attributes(m.data[min(4, len(m.data)):])
}

// send sends a batch, in one piece whatever its size.
func (k *kernel) send(b batch) error {
	if len(b.buf) > k.sndbuf {
		// The kernel takes a message that fits into the buffer at all; it makes it twice as large as told.
		if err := unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, max(len(b.buf), 128<<10)); err != nil {
			return fmt.Errorf("enlarging a netlink socket: %w", err)
		}
		k.sndbuf = len(b.buf)
	}
	return unix.Sendto(k.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive calls f with each answer to messages from first on, until it says that it was the last. Older answers
// belong to a request that was given up.
func (k *kernel) receive(first uint32, f func(message) (last bool, err error)) error {
	for {
		n, _, err := unix.Recvfrom(k.fd, k.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for nftables: %w", err)
		}
		for rest := k.buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(rest))
			if length < unix.SizeofNlMsghdr || length > len(rest) {
				break
			}
			m := message{
				kind: binary.NativeEndian.Uint16(rest[4:]), flags: binary.NativeEndian.Uint16(rest[6:]),
				seq: binary.NativeEndian.Uint32(rest[8:]), data: rest[unix.SizeofNlMsghdr:length],
			}
			rest = rest[min((length+3)/4*4, len(rest)):]
			if m.seq-first >= 1<<31 {
				continue
			}
			if last, err := f(m); last || err != nil {
				return err
			}
		}
	}
}

// ask sends one request and calls f with what is listed for it. An error of the kernel is returned as it is.
func (k *kernel) ask(kind uint16, dump bool, fill func([]byte) []byte, f func(message)) error {
	return k.askFamily(unix.NFPROTO_INET, kind, dump, fill, f)
}

func (k *kernel) askFamily(family byte, kind uint16, dump bool, fill func([]byte) []byte, f func(message)) error {
	b := k.batch()
	var flags uint16
	if dump {
		flags = unix.NLM_F_DUMP
	}
	b.message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, family, 0, fill)
	k.seq = b.seq
	if err := k.send(b); err != nil {
		return err
	}
	return k.receive(b.seq-1, func(m message) (bool, error) {
		switch {
		case m.errno() != 0:
			return true, m.errno()
		case m.flags&unix.NLM_F_DUMP_INTR != 0:
			return true, errChanged
		case m.kind == unix.NLMSG_DONE || m.kind == unix.NLMSG_ERROR:
			return true, nil
		}
		f(m)
		return !dump, nil
	})
}

// generation returns the number of the host's nftables rules, which each change of anybody raises.
func (k *kernel) generation() (uint32, error) {
	var gen uint32
	err := k.ask(unix.NFT_MSG_GETGEN, false, nil, func(m message) { gen = generationOf(m) })
	if err != nil {
		return 0, fmt.Errorf("asking nftables for its generation: %w", err)
	}
	return gen, nil
}

func generationOf(m message) uint32 {
	for kind, data := range m.attributes() {
		if kind == unix.NFTA_GEN_ID && len(data) == 4 {
			return number(data)
		}
	}
	return 0
}

// commit makes the edits in one transaction, if the rules are still of the generation.
func (k *kernel) commit(generation uint32, edits []edit) (time.Duration, error) {
	b := k.batch()
	b.begin(generation)
	b.add(edits)
	b.end()
	began := time.Now()
	err := effect.Do("nftables.commit", func() error { return k.transact(b) })
	return time.Since(began), err
}

// check has the kernel look through the edits, and change nothing: a transaction without its end is undone. They are made to a table that
// nobody has: what an earlier program's table holds, such as a chain of another priority, would be in their way.
func (k *kernel) check(edits []edit) error {
	b := k.batch()
	b.table += "-check"
	b.begin(0) // any
	b.add(edits)
	return k.transact(b)
}

func (k *kernel) transact(b batch) error {
	first := k.seq
	k.seq = b.seq
	if b.failed != nil {
		return b.failed
	}
	if err := k.send(b); err != nil {
		return fmt.Errorf("changing nftables: %w", err)
	}
	asked := k.batch()
	asked.request(unix.NFT_MSG_GETGEN, 0, nil)
	k.seq = asked.seq
	if err := k.send(asked); err != nil {
		return fmt.Errorf("changing nftables: %w", err)
	}
	var failed error
	err := k.receive(first, func(m message) (bool, error) {
		if n := m.errno(); n != 0 && failed == nil {
			failed = b.wrap(n, m.seq-first)
		}
		return m.seq == k.seq-1, nil
	})
	return errors.Join(failed, err)
}

// wrap says what the kernel refused; index is that of the message, the first of which opens the transaction.
func (b batch) wrap(n unix.Errno, index uint32) error {
	switch i := int(index) - 1; {
	case n == unix.ERESTART:
		return errChanged
	case i >= 0 && i < len(b.edits):
		return fmt.Errorf("changing nftables: %s: %w", b.edits[i], n)
	}
	return fmt.Errorf("changing nftables: %w", n)
}

// read returns what the table holds, nil if there is none.
func (k *kernel) read() (*held, error) {
	h := &held{chains: map[string]heldChain{}, sets: map[string]heldSet{}}
	named := func(kind uint16) func([]byte) []byte {
		return func(buf []byte) []byte { return attrName(buf, kind, k.table) }
	}
	exists, err := k.exists(h)
	if err == nil && !exists || errors.Is(err, foreign(k.table)) {
		return nil, err
	}
	if err == nil {
		err = k.ask(unix.NFT_MSG_GETCHAIN, true, named(unix.NFTA_CHAIN_TABLE), func(m message) { h.readChain(k.table, m) })
	}
	if err == nil {
		err = k.ask(unix.NFT_MSG_GETRULE, true, named(unix.NFTA_RULE_TABLE), h.readRule)
	}
	if err == nil {
		err = k.ask(unix.NFT_MSG_GETSET, true, named(unix.NFTA_SET_TABLE), h.readSet)
	}
	if err != nil {
		return nil, fmt.Errorf("reading nftables: %w", err)
	}
	for name, s := range h.sets {
		if s.kind.learns() {
			continue
		}
		if s.elements, err = k.elements(unix.NFPROTO_INET, k.table, name, s.kind); err != nil {
			return nil, fmt.Errorf("reading set %s of nftables: %w", name, err)
		}
		h.sets[name] = s
	}
	return h, nil
}

// exists reports whether our table is there; one of its name that is not ours is an error.
func (k *kernel) exists(h *held) (bool, error) {
	var comment string
	var flags, owner uint32
	err := k.ask(unix.NFT_MSG_GETTABLE, false, func(buf []byte) []byte {
		return attrName(buf, unix.NFTA_TABLE_NAME, k.table)
	}, func(m message) { comment, flags, owner = readTable(m) })
	h.broken = flags != k.flags || flags&flagOwner != 0 && owner != k.port
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err == nil && comment != tableComment:
		return true, foreign(k.table)
	}
	return err == nil, err
}

func readTable(m message) (comment string, flags, owner uint32) {
	for kind, data := range m.attributes() {
		switch kind {
		case unix.NFTA_TABLE_FLAGS:
			flags = number(data)
		case nftaTableOwner:
			owner = number(data)
		case nftaTableUserdata:
			comment = commentIn(data, udataTableComment)
		}
	}
	return comment, flags, owner
}

// readChain takes a chain that was listed; older kernels list those of all tables.
func (h *held) readChain(of string, m message) {
	var table, name string
	var c heldChain
	for kind, data := range m.attributes() {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			table = text(data)
		case unix.NFTA_CHAIN_NAME:
			name = text(data)
		case unix.NFTA_CHAIN_TYPE:
			c.base.Type = text(data)
		case unix.NFTA_CHAIN_POLICY:
			// Somebody's policy is mended by making the table anew.
			h.broken = h.broken || table == of && number(data) != uint32(nftables.ChainPolicyAccept)
		case unix.NFTA_CHAIN_HOOK:
			for kind, data := range attributes(data) {
				switch kind {
				case unix.NFTA_HOOK_HOOKNUM:
					c.base.Hook = number(data)
				case unix.NFTA_HOOK_PRIORITY:
					c.base.Priority = int32(number(data))
				}
			}
		}
	}
	if table == of && len(m.data) > 0 && m.data[0] == unix.NFPROTO_INET {
		h.chains[name] = c
	}
}

func (h *held) readRule(m message) {
	var chain, id string
	for kind, data := range m.attributes() {
		switch kind {
		case unix.NFTA_RULE_CHAIN:
			chain = text(data)
		case unix.NFTA_RULE_USERDATA:
			id = idOf(commentIn(data, userdata.TypeComment))
		}
	}
	if c, ok := h.chains[chain]; ok {
		c.ids = append(c.ids, id)
		h.chains[chain] = c
	}
}

func (h *held) readSet(m message) {
	var name string
	var k kind
	for kind, data := range m.attributes() {
		switch kind {
		case unix.NFTA_SET_NAME:
			name = text(data)
		case unix.NFTA_SET_FLAGS:
			k.flags = number(data)
		case unix.NFTA_SET_KEY_TYPE:
			k.keyType = number(data)
		case unix.NFTA_SET_KEY_LEN:
			k.keyLen = number(data)
		case unix.NFTA_SET_DATA_TYPE:
			k.valueType = number(data)
		case unix.NFTA_SET_DATA_LEN:
			k.valueLen = number(data)
		case unix.NFTA_SET_TIMEOUT:
			if len(data) == 8 {
				k.timeout = binary.BigEndian.Uint64(data)
			}
		}
	}
	h.sets[name] = heldSet{kind: k}
}

// number reads a value of four bytes, 0 if it is none.
func number(data []byte) uint32 {
	if len(data) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(data)
}

// commentIn returns a comment from user data. Anybody may write into a rule, and the library panics over an entry that is
// longer than what is there.
func commentIn(data []byte, kind userdata.Type) string {
	for rest := data; len(rest) > 0; rest = rest[2+int(rest[1]):] {
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return ""
		}
	}
	comment, _ := userdata.GetString(data, kind)
	return comment
}

// text returns a name without its final zero.
func text(data []byte) string {
	if i := slices.Index(data, 0); i >= 0 {
		data = data[:i]
	}
	return string(data)
}

// elements returns a set's elements, sorted.
func (k *kernel) elements(family byte, table, set string, kd kind) ([]Element, error) {
	var out []Element
	var ends []string
	err := k.askFamily(family, unix.NFT_MSG_GETSETELEM, true, func(buf []byte) []byte {
		buf = attrName(buf, unix.NFTA_SET_ELEM_LIST_TABLE, table)
		return attrName(buf, unix.NFTA_SET_ELEM_LIST_SET, set)
	}, func(m message) {
		for kind, list := range m.attributes() {
			if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, data := range attributes(list) {
				e, end := readElement(data)
				if end {
					ends = append(ends, e.Key)
					continue
				}
				out = append(out, e)
			}
		}
	})
	slices.SortFunc(out, compareElement)
	if kd.flags&unix.NFT_SET_INTERVAL != 0 && kd.flags&concat == 0 {
		closeIntervals(out, ends)
	}
	return out, err
}

// hasElements implements editor.
func (k *kernel) hasElements(set string) (bool, error) {
	if exists, err := k.exists(&held{}); err != nil || !exists {
		return false, err
	}
	found, err := k.elements(unix.NFPROTO_INET, k.table, set, kind{})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return len(found) > 0, err
}

func readElement(data []byte) (e Element, end bool) {
	value := func(data []byte) string {
		for kind, v := range attributes(data) {
			if kind == unix.NFTA_DATA_VALUE {
				return string(v)
			}
		}
		return ""
	}
	for kind, data := range attributes(data) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = value(data)
		case nftaSetElemKeyEnd:
			e.End = value(data)
		case unix.NFTA_SET_ELEM_DATA:
			e.Value = value(data)
		case unix.NFTA_SET_ELEM_FLAGS:
			end = number(data)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		}
	}
	return e, end
}

// closeIntervals gives sorted first keys their last ones. One without an end reaches to the last key there is.
func closeIntervals(elements []Element, ends []string) {
	slices.Sort(ends)
	for i := range elements {
		e := &elements[i]
		for len(ends) > 0 && ends[0] <= e.Key {
			ends = ends[1:]
		}
		if len(ends) > 0 && (i+1 == len(elements) || ends[0] <= elements[i+1].Key) {
			e.End = before(ends[0])
		} else {
			e.End = last(len(e.Key))
		}
	}
}

// last returns the last key of a length.
func last(length int) string { return string(slices.Repeat([]byte{0xff}, length)) }
