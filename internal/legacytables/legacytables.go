// Package legacytables asks the kernel about the tables of legacy iptables, of which it tells nobody when they change, and makes none: to
// name a table to that variant's programs that is not there would make it.
package legacytables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math/bits"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Tables are those of the network namespace in which they were opened.
type Tables struct {
	sockets [2]int // of both families, -1 where the kernel lacks one
}

// getInfo is IPT_SO_GET_INFO and IP6T_SO_GET_INFO (linux/netfilter_ipv4/ip_tables.h).
const getInfo = 64

// info is ipt_getinfo and ip6t_getinfo: the table's name, its hooks, the number of its rules and their size.
type info [84]byte

// Offsets in it of 32-bit numbers.
const (
	validHooks = 32
	numEntries = 76
)

// rules is the number of the table's rules. A chain of the table's own counts one, for its policy, any other two, and the table one.
func (in info) rules() int { return int(binary.NativeEndian.Uint32(in[numEntries:])) }

// blank is what it was when the table was made.
func (in info) blank() int { return bits.OnesCount32(binary.NativeEndian.Uint32(in[validHooks:])) + 1 }

// Table names a table of a family.
type Table struct {
	V6   bool
	Name string
}

// Sizes are what the kernel tells of tables: their numbers of rules, and the rules' sizes.
type Sizes map[Table]info

// Equal reports whether nothing that shows there has changed.
func (s Sizes) Equal(later Sizes) bool { return maps.Equal(s, later) }

// Becomes reports whether later may come of s by changes that add so many rules to each of the tables that they are made in, and by
// nothing else. A table that is not in s is made by the first of them.
func (s Sizes) Becomes(later Sizes, added map[Table]int) bool {
	for t, now := range later {
		before, known := s[t]
		more, changed := added[t]
		switch {
		case !changed:
			if before != now {
				return false
			}
		case known && now.rules() != before.rules()+more, !known && now.rules() != now.blank()+more:
			return false
		}
	}
	for t := range s {
		if _, there := later[t]; !there {
			return false
		}
	}
	return true
}

// families are where each of both has its tables.
var families = [2]struct {
	domain, level int
	names         string // of the tables that are there
}{
	{unix.AF_INET, unix.SOL_IP, "/proc/thread-self/net/ip_tables_names"},
	{unix.AF_INET6, unix.SOL_IPV6, "/proc/thread-self/net/ip6_tables_names"},
}

// Open never fails: where the kernel lacks a family there is nothing to ask.
func Open() *Tables {
	t := &Tables{}
	for i, f := range families {
		var err error
		if t.sockets[i], err = unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.sockets[i] = -1
		}
	}
	return t
}

// Close gives back what Open took.
func (t *Tables) Close() {
	for _, fd := range t.sockets {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Present returns the names of a family's tables that are there, none where the variant is not in use.
func Present(v6 bool) []string {
	f := families[0]
	if v6 {
		f = families[1]
	}
	return present(f.names)
}

func present(file string) []string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var out []string
	for name := range bytes.FieldsSeq(text) {
		out = append(out, string(name))
	}
	return out
}

// Sizes returns what the kernel tells of those of the tables that are there, in both families: how many rules each has, and their size.
// Each change is the exchange of a whole table; one that leaves both numbers as they were is not seen here.
func (t *Tables) Sizes(tables ...string) Sizes {
	all := Sizes{}
	for i, f := range families {
		for _, name := range present(f.names) {
			var in info
			copy(in[:], name)
			if slices.Contains(tables, name) && read(t.sockets[i], f.level, &in) == nil {
				all[Table{i == 1, name}] = in
			}
		}
	}
	return all
}

// read fills in what the kernel knows of the table that in names.
func read(fd, level int, in *info) error {
	if fd < 0 {
		return errors.ErrUnsupported
	}
	size := uint32(len(in))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), getInfo,
		uintptr(unsafe.Pointer(in)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
