package publish

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// procfs is where the proc file system is mounted.
type procfs string

// owner names the process that has a socket at a place: "nginx (pid 1234)".
// It is empty when there is none to be found, for example because the process lives in another PID
// namespace. Where processes share a socket, the one with the lowest id is named.
func (p procfs) owner(ctx context.Context, at place) string {
	inodes := p.inodes(ctx, at)
	if len(inodes) == 0 {
		return ""
	}
	pids := p.processes(ctx, inodes)
	for _, inode := range inodes {
		if pid, ok := pids[inode]; ok {
			return fmt.Sprintf("%s (pid %d)", p.name(pid), pid)
		}
	}
	return ""
}

// States of include/net/tcp_states.h as /proc/net shows them.
const (
	stateUnconnected = "07" // of UDP
	stateListen      = "0A" // of TCP
)

// inodes returns the sockets that are in the way of at, the likeliest first:
// a listener before a mere connection, the own family before the other one.
func (p procfs) inodes(ctx context.Context, at place) []string {
	files := []string{at.proto.String() + "6"}
	if at.addr.Addr().Is4() {
		// A socket on [::] without V6ONLY has the IPv4 port as well.
		files = []string{at.proto.String(), at.proto.String() + "6"}
	}
	var servers, others []string
	for _, file := range files {
		for s := range p.sockets(ctx, file) {
			switch {
			case s.inode == "0" || !s.blocks(at):
			case s.state == stateListen || s.state == stateUnconnected:
				servers = append(servers, s.inode)
			default:
				others = append(others, s.inode)
			}
		}
	}
	return append(servers, others...)
}

// procSocket is one line of /proc/net/{tcp,tcp6,udp,udp6}.
type procSocket struct {
	local netip.AddrPort
	state string
	inode string // "0" where the socket has no file, as in TIME_WAIT
}

func (s procSocket) blocks(at place) bool {
	a, b := s.local.Addr().Unmap(), at.addr.Addr()
	if s.local.Port() != at.addr.Port() {
		return false
	}
	if a.Is4() != b.Is4() {
		return a == any6 && b.Is4()
	}
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

func (p procfs) sockets(ctx context.Context, file string) iter.Seq[procSocket] {
	return func(yield func(procSocket) bool) {
		f, err := os.Open(filepath.Join(string(p), "net", file))
		if err != nil {
			return // a kernel without IPv6 has no tcp6
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan() && ctx.Err() == nil; {
			if s, ok := parseSocket(lines.Text()); ok && !yield(s) {
				return
			}
		}
	}
}

// parseSocket reads a line such as
//
//	0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 …
func parseSocket(line string) (procSocket, bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return procSocket{}, false
	}
	addr, port, ok := strings.Cut(fields[1], ":")
	ip, okIP := parseHexAddr(addr)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || !okIP || err != nil {
		return procSocket{}, false // the heading
	}
	return procSocket{netip.AddrPortFrom(ip, uint16(n)), fields[3], fields[9]}, true
}

// parseHexAddr undoes what the kernel does: it prints an address as integers of
// 32 bits in the machine's own byte order.
func parseHexAddr(text string) (netip.Addr, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	for w := range slices.Chunk(b, 4) {
		binary.NativeEndian.PutUint32(w, binary.BigEndian.Uint32(w))
	}
	return netip.AddrFromSlice(b)
}

// processes returns the lowest process id that has each of the sockets open.
func (p procfs) processes(ctx context.Context, inodes []string) map[string]int {
	found := map[string]int{}
	for _, pid := range p.pids() {
		if ctx.Err() != nil || len(found) == len(inodes) {
			break
		}
		dir := filepath.Join(string(p), strconv.Itoa(pid), "fd")
		files, _ := os.ReadDir(dir) // the process may have ended, or be none of our business
		for _, f := range files {
			link, _ := os.Readlink(filepath.Join(dir, f.Name()))
			inode, ok := strings.CutPrefix(link, "socket:[")
			inode = strings.TrimSuffix(inode, "]")
			if _, known := found[inode]; ok && !known && slices.Contains(inodes, inode) {
				found[inode] = pid
			}
		}
	}
	return found
}

func (p procfs) pids() []int {
	entries, _ := os.ReadDir(string(p))
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

func (p procfs) name(pid int) string {
	b, err := os.ReadFile(filepath.Join(string(p), strconv.Itoa(pid), "comm"))
	if err != nil || len(b) == 0 {
		return "a process"
	}
	return strings.TrimSpace(string(b))
}
