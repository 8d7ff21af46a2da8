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

	"github.com/drawbridge-net/drawbridge/state"
)

// procfs is where the proc file system is mounted.
type procfs string

// owner names the process that has a socket at a place: "nginx (pid 1234)", and says what it is for if it is Docker's.
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
			return p.describe(pid)
		}
	}
	return ""
}

// describe names a process, and for whom it has a port if it is one of Docker's: a proxy, or without
// --userland-proxy the engine itself.
func (p procfs) describe(pid int) string {
	name := p.name(pid)
	out := fmt.Sprintf("%s (pid %d)", name, pid)
	switch name {
	case "docker-proxy":
		if target, ok := p.proxied(pid); ok {
			out += fmt.Sprintf(", which publishes it for the container %s of Docker's own networks", target)
		}
	case "dockerd":
		out += ", most likely for a container of Docker's own networks: see docker ps"
	}
	return out
}

// proxied returns the container's side of a docker-proxy.
func (p procfs) proxied(pid int) (netip.AddrPort, bool) {
	b, err := os.ReadFile(filepath.Join(string(p), strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return netip.AddrPort{}, false
	}
	args := strings.Split(string(b), "\x00")
	ip, err1 := netip.ParseAddr(argument(args, "-container-ip"))
	port, err2 := strconv.ParseUint(argument(args, "-container-port"), 10, 16)
	return netip.AddrPortFrom(ip, uint16(port)), err1 == nil && err2 == nil
}

// argument returns the value that follows a flag, "" if there is none.
func argument(args []string, flag string) string {
	if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// States of include/net/tcp_states.h as /proc/net shows them.
const (
	stateUnconnected = "07" // of UDP
	stateListen      = "0A" // of TCP, and given to all of SCTP here
)

// inodes returns the sockets that are in the way of at, the likeliest first:
// a listener before a mere connection, the own family before the other one.
func (p procfs) inodes(ctx context.Context, at place) []string {
	files := []string{at.proto.String() + "6"}
	switch {
	case at.proto == state.SCTP:
		files = []string{sctpEndpoints}
	case at.addr.Addr().Is4():
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

// procSocket is one line of /proc/net/{tcp,tcp6,udp,udp6}, or one address of a line of /proc/net/sctp/eps.
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
			found := parseSocket(lines.Text())
			if file == sctpEndpoints {
				found = parseEndpoint(lines.Text())
			}
			for _, s := range found {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// sctpEndpoints lists the SCTP sockets of both families that listen, where the kernel has SCTP. One that
// is only bound, as ours are, is in no list.
const sctpEndpoints = "sctp/eps"

// parseEndpoint reads a line such as
//
//	ffff8881 ffff8882 2   10  28   3868     0 4242 192.0.2.1 198.51.100.1 …
func parseEndpoint(line string) []procSocket {
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return nil
	}
	port, err := strconv.ParseUint(fields[5], 10, 16)
	if err != nil {
		return nil // the heading
	}
	var out []procSocket
	for _, addr := range fields[8:] {
		if ip, err := netip.ParseAddr(addr); err == nil {
			out = append(out, procSocket{netip.AddrPortFrom(ip, uint16(port)), stateListen, fields[7]})
		}
	}
	return out
}

// parseSocket reads a line such as
//
//	0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 …
func parseSocket(line string) []procSocket {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return nil
	}
	addr, port, ok := strings.Cut(fields[1], ":")
	ip, okIP := parseHexAddr(addr)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || !okIP || err != nil {
		return nil // the heading
	}
	return []procSocket{{netip.AddrPortFrom(ip, uint16(n)), fields[3], fields[9]}}
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
