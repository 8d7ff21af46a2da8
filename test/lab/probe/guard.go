package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are what guard and init are told about the lab.
type settings struct {
	dir      string   // scratch directory, deleted at the end
	cgroup   string   // name of the containers' parent cgroup
	iptables string   // nft or legacy
	root     string   // another root directory than the machine's
	shared   []string // what of the machine is seen in that root, at the same paths
	systemd  bool     // pid 1 becomes systemd
}

func parseSettings(name string, args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&s.dir, "dir", "", "scratch directory")
	flags.StringVar(&s.cgroup, "cgroup", "", "cgroup of the containers")
	flags.StringVar(&s.iptables, "iptables", "nft", "nft or legacy")
	flags.StringVar(&s.root, "root", "", "root directory; the machine's own if empty")
	flags.Func("share", "file or directory of the machine to see in the root", func(path string) error {
		s.shared = append(s.shared, path)
		return nil
	})
	flags.BoolVar(&s.systemd, "systemd", false, "become systemd, which needs a root")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if s.systemd && s.root == "" {
		return s, fmt.Errorf("%s: -systemd needs -root: it would start what the machine starts", name)
	}
	// Its directories are deleted: nothing but a plain name will do.
	plain := s.cgroup != "" && !strings.ContainsAny(s.cgroup, "/*?[\\") && s.cgroup[0] != '.'
	if !filepath.IsAbs(s.dir) || !plain {
		return s, fmt.Errorf("%s: -dir must be absolute and -cgroup a plain name", name)
	}
	return s, nil
}

// guard stands outside the lab's namespaces. It starts their init, kills it
// when standard input ends (Close, or the death of the program that made the
// lab, however sudden), and then removes what outlives the namespaces.
func guard(args []string) error {
	s, err := parseSettings("guard", args)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// Init dies with the thread that made it (see dieWithParent), not the process.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", append([]string{"init"}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("making the lab's namespaces: %w", err), os.RemoveAll(s.dir))
	}
	fmt.Println("init", cmd.Process.Pid)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = cmd.Process.Kill()
	}()
	// The kernel reports a namespace's init as ended only after everything else in it has.
	_ = cmd.Wait()
	errs := []error{removeCgroups("/sys/fs/cgroup", s.cgroup)}
	for _, id := range plugins(s.dir) {
		errs = append(errs, removeCgroups("/sys/fs/cgroup", id))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// pluginID is what dockerd calls a managed plugin, and the plugin's cgroup, which is not below the one of containers.
var pluginID = regexp.MustCompile("^[0-9a-f]{64}$")

// plugins are the ids of those that were in the lab's engine.
func plugins(dir string) []string {
	entries, _ := os.ReadDir(filepath.Join(dir, "docker", "plugins")) // without an engine there is none
	var ids []string
	for _, e := range entries {
		if pluginID.MatchString(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// removeCgroups deletes the cgroup of that name from the unified hierarchy
// (mounted at root itself) and from each of the version 1 hierarchies below it.
func removeCgroups(root, name string) error {
	tops, err := filepath.Glob(filepath.Join(root, "*", name))
	if err != nil {
		return err
	}
	var errs []error
	for _, top := range append(tops, filepath.Join(root, name)) {
		errs = append(errs, removeTree(top))
	}
	return errors.Join(errs...)
}

// removeTree removes directories only, deepest first: a cgroup's files go with it.
func removeTree(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone is what we want
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	var errs []error
	for _, dir := range slices.Backward(dirs) {
		errs = append(errs, removeBusy(dir))
	}
	return errors.Join(append(errs, err)...)
}

// removeBusy tries for half a minute: a cgroup stays busy for a moment after its last process, and on a busy machine for longer.
func removeBusy(dir string) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("removing cgroup %s: %w", dir, err)
		}
	}
}
