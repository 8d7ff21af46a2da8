package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/effect"
	"github.com/drawbridge-net/drawbridge/state"
)

// maxElements bounds a set; ipset's own default of 65,536 is below what a host with
// many large published ranges needs.
const maxElements = 1 << 18

// answerTime bounds the wait for the kernel's answer, which may first load a module.
const answerTime = 5 * time.Second

// kernelSets edits sets over one lasting netlink socket: a socket that is closed after it
// deleted something makes its closer wait for an RCU grace period.
type kernelSets struct {
	handle *netlink.Handle
	// asking is the socket of stray, since the library cannot ask for a set without its elements.
	asking map[int]*nl.SocketHandle

	mu     sync.Mutex     // the two families' sets are edited at the same time, but for this
	counts map[string]int // how many elements were left in each set; guarded by mu
}

func newKernelSets() (*kernelSets, error) {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for ipset: %w", err)
	}
	if err := h.SetSocketTimeout(answerTime); err != nil {
		h.Close()
		return nil, fmt.Errorf("setting a netlink socket's timeout: %w", err)
	}
	asking, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("opening a netlink socket for ipset: %w", err)
	}
	return &kernelSets{
		handle: h, asking: map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: asking}}, counts: map[string]int{},
	}, nil
}

// close gives the sockets back.
func (k *kernelSets) close() {
	k.handle.Close()
	k.asking[unix.NETLINK_NETFILTER].Close()
}

// list returns the set's elements, and false where the set does not exist or is
// of another type.
func (k *kernelSets) list(s Set) ([]Element, bool, error) {
	got, err := k.handle.IpsetList(s.Name)
	if noSuchSet(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, failedSet("reading", s.Name, s.Type, err)
	}
	if got.TypeName != s.Type {
		return nil, false, fmt.Errorf("set %s exists with type %s: remove it with `ipset destroy %s`", s.Name, got.TypeName, s.Name)
	}
	elements := make([]Element, 0, len(got.Entries))
	for _, e := range got.Entries {
		if element, ok := fromEntry(e); ok {
			elements = append(elements, element)
		}
	}
	slices.SortFunc(elements, compareElement)
	return elements, true, nil
}

// look implements setEditor.
func (k *kernelSets) look(s Set) (setDifference, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.compare(s)
}

func (k *kernelSets) compare(s Set) (setDifference, error) {
	have, exists, err := k.list(s)
	return setDifference{Set: s, absent: !exists, lacks: missing(s.Elements, have), surplus: missing(have, s.Elements)}, err
}

// prepare implements setEditor.
func (k *kernelSets) prepare(s Set) (setDifference, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	difference, err := k.compare(s)
	if err != nil {
		return difference, err
	}
	if difference.absent {
		if err := k.create(s); err != nil {
			return difference, err
		}
	}
	k.counts[s.Name] = len(s.Elements) - len(difference.lacks) + len(difference.surplus)
	return difference, nil
}

// add implements setEditor.
func (k *kernelSets) add(s Set) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range s.Elements {
		if err := effect.Do("ipset.add", func() error { return k.handle.IpsetAdd(s.Name, e.entry(true)) }); err != nil {
			return fmt.Errorf("adding %s to set %s: %w", e, s.Name, err)
		}
		k.changeCount(s.Name, 1)
	}
	return nil
}

// remove implements setEditor. That an element is not there is fine.
func (k *kernelSets) remove(s Set) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range s.Elements {
		err := effect.Do("ipset.remove", func() error { return k.handle.IpsetDel(s.Name, e.entry(false)) })
		switch {
		case err == nil:
			k.changeCount(s.Name, -1)
		case !errors.Is(err, nl.IPSetError(nl.IPSET_ERR_EXIST)):
			return fmt.Errorf("removing %s from set %s: %w", e, s.Name, err)
		}
	}
	return nil
}

// changeCount leaves alone a set of which somebody has been told; the caller holds mu.
func (k *kernelSets) changeCount(name string, by int) {
	if n, counted := k.counts[name]; counted {
		k.counts[name] = n + by
	}
}

// destroy removes the set if it is there.
func (k *kernelSets) destroy(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.counts, name)
	_, err := k.handle.IpsetList(name)
	if err == nil {
		err = effect.Do("ipset.destroy", func() error { return k.handle.IpsetDestroy(name) })
	}
	if err == nil || noSuchSet(err) {
		return nil
	}
	return failedSet("removing", name, "", err)
}

func (k *kernelSets) create(s Set) error {
	family := uint8(unix.AF_INET)
	if s.V6 {
		family = unix.AF_INET6
	}
	err := effect.Do("ipset.create", func() error {
		return k.handle.IpsetCreate(s.Name, s.Type, netlink.IpsetCreateOptions{
			Family: family, MaxElements: maxElements, Revision: revision(s.Type),
		})
	})
	if err != nil {
		return failedSet("creating", s.Name, s.Type, err)
	}
	return nil
}

