package hostfw

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/netlinkattr"
)

// conn asks nf_tables, and changes nothing.
type conn struct {
	netlink *netlink.Conn
	raw     syscall.RawConn
	stop    func() bool
	buf     []byte
}

// dial opens a connection whose questions end with ctx.
func dial(ctx context.Context) (*conn, error) {
	n, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for nftables: %w", err)
	}
	c := &conn{netlink: n, buf: make([]byte, 64<<10)}
	if c.raw, err = n.SyscallConn(); err != nil {
		n.Close()
		return nil, fmt.Errorf("opening a netlink socket for nftables: %w", err)
	}
	c.stop = context.AfterFunc(ctx, func() { _ = n.SetDeadline(time.Now()) })
	return c, nil
}

func (c *conn) close() {
	c.stop()
	_ = c.netlink.Close()
}

// ask sends a question and calls f with each answer, which is not to be kept. The library would look at each piece of a long list twice,
// and collect them all.
func (c *conn) ask(kind netlink.HeaderType, flags netlink.HeaderFlags, family byte, f func(answer), names ...netlink.Attribute) error {
	attributes, err := netlink.MarshalAttributes(names)
	if err != nil {
		return err
	}
	sent, err := c.netlink.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...),
	})
	if err != nil {
		return err
	}
	for last := false; !last; {
		messages, err := c.receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Seq != sent.Header.Sequence {
				continue
			}
			switch {
			case m.Header.Type == unix.NLMSG_ERROR:
				return errno(m.Data)
			case m.Header.Flags&unix.NLM_F_DUMP_INTR != 0:
				return errChanging
			case m.Header.Type != unix.NLMSG_DONE:
				f(answer(m.Data))
			}
			last = m.Header.Type == unix.NLMSG_DONE || m.Header.Flags&unix.NLM_F_MULTI == 0
		}
	}
	return nil
}

// receive waits for the next piece of an answer.
func (c *conn) receive() ([]syscall.NetlinkMessage, error) {
	var n int
	var failed error
	err := c.raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), c.buf, unix.MSG_DONTWAIT)
		return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("waiting for nftables: %w", err)
	}
	return syscall.ParseNetlinkMessage(c.buf[:n])
}

// errno is the error that the kernel answers, nil for none.
func errno(data []byte) error {
	if len(data) < 4 {
		return unix.EBADMSG
	}
	if n := -int32(binary.NativeEndian.Uint32(data)); n != 0 {
		return unix.Errno(n)
	}
	return nil
}

// answer is a message behind its header: the family's own header, and attributes.
type answer []byte

func (a answer) family() byte {
	if len(a) == 0 {
		return 0
	}
	return a[0]
}

func (a answer) attributes() iter.Seq2[uint16, []byte] { return attributes(a.body()) }

func (a answer) body() []byte { return a[min(4, len(a)):] }

func named(kind uint16, name string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(name), 0)}
}

// generation returns the number of the host's nftables rules, which each change of anybody raises; 0 where the kernel has no nftables.
func (c *conn) generation() (uint32, error) {
	var gen uint32
	err := c.ask(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, func(a answer) { gen = numberIn(a.body(), unix.NFTA_GEN_ID) })
	if lacking(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("asking nftables for its generation: %w", err)
	}
	return gen, nil
}

// lacking reports whether an error says that the kernel has no nftables.
func lacking(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT)
}

// place is a table's name in the kernel.
type place struct {
	family byte
	name   string
}

