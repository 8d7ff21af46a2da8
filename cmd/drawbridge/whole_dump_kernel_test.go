//go:build kernel

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// dump is what is on a host, a line for each thing, less what differs between two hosts of one state.
type dump []string

func (d *dump) add(format string, args ...any) { *d = append(*d, fmt.Sprintf(format, args...)) }

// switches are the host's for forwarding.
var switches = []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"}

// dump writes down everything that the daemon may have changed.
func (h *wholeHost) dump() dump {
	h.t.Helper()
	h.awaitReaper()
	var d dump
	h.dumpRules(&d)
	h.dumpLinks(&d)
	h.dumpSockets(&d)
	h.dumpZone(&d)
	for _, key := range switches {
		d.add("%s = %s", key, h.file("/proc/sys/"+key))
	}
	slices.Sort(d)
	return d
}

// awaitReaper returns when the links that were removed are gone, which the daemon does a moment after it answered.
func (h *wholeHost) awaitReaper() {
	h.t.Helper()
	for deadline := time.Now().Add(patience); h.reaping(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("links that were removed are there after %s", patience)
		}
	}
}

// reaping reports whether there are links that are to be deleted.
func (h *wholeHost) reaping() bool {
	h.t.Helper()
	links, err := h.handle.LinkList()
	h.must(err)
	return slices.ContainsFunc(links, func(l netlink.Link) bool {
		return l.Attrs().Group == state.GroupDoomed || l.Attrs().Group == state.GroupDoomedBridge
	})
}

// without leaves out the links of joined endpoints, which a fresh daemon does not make: their container took
// its end along.
func (d dump) without(s state.Snapshot) dump {
	return slices.DeleteFunc(slices.Clone(d), func(line string) bool {
		return slices.ContainsFunc(s.Endpoints, func(e state.Endpoint) bool {
			return e.Joined() && (strings.HasPrefix(line, "link "+e.HostLink()+":") || strings.HasPrefix(line, "link "+e.ContainerLink()+":"))
		})
	})
}

var (
	counters = regexp.MustCompile(` \[\d+:\d+\]`)
	hashSize = regexp.MustCompile(` hashsize .*`)
)

// dumpRules numbers the rules of a chain, whose order counts; that of chains and elements does not. A table's own
// chains are there from its first use on, and say nothing while they are empty.
func (h *wholeHost) dumpRules(d *dump) {
	h.t.Helper()
	for _, program := range []string{"iptables", "ip6tables"} {
		table, rules := "", map[string]int{}
		for line := range strings.Lines(h.output(program + "-save")) {
			line = counters.ReplaceAllString(strings.TrimSpace(line), "")
			switch fields := strings.Fields(line); {
			case strings.HasPrefix(line, "*"):
				table = line
			case strings.HasPrefix(line, "-A"):
				rules[table+fields[1]]++
				d.add("%s %s %s rule %03d: %s", program, table, fields[1], rules[table+fields[1]], line)
			case strings.HasPrefix(line, ":") && !strings.HasSuffix(line, " ACCEPT"):
				d.add("%s %s %s", program, table, line)
			}
		}
	}
	h.dumpTable(d)
	for line := range strings.Lines(h.output("ipset", "save")) {
		d.add("ipset %s", hashSize.ReplaceAllString(strings.TrimSpace(line), ""))
	}
}

var (
	elements = regexp.MustCompile(`elements = \{([^}]*)\}`)
	setName  = regexp.MustCompile(`(?:set|map) (\S+) \{`)
)

// dumpTable writes down nftables' table, whose elements have no order.
func (h *wholeHost) dumpTable(d *dump) {
	h.t.Helper()
	if !strings.Contains(h.output("nft", "list", "tables"), "table inet drawbridge\n") {
		return
	}
	text := h.output("nft", "-s", "list", "table", "inet", "drawbridge")
	for _, m := range elements.FindAllStringSubmatchIndex(text, -1) {
		names := setName.FindAllStringSubmatch(text[:m[0]], -1)
		for element := range strings.SplitSeq(text[m[2]:m[3]], ",") {
			d.add("nft element of %s: %s", names[len(names)-1][1], strings.Join(strings.Fields(element), " "))
		}
	}
	block, rule := "", 0
	for line := range strings.Lines(elements.ReplaceAllString(text, "")) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line == "}": // between chains, whose order says nothing
			continue
		case strings.HasSuffix(line, "{"):
			block, rule = line, 0
		}
		rule++
		d.add("nft %s %03d: %s", block, rule, line)
	}
}

