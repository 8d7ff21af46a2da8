package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a daemon may take to end in good order. The plugin
// lets calls under way come to their end for up to 25 s.
const stopTimeout = 30 * time.Second

// startTimeout is how long a daemon may take to be of use.
const startTimeout = 60 * time.Second

// A Process is a daemon inside the lab.
type Process struct {
	Name string // names the log file
	Pid  int    // as seen outside the lab

	path string // the log file
	cmd  *exec.Cmd
	done chan struct{} // closed after err is set
	err  error
}

// Start starts a daemon inside the lab, with env added to the lab's
// environment, and returns at once. Its output is appended to a log file of
// that name, so that a restarted daemon's log goes on where it was.
func (h *Host) Start(name string, argv []string, env []string) (*Process, error) {
	if len(argv) == 0 {
		return nil, fmt.Errorf("starting %s: no command given", name)
	}
	p := &Process{Name: name, path: h.logPath(name), done: make(chan struct{})}
	p.cmd = h.Command(context.Background(), argv[0], argv[1:]...)
	p.cmd.Args = slices.Insert(p.cmd.Args, 2, "-report", "3")
	p.cmd.Env = append(p.cmd.Env, env...)
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	h.mu.Lock()
	h.procs[name] = p
	h.mu.Unlock()
	return p, nil
}

func (h *Host) logPath(name string) string { return filepath.Join(h.dir, "log", name) }

func (p *Process) start() error {
	log, err := os.OpenFile(p.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	report, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer report.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.ExtraFiles = []*os.File{write}
	// A terminal's Ctrl-C is for the program that made the lab.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = p.cmd.Start()
	_ = write.Close()
	if err != nil {
		return err
	}
	line, readErr := bufio.NewReader(report).ReadString('\n')
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if readErr != nil {
		<-p.done
		return fmt.Errorf("%w\n%s", errors.Join(p.err, readErr), tail(p.Log(), 5))
	}
	p.Pid, err = strconv.Atoi(strings.TrimSpace(line))
	return err
}

// Stop asks the process to end (SIGTERM) and waits. One that does not end in
// time is killed and reported.
func (p *Process) Stop() error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("%s ignores SIGTERM for %v; its log ends:\n%s", p.Name, stopTimeout, tail(p.Log(), 20)), p.Kill())
	}
}

// Kill ends the process at once (SIGKILL) and waits until it is gone.
func (p *Process) Kill() error {
	err := p.signal(syscall.SIGKILL)
	<-p.done
	return err
}

// Wait waits for the end and says how it came.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Log is all the output so far, of earlier processes of this name too. It is empty after Close.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return ""
	}
	return string(text)
}

// signal does nothing to a process that has ended: its id may be another's by now.
func (p *Process) signal(s syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(p.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("sending %v to %s: %w", s, p.Name, err)
	}
	return nil
}

// await polls until the daemon is of use. It gives up when the daemon ends, and
// its error carries the last reason and the end of the log.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended while starting: %w; its log ends:\n%s", p.Name, errors.Join(p.err, err), tail(p.Log(), 20))
		case <-ctx.Done():
			return fmt.Errorf("%s does not become ready: %w; its log ends:\n%s", p.Name, errors.Join(ctx.Err(), err), tail(p.Log(), 20))
		}
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
