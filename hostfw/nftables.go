package hostfw

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/netlinkattr"
)

// conn asks nf_tables, and changes nothing.
type conn struct {
	netlink *netlink.Conn
	stop    func() bool
}

// dial opens a connection whose questions end with ctx.
func dial(ctx context.Context) (*conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for nftables: %w", err)
	}
	return &conn{c, context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })}, nil
}

func (c *conn) close() {
	c.stop()
	_ = c.netlink.Close()
}

// ask sends a question and returns the answers.
func (c *conn) ask(kind netlink.HeaderType, flags netlink.HeaderFlags, family byte, names ...netlink.Attribute) ([]netlink.Message, error) {
	attributes, err := netlink.MarshalAttributes(names)
	if err != nil {
		return nil, err
	}
	return c.netlink.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...),
	})
}

func named(kind uint16, name string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(name), 0)}
}

// generation returns the number of the host's nftables rules, which each change of anybody raises; 0 where the kernel has no nftables.
func (c *conn) generation() (uint32, error) {
	messages, err := c.ask(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("asking nftables for its generation: %w", err)
	}
	var gen uint32
	for _, m := range messages {
		for kind, data := range attributes(body(m)) {
			if kind == unix.NFTA_GEN_ID {
				gen = number(data)
			}
		}
	}
	return gen, nil
}

// place is a table's name in the kernel.
type place struct {
	family byte
	name   string
}

// tables returns those tables of others that have a chain for packets to the host itself, in an order that is always the same.
func (c *conn) tables() ([]table, error) {
	chains, err := c.ask(unix.NFT_MSG_GETCHAIN, netlink.Dump, unix.AF_UNSPEC)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the chains of nftables: %w", err)
	}
	var out []table
	for _, p := range guarding(chains) {
		t := table{label: p.label(), chains: map[string]*chain{}, verdicts: map[string][]element{}}
		for _, m := range chains {
			if at, name, c := parseChain(m); at == p {
				t.chains[name] = c
			}
		}
		if err := c.fill(p, &t); err != nil {
			return nil, fmt.Errorf("reading nftables: table %s: %w", p.name, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// guarding returns the tables in which a listed chain is one for packets to the host itself.
func guarding(chains []netlink.Message) []place {
	var out []place
	for _, m := range chains {
		if p, _, c := parseChain(m); c.input && !passedOverTable(p.name) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b place) int { return cmp.Or(cmp.Compare(a.family, b.family), cmp.Compare(a.name, b.name)) })
	return slices.Compact(out)
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

// nfAccept is NF_ACCEPT (linux/netfilter.h), which package unix lacks.
const nfAccept = 1

// parseChain reads a chain from a list of them.
func parseChain(m netlink.Message) (p place, name string, c *chain) {
	c = &chain{}
	if len(m.Data) > 0 {
		p.family = m.Data[0]
	}
	var kind string
	hook, policy := uint32(0), uint32(nfAccept)
	hooked := false
	for attribute, data := range attributes(body(m)) {
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
	rules, err := c.ask(unix.NFT_MSG_GETRULE, netlink.Dump, p.family, named(unix.NFTA_RULE_TABLE, p.name))
	if err != nil {
		return err
	}
	for _, m := range rules {
		at, name, r := parseRule(body(m))
		in := t.chains[name]
		if at != p.name || in == nil {
			continue // older kernels list the rules of all tables
		}
		in.rules = append(in.rules, r)
		if r.lookup.verdicts != "" {
			t.verdicts[r.lookup.verdicts] = nil
		}
	}
	for name := range t.verdicts {
		elements, err := c.ask(unix.NFT_MSG_GETSETELEM, netlink.Dump, p.family,
			named(unix.NFTA_SET_ELEM_LIST_TABLE, p.name), named(unix.NFTA_SET_ELEM_LIST_SET, name))
		if err != nil {
			return err
		}
		for _, m := range elements {
			t.verdicts[name] = append(t.verdicts[name], parseElements(body(m))...)
		}
	}
	return nil
}

// body skips the family's header.
func body(m netlink.Message) []byte { return m.Data[min(4, len(m.Data)):] }

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
	if i := slices.Index(data, 0); i >= 0 {
		data = data[:i]
	}
	return string(data)
}