func (h *wholeHost) dumpLinks(d *dump) {
	h.t.Helper()
	links, err := h.handle.LinkList()
	h.must(err)
	names := map[int]string{0: "none"}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		h.dumpLink(d, l, names[l.Attrs().MasterIndex])
		h.dumpSysctls(d, l.Attrs().Name)
	}
}

func (h *wholeHost) dumpLink(d *dump, l netlink.Link, master string) {
	h.t.Helper()
	a := l.Attrs()
	line := fmt.Sprintf("%s group %#x alias %q mtu %d up %v master %s", l.Type(), a.Group, a.Alias, a.MTU, a.Flags&net.FlagUp != 0, master)
	if strings.HasPrefix(a.Name, "br") || strings.HasPrefix(a.Name, "dbr") {
		line += " mac " + a.HardwareAddr.String() // all others are random
	}
	if master != "none" {
		port, err := h.handle.LinkGetProtinfo(l)
		h.must(err)
		line += fmt.Sprintf(" isolated %v hairpin %v learning %v flood %v", port.Isolated, port.Hairpin, port.Learning, port.Flood)
	}
	d.add("link %s: %s", a.Name, line)
	addrs, err := h.handle.AddrList(l, netlink.FAMILY_ALL)
	h.must(err)
	for _, addr := range addrs {
		if !addr.IP.IsLinkLocalUnicast() { // made by the kernel, when it gets to it
			d.add("link %s: address %s", a.Name, addr.IPNet)
		}
	}
	if filters, err := h.handle.FilterList(l, netlink.HANDLE_MIN_INGRESS); err == nil { // else there is no place for any
		for _, f := range filters {
			d.add("link %s: filter %s %d %#x", a.Name, f.Type(), f.Attrs().Priority, f.Attrs().Handle)
		}
	}
	neighbours, err := h.handle.NeighProxyList(a.Index, netlink.FAMILY_V6)
	h.must(err)
	for _, n := range neighbours {
		d.add("link %s: answers for %s", a.Name, n.IP)
	}
}

func (h *wholeHost) dumpSysctls(d *dump, link string) {
	h.t.Helper()
	for _, tree := range []string{"ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"} {
		var files []string
		h.in(func() (err error) {
			files, err = filepath.Glob("/proc/sys/net/" + tree + "/" + link + "/*")
			return err
		})
		for _, file := range files {
			d.add("link %s: %s/%s = %s", link, tree, filepath.Base(file), h.file(file))
		}
	}
}

// dumpSockets lists listening TCP sockets and all UDP ones.
func (h *wholeHost) dumpSockets(d *dump) {
	h.t.Helper()
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for line := range strings.Lines(h.file("/proc/thread-self/net/" + proto)) {
			fields := strings.Fields(line)
			const listening = "0A"
			if len(fields) > 3 && strings.Contains(fields[1], ":") && (fields[3] == listening || strings.HasPrefix(proto, "udp")) {
				d.add("socket %s %s", proto, fields[1])
			}
		}
	}
}

// snapshot reads the state, from a copy: a daemon that has nothing to do leaves the file alone, and holds its lock.
func (h *wholeHost) snapshot() state.Snapshot {
	h.t.Helper()
	raw, err := os.ReadFile(h.state)
	h.must(err)
	h.must(os.WriteFile(h.path("copy.db"), raw, 0o600))
	s, err := store.Open(h.path("copy.db"))
	h.must(err)
	defer s.Close()
	return s.Snapshot()
}

// stateText writes a state for people to compare, less its revision, and ports whose connections are to be ended: those are forgotten
// some time later.
func stateText(s state.Snapshot) string {
	s.Revision, s.Endpoints = 0, slices.Clone(s.Endpoints)
	for i := range s.Endpoints {
		s.Endpoints[i].Closed = nil
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// inherit gives the host the state of another, and what no daemon would make anew: forwarding that was
// turned on for networks that are gone stays on.
func (h *wholeHost) inherit(other *wholeHost) {
	h.t.Helper()
	raw, err := os.ReadFile(other.state)
	h.must(err)
	h.must(os.WriteFile(h.state, raw, 0o600))
	need4, need6 := state.NeedForwarding(other.snapshot().Networks)
	for key, needed := range map[string]bool{"net/ipv4/ip_forward": need4, "net/ipv6/conf/all/forwarding": need6} {
		if value := other.file("/proc/sys/" + key); !needed && value == "1" {
			h.in(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
		}
	}
}