// tables returns those tables of others that have a chain for packets to the host itself, in an order that is always the same.
func (c *conn) tables() ([]table, error) {
	all := map[place]map[string]*chain{}
	err := c.ask(unix.NFT_MSG_GETCHAIN, netlink.Dump, unix.AF_UNSPEC, func(a answer) {
		at, name, c := parseChain(a)
		if all[at] == nil {
			all[at] = map[string]*chain{}
		}
		all[at][name] = c
	})
	if lacking(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the chains of nftables: %w", err)
	}
	var out []table
	for _, p := range guarding(all) {
		t := table{label: p.label(), chains: all[p], verdicts: map[string][]element{}, filled: map[string]bool{}}
		if err := c.fill(p, &t); err != nil {
			return nil, fmt.Errorf("reading nftables: table %s: %w", p.name, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// guarding returns the tables in which a chain is one for packets to the host itself.
func guarding(all map[place]map[string]*chain) []place {
	var out []place
	for p, chains := range all {
		for _, c := range chains {
			if c.input && !passedOverTable(p.name) {
				out = append(out, p)
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b place) int { return cmp.Or(cmp.Compare(a.family, b.family), cmp.Compare(a.name, b.name)) })
	return out
}

// familyNames are the families in which a chain with hook input sees packets for the host.
var familyNames = map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

// iptablesTables are those that iptables-nft keeps, in the families ip and ip6.
var iptablesTables = []string{"filter", "mangle", "security"}

func (p place) label() label {
	switch {
	case p.family == unix.NFPROTO_IPV4 && slices.Contains(iptablesTables, p.name):
		return iptablesLabel("", " of iptables", p.name)
	case p.family == unix.NFPROTO_IPV6 && slices.Contains(iptablesTables, p.name):
		return iptablesLabel("", " of ip6tables", p.name)
	}
	return label{"chain ", " of table " + familyNames[p.family] + " " + p.name + " (nftables)", " drops"}
}

// nfDrop and nfAccept are NF_DROP and NF_ACCEPT (linux/netfilter.h), which package unix lacks.
const nfDrop, nfAccept = 0, 1

// parseChain reads a chain from a list of them.
func parseChain(a answer) (p place, name string, c *chain) {
	p.family, c = a.family(), &chain{}
	var kind string
	hook, policy := uint32(0), uint32(nfAccept)
	hooked := false
	for attribute, data := range a.attributes() {
		switch attribute {
		case unix.NFTA_CHAIN_TABLE:
			p.name = text(data)
		case unix.NFTA_CHAIN_NAME:
			name = text(data)
		case unix.NFTA_CHAIN_TYPE:
			kind = text(data)
		case unix.NFTA_CHAIN_POLICY:
			policy = number(data)
		case unix.NFTA_CHAIN_HOOK:
			for attribute, data := range attributes(data) {
				if attribute == unix.NFTA_HOOK_HOOKNUM {
					hook, hooked = number(data), true
				}
			}
		}
	}
	c.input = hooked && kind == "filter" && hook == unix.NF_INET_LOCAL_IN && familyNames[p.family] != ""
	c.drops = c.input && policy != nfAccept
	return p, name, c
}

// fill reads the rules of a table, and the verdict maps that they ask.
func (c *conn) fill(p place, t *table) error {
	err := c.ask(unix.NFT_MSG_GETRULE, netlink.Dump, p.family, func(a answer) {
		at, name, r := parseRule(p.family, a.body())
		in := t.chains[name]
		if at != p.name || in == nil {
			return // older kernels list the rules of all tables
		}
		in.rules = append(in.rules, r)
		for _, set := range r.fills {
			t.filled[set] = true
		}
		if r.lookup.verdicts != "" {
			t.verdicts[r.lookup.verdicts] = nil
		}
	}, named(unix.NFTA_RULE_TABLE, p.name))
	if err != nil {
		return err
	}
	for name := range t.verdicts {
		err := c.ask(unix.NFT_MSG_GETSETELEM, netlink.Dump, p.family, func(a answer) {
			t.verdicts[name] = append(t.verdicts[name], parseElements(a.body())...)
		}, named(unix.NFTA_SET_ELEM_LIST_TABLE, p.name), named(unix.NFTA_SET_ELEM_LIST_SET, name))
		if err != nil {
			return err
		}
	}
	return c.ask(unix.NFT_MSG_GETSET, netlink.Dump, p.family, func(a answer) {
		if name, counts := parseSet(a.body()); counts {
			t.filled[name] = true
		}
	}, named(unix.NFTA_SET_TABLE, p.name))
}

// attributes iterates over the attributes in a message, until one that is cut short.
var attributes = netlinkattr.All

// number reads a value of four bytes, 0 if it is none.
func number(data []byte) uint32 {
	if len(data) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(data)
}

// text returns a name without its final zero.
func text(data []byte) string {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		data = data[:i]
	}
	return string(data)
}
