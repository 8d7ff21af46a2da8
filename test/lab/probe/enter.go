package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// enter runs a command in the namespaces of a process and ends as it ended.
// It differs from nsenter(1) in what a caller of os/exec expects: signals are
// passed on, killing enter kills the command, and its process id can be had.
func enter(args []string) error {
	flags := flag.NewFlagSet("enter", flag.ContinueOnError)
	report := flags.Int("report", 0, "file descriptor to write the command's process id to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pid, err := strconv.Atoi(flags.Arg(0))
	if err != nil || flags.NArg() < 2 {
		return errors.New("usage: probe enter [-report FD] PID CMD [ARG...]")
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	// The namespaces are this thread's alone; it is never given back.
	runtime.LockOSThread()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := join(pid); err != nil {
		return err
	}
	// Looked up here, so that a missing command is known before its id is reported.
	path, err := exec.LookPath(flags.Arg(1))
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{"become", path}, flags.Args()[1:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if *report > 0 {
		syscall.CloseOnExec(*report)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := tell(*report, cmd.Process.Pid); err != nil {
		return err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	os.Exit(status(cmd))
	return nil
}

// become is enter's child: it ties its life to enter's and turns into the command.
func become(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: probe become PATH CMD [ARG...]")
	}
	if err := dieWithParent(); err != nil {
		return err
	}
	return fmt.Errorf("running %s: %w", args[0], syscall.Exec(args[0], args[1:], os.Environ()))
}

// dieWithParent has the kernel kill this process when the thread that started
// it ends. SysProcAttr.Pdeathsig does not do: it takes a parent in another pid
// namespace, whose id reads as 0, for a dead one.
func dieWithParent() error {
	runtime.LockOSThread()
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0)
}

// join moves the calling thread. The mount namespace refuses a thread that
// shares its working directory with others, hence the unshare before it.
func join(pid int) error {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	var files []*os.File
	kinds := []string{"uts", "ipc", "net", "pid", "mnt"}
	for _, kind := range kinds {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			return fmt.Errorf("the lab is not running: %w", err)
		}
		defer f.Close()
		files = append(files, f)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unsharing the working directory: %w", err)
	}
	for i, f := range files {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("entering the lab's %s namespace: %w", kinds[i], err)
		}
	}
	// A working directory that the lab does not have is no reason to fail.
	if os.Chdir(dir) != nil {
		return os.Chdir("/")
	}
	return nil
}

func tell(fd, pid int) error {
	if fd == 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), "report")
	_, err := fmt.Fprintln(f, pid)
	return errors.Join(err, f.Close())
}

// status waits and translates, as a shell does, a signal into 128 and its number.
func status(cmd *exec.Cmd) int {
	err := cmd.Wait()
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return exit.ExitCode()
}