// revision names the oldest revision of a type that has all we use, so that old kernels
// are served too (linux/net/netfilter/ipset/ip_set_hash_*.c).
func revision(setType string) uint8 {
	if slices.Contains([]string{hashIPPort, hashIPPortIP, hashNetPort, hashIPPortNet}, setType) {
		return 1 // the first with sctp; and 0 means "choose" to the library
	}
	return 0
}

func noSuchSet(err error) bool {
	return errors.Is(err, unix.ENOENT)
}

// missing returns the elements of want that are not in have; both are sorted.
func missing(want, have []Element) []Element {
	var out []Element
	for _, e := range want {
		if _, ok := slices.BinarySearchFunc(have, e, compareElement); !ok {
			out = append(out, e)
		}
	}
	return out
}

// entry returns the element as the library sends it. replace makes adding what is there
// already no error.
func (e Element) entry(replace bool) *netlink.IPSetEntry {
	out := &netlink.IPSetEntry{
		IP: e.Prefix.Addr().AsSlice(), IFace: e.Iface, Replace: replace,
	}
	if e.Proto == 0 || !e.Prefix.IsSingleIP() { // types with an address in its place take no length
		out.CIDR = uint8(e.Prefix.Bits())
	}
	if e.Proto != 0 {
		proto, port := uint8(e.Proto), e.Port
		out.Protocol, out.Port = &proto, &port
	}
	if e.Peer.IsValid() {
		out.IP2 = e.Peer.Addr().AsSlice()
		if !e.Peer.IsSingleIP() {
			out.CIDR2 = uint8(e.Peer.Bits())
		}
	}
	return out
}

func fromEntry(e netlink.IPSetEntry) (Element, bool) {
	prefix, ok := prefixOf(e.IP, e.CIDR)
	if !ok {
		return Element{}, false
	}
	out := Element{Prefix: prefix, Iface: e.IFace}
	if e.Port != nil && e.Protocol != nil {
		out.Proto, out.Port = state.Proto(*e.Protocol), *e.Port
	}
	out.Peer, _ = prefixOf(e.IP2, e.CIDR2)
	return out, true
}

// prefixOf reads an address with a length, or without for a single one.
func prefixOf(ip net.IP, bits uint8) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	if bits == 0 {
		bits = uint8(addr.BitLen())
	}
	return netip.PrefixFrom(addr, int(bits)), true
}

// stray says that a set is not there any more, or has not as many elements as were left in it. Each is told of once: who looks at it
// because of that notes it anew.
func (k *kernelSets) stray() string {
	k.mu.Lock()
	names := slices.Sorted(maps.Keys(k.counts))
	k.mu.Unlock()
	reason := ""
	for _, name := range names {
		if r := k.straySet(name); r != "" {
			reason = r
		}
	}
	return reason
}

// straySet holds the lock for one set only, so that nobody who edits sets waits for all of them.
func (k *kernelSets) straySet(name string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	left, ours := k.counts[name]
	if !ours {
		return ""
	}
	now, err := k.count(name)
	switch {
	case noSuchSet(err):
		delete(k.counts, name)
		return "set " + name + " was removed"
	case err == nil && now >= 0 && now != left:
		delete(k.counts, name)
		return fmt.Sprintf("set %s has %d elements instead of %d", name, now, left)
	}
	return ""
}

// Of linux/netfilter/ipset/ip_set.h; the library has them under no name.
const (
	listHeader     = 1 << 2 // IPSET_FLAG_LIST_HEADER: without the elements
	sizeofNfgenmsg = 4
)

// count returns the number of a set's elements, -1 where the kernel does not say it (before 4.10).
func (k *kernelSets) count(name string) (int, error) {
	req := nl.NewNetlinkRequest(nl.IPSET_CMD_LIST|unix.NFNL_SUBSYS_IPSET<<8, nl.GetIpsetFlags(nl.IPSET_CMD_LIST))
	req.Sockets = k.asking
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_NETLINK, Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(name)))
	req.AddData(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_FLAGS | nl.NLA_F_NET_BYTEORDER, Value: listHeader})
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		data := attribute(m[min(sizeofNfgenmsg, len(m)):], nl.IPSET_ATTR_DATA)
		if n := attribute(data, nl.IPSET_ATTR_ELEMENTS); len(n) == 4 {
			return int(binary.BigEndian.Uint32(n)), nil
		}
	}
	return -1, nil
}

// attribute returns the value of an attribute in a list of them, nil if it is not there.
func attribute(list []byte, kind uint16) []byte {
	attributes, err := nl.ParseRouteAttr(list)
	if err != nil {
		return nil
	}
	for _, a := range attributes {
		if a.Attr.Type&nl.NLA_TYPE_MASK == kind {
			return a.Value
		}
	}
	return nil
}
