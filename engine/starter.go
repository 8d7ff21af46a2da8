package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// errAsleep is for an engine that a question would start.
var errAsleep = errors.New("it is not running, and a question would start it")

// starter finds out whether anybody but systemd listens on a socket. systemd holds the socket of a unit such as docker.socket
// also while the engine is stopped, and starts it for whoever connects; the engine inherits it.
type starter struct {
	proc string

	mu     sync.Mutex
	holder int // the process that was found to hold the socket, 0 for none yet; guarded by mu
}

// refuseToWake is an error if a question would start the engine. Where that cannot be told it would not: then systemd's
// open files cannot be read, or the socket is not in our network namespace, as systemd's would be.
func (c *client) refuseToWake() error {
	socket, found := c.starter.listening(c.path)
	if !found || !c.starter.holds(1, socket) || c.starter.served(socket) {
		return nil
	}
	return errAsleep
}

// acceptsConnections is the flag of a listening socket in /proc/net/unix (__SO_ACCEPTCON).
const acceptsConnections = 1 << 16

// listening returns what the descriptors of the socket that listens at path are links to.
func (s *starter) listening(path string) (link string, found bool) {
	text, err := os.ReadFile(filepath.Join(s.proc, "net", "unix"))
	if err != nil {
		return "", false
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", false
	}
	want, err := os.Stat(path)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(text)) {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(line)
		if len(fields) != 8 || filepath.Base(fields[7]) != filepath.Base(path) {
			continue
		}
		flags, err := strconv.ParseUint(fields[3], 16, 32)
		if err != nil || flags&acceptsConnections == 0 {
			continue
		}
		if bound, err := os.Stat(fields[7]); err == nil && os.SameFile(bound, want) {
			return "socket:[" + fields[6] + "]", true
		}
	}
	return "", false
}

// served reports whether a process other than systemd has the socket. All processes are looked through only when the one found last time
// has it no more.
func (s *starter) served(link string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != 0 && s.holds(s.holder, link) {
		return true
	}
	s.holder = 0
	processes, _ := os.ReadDir(s.proc)
	for _, p := range processes {
		if pid, err := strconv.Atoi(p.Name()); err == nil && pid != 1 && s.holds(pid, link) {
			s.holder = pid
			return true
		}
	}
	return false
}

// holds reports whether the process has the socket open, as far as can be seen.
func (s *starter) holds(pid int, link string) bool {
	dir := filepath.Join(s.proc, strconv.Itoa(pid), "fd")
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if to, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil && to == link {
			return true
		}
	}
	return false
}
