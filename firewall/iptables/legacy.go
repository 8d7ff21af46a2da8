package iptables

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// legacy tells whether rules of the legacy variant are as they were left. Each change there is the exchange of a whole table, of which
// the kernel tells the number of rules and their size for a system call. Nil is for who watches nothing.
type legacy struct {
	sockets [2]int // of both families, -1 where the kernel lacks one

	mu   sync.Mutex
	left *string // what was there when we were last done; nil while we are at work, and for who does not use it; guarded by mu
	seen string  // what was there before somebody looked; guarded by mu
}

// getInfo is IPT_SO_GET_INFO and IP6T_SO_GET_INFO (linux/netfilter_ipv4/ip_tables.h).
const getInfo = 64

// tableInfo is ipt_getinfo and ip6t_getinfo: the table's name, its hooks, the number of its rules and their size.
type tableInfo [84]byte

// families are where each of both has its tables.
var families = [2]struct {
	domain, level int
	names         string // of the tables that are there; to ask for one that is not would make it
}{
	{unix.AF_INET, unix.SOL_IP, "/proc/thread-self/net/ip_tables_names"},
	{unix.AF_INET6, unix.SOL_IPV6, "/proc/thread-self/net/ip6_tables_names"},
}

func newLegacy() *legacy {
	l := &legacy{}
	for i, f := range families {
		var err error
		if l.sockets[i], err = unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			l.sockets[i] = -1
		}
	}
	return l
}

func (l *legacy) close() {
	if l == nil {
		return
	}
	for _, fd := range l.sockets {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// begin says that we look at the rules, and may change them. What somebody changes from now on is news, unless we write.
func (l *legacy) begin() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.seen = nil, l.look()
}

// end says that the rules are as we want them, and whether we wrote any.
func (l *legacy) end(wrote bool) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.seen
	if wrote {
		now = l.look()
	}
	l.left = &now
}

// stray says that somebody changed rules, once.
func (l *legacy) stray() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == nil || *l.left == l.look() {
		return ""
	}
	l.left = nil
	return "rules of legacy iptables were changed"
}

// look returns what the kernel tells of the tables in which rules of ours may be.
func (l *legacy) look() string {
	var all strings.Builder
	for i, f := range families {
		for name := range bytes.FieldsSeq(tableNames(f.names)) {
			var info tableInfo
			copy(info[:], name)
			if slices.Contains(tables, string(name)) && readInfo(l.sockets[i], f.level, &info) == nil {
				all.Write(info[:])
			}
		}
	}
	return all.String()
}

// tableNames is empty where the variant is not in use.
func tableNames(file string) []byte {
	names, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return names
}

// readInfo fills in what the kernel knows of the table that info names.
func readInfo(fd, level int, info *tableInfo) error {
	if fd < 0 {
		return errors.ErrUnsupported
	}
	size := uint32(len(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), getInfo,
		uintptr(unsafe.Pointer(info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
