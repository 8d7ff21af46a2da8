package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options say what kind of machine a lab is. The zero value is a good one.
type Options struct {
	// Dir is where the scratch directory is made; the default is os.TempDir.
	// It must not be below /run, /etc, /opt, /var/lib or /var/log.
	Dir string
	// IPTables is the variant behind the iptables commands: "nft" (the default) or "legacy".
	IPTables string
	// Root is what the machine's files are: "" for those of the machine that the lab
	// runs on, Own for the same with nothing shared, or Trixie.
	Root string
	// Share are files and directories of the machine to be seen inside at the same
	// paths. With the machine's own root that is so without.
	Share []string
	// Systemd has systemd as pid 1, with D-Bus and the journal running and nothing
	// else started. It needs another Root than the machine's.
	Systemd bool
	// Log, when not nil, gets a line for each thing that came up and how long it took.
	Log io.Writer
}

// A Host is one throw-away machine. Its methods may be used from several goroutines.
type Host struct {
	dir   string // scratch directory, gone after Close
	name  string // unique on this machine; names the containers' cgroup
	init  int    // process id of the lab's pid 1, as seen outside
	log   io.Writer
	began time.Time

	guard      *exec.Cmd
	guardError bytes.Buffer // what guard and init wrote to standard error
	lifeline   io.Closer    // the lab ends when this pipe does

	closed  atomic.Bool
	once    sync.Once
	closing error // set by once; what Close returns

	indexes atomic.Int32 // of links in the outside namespace, see nextIndex

	mu      sync.Mutex
	uplinks map[string]*Uplink  // guarded by mu
	procs   map[string]*Process // guarded by mu; the last one of each name
}

// New makes a machine with nothing running in it and only a loopback link.
func New(ctx context.Context, o Options) (*Host, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab needs root: it makes namespaces and starts dockerd in them; run it with sudo")
	}
	if o.IPTables == "" {
		o.IPTables = "nft"
	}
	if o.IPTables != "nft" && o.IPTables != "legacy" {
		return nil, fmt.Errorf("iptables variant %q is neither nft nor legacy", o.IPTables)
	}
	root, err := rootDir(o.Root)
	if err != nil {
		return nil, err
	}
	options, err := rootArgs(root, o.Share)
	if err != nil {
		return nil, err
	}
	if o.Systemd {
		if root == "" {
			return nil, errors.New("systemd needs a root of its own: in the machine's it would start what the machine starts")
		}
		options = append(options, "-systemd")
	}
	h := &Host{log: o.Log, began: time.Now(), uplinks: map[string]*Uplink{}, procs: map[string]*Process{}}
	if err := h.scratch(o.Dir); err != nil {
		return nil, err
	}
	if err := h.open(append(options, "-iptables", o.IPTables)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(h.dir))
	}
	if _, err := h.Run(ctx, "ip", "link", "set", "lo", "up"); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	if o.Systemd {
		if err := h.awaitSystemd(ctx); err != nil {
			return nil, errors.Join(err, h.Close())
		}
	}
	h.logf("host ready in %v", time.Since(h.began))
	return h, nil
}

// scratch makes the directory and puts the helper program there.
func (h *Host) scratch(parent string) error {
	program, err := helper()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, "drawbridge-lab-")
	if err != nil {
		return err
	}
	if h.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	h.name = filepath.Base(h.dir)
	for _, tree := range []string{"/run/", "/etc/", "/opt/", "/var/lib/", "/var/log/"} {
		if strings.HasPrefix(h.dir, tree) {
			return errors.Join(fmt.Errorf("the lab hides %s from its programs; choose another scratch directory than %s", tree, h.dir), os.RemoveAll(h.dir))
		}
	}
	// Daemons that give up root must still find their way to files below.
	err = errors.Join(os.Chmod(h.dir, 0o755), os.Mkdir(filepath.Join(h.dir, "log"), 0o755))
	return errors.Join(err, writeProgram(program, h.Probe()))
}

// open starts the guard and waits until the lab's pid 1 has made its mounts.
func (h *Host) open(options []string) error {
	h.guard = exec.Command(h.Probe(), append([]string{"guard", "-dir", h.dir, "-cgroup", h.name}, options...)...)
	h.guard.Dir = "/"
	h.guard.Env = environment()
	h.guard.Stderr = &h.guardError
	// A Ctrl-C at the terminal must not end the guard ahead of its work.
	h.guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	lifeline, err := h.guard.StdinPipe()
	if err != nil {
		return err
	}
	h.lifeline = lifeline
	said, err := h.guard.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.guard.Start(); err != nil {
		return err
	}
	if h.init, err = awaitInit(said); err == nil {
		return nil
	}
	err = errors.Join(err, lifeline.Close(), h.guard.Wait())
	return fmt.Errorf("making the lab: %w\n%s", err, h.guardError.String())
}

// awaitInit reads the process id from guard and the word "ready" from init.
// They share the pipe, so that either may come first.
func awaitInit(said io.Reader) (pid int, err error) {
	ready := false
	for in := bufio.NewScanner(said); in.Scan(); {
		if in.Text() == "ready" {
			ready = true
		} else {
			_, _ = fmt.Sscanf(in.Text(), "init %d", &pid)
		}
		if ready && pid > 0 {
			return pid, nil
		}
	}
	return 0, errors.New("its init ended early")
}

// Close ends every process of the lab and removes all that it made. It may be called again.
func (h *Host) Close() error {
	h.once.Do(func() {
		h.closed.Store(true)
		began := time.Now()
		if err := errors.Join(h.lifeline.Close(), h.guard.Wait()); err != nil {
			h.closing = fmt.Errorf("closing the lab: %w\n%s", err, h.guardError.String())
		}
		h.logf("closed in %v", time.Since(began))
	})
	return h.closing
}

// Dir is the scratch directory; it has the same path inside and outside and goes with Close.
func (h *Host) Dir() string { return h.dir }

// Probe is the path of the helper program, the same inside and outside.
func (h *Host) Probe() string { return filepath.Join(h.dir, "probe") }

// Path is the way from outside the lab to an absolute path inside it. Unix
// sockets can be dialled by it.
func (h *Host) Path(inside string) string {
	return fmt.Sprintf("/proc/%d/root%s", h.init, inside)
}

// NetNS is the path of the host's network namespace, as seen from outside.
func (h *Host) NetNS() string { return fmt.Sprintf("/proc/%d/ns/net", h.init) }

// Logs is the end of each daemon's log, for a failure report.
func (h *Host) Logs() string {
	h.mu.Lock()
	procs := make([]*Process, 0, len(h.procs))
	for _, p := range h.procs {
		procs = append(procs, p)
	}
	h.mu.Unlock()
	slices.SortFunc(procs, func(a, b *Process) int { return strings.Compare(a.Name, b.Name) })
	var out strings.Builder
	for _, p := range procs {
		fmt.Fprintf(&out, "--- %s\n%s\n", p.Name, tail(p.Log(), 40))
	}
	return out.String()
}

func (h *Host) logf(format string, args ...any) {
	if h.log != nil {
		fmt.Fprintf(h.log, "lab: "+format+"\n", args...)
	}
}
