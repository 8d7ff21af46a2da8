package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

const firewalldConf = "/etc/firewalld/firewalld.conf"

// StartDBus starts the system bus and waits until it answers.
func (h *Host) StartDBus(ctx context.Context) (*Process, error) {
	began := time.Now()
	p, err := h.Start("dbus", []string{"dbus-daemon", "--system", "--nofork", "--nopidfile"}, nil)
	if err != nil {
		return nil, err
	}
	err = p.await(ctx, func(ctx context.Context) error {
		_, err := h.busCall(ctx, "org.freedesktop.DBus", "/", "org.freedesktop.DBus.GetId")
		return err
	})
	if err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	h.logf("dbus ready in %v", time.Since(began))
	return p, nil
}

// StartFirewalld starts firewalld, with zone public as the default one, and
// waits until its rules are in force. Settings are lines of firewalld.conf,
// as "FirewallBackend=iptables"; they stay for later starts.
func (h *Host) StartFirewalld(ctx context.Context, settings ...string) (*Process, error) {
	began := time.Now()
	if err := h.configureFirewalld(settings); err != nil {
		return nil, err
	}
	p, err := h.Start("firewalld", []string{"firewalld", "--nofork", "--nopid"}, nil)
	if err != nil {
		return nil, err
	}
	err = p.await(ctx, func(ctx context.Context) error {
		// The name is owned long before the rules are made; the state says when they are.
		state, err := h.busCall(ctx, "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1",
			"org.freedesktop.DBus.Properties.Get", "string:org.fedoraproject.FirewallD1", "string:state")
		if err == nil && !strings.Contains(state, `"RUNNING"`) {
			return fmt.Errorf("firewalld's state is %s", strings.TrimSpace(state))
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	h.logf("firewalld ready in %v", time.Since(began))
	return p, nil
}

// StopFirewalld stops it in good order; it takes its rules away. Without a
// running firewalld there is nothing to do.
func (h *Host) StopFirewalld() error {
	h.mu.Lock()
	p := h.procs["firewalld"]
	h.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.Stop()
}

func (h *Host) configureFirewalld(settings []string) error {
	if len(settings) == 0 {
		return nil
	}
	text, err := os.ReadFile(h.Path(firewalldConf))
	if err != nil {
		return fmt.Errorf("reading the lab's firewalld.conf: %w", err)
	}
	return os.WriteFile(h.Path(firewalldConf), []byte(withSettings(string(text), settings)), 0o644)
}

// withSettings replaces the lines for the same keys and appends the others.
func withSettings(conf string, settings []string) string {
	var lines []string
	for line := range strings.Lines(conf) {
		key, _, _ := strings.Cut(line, "=")
		if !hasKey(settings, key) {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return strings.Join(append(lines, settings...), "\n") + "\n"
}

func hasKey(settings []string, key string) bool {
	for _, s := range settings {
		if k, _, _ := strings.Cut(s, "="); k == key {
			return true
		}
	}
	return false
}

func (h *Host) busCall(ctx context.Context, dest, object, method string, args ...string) (string, error) {
	argv := append([]string{"--system", "--print-reply", "--dest=" + dest, object, method}, args...)
	return h.Run(ctx, "dbus-send", argv...)
}
