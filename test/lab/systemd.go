package lab

import (
	"context"
	"fmt"
	"time"
)

// awaitSystemd waits until systemd has started what its default target wants.
func (h *Host) awaitSystemd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		said, err := h.Run(ctx, "systemctl", "is-system-running", "--wait")
		if err == nil {
			return nil
		}
		if said == "degraded\n" {
			failed, _ := h.Run(ctx, "systemctl", "--failed", "--plain", "--no-legend")
			return fmt.Errorf("systemd is up, and some units failed:\n%s", failed)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("systemd does not come up: %w: %s", err, said)
		case <-time.After(20 * time.Millisecond): // it does not listen yet
		}
	}
}

// Journal is what systemd and its units have logged, the last lines of it.
func (h *Host) Journal(ctx context.Context, lines int, units ...string) string {
	args := []string{"--no-pager", "--output=short-precise", fmt.Sprintf("--lines=%d", lines)}
	for _, unit := range units {
		args = append(args, "--unit="+unit)
	}
	text, err := h.Run(ctx, "journalctl", args...)
	if err != nil {
		return err.Error()
	}
	return text
}

// Engine is the one that docker.service runs. It is started and stopped with systemctl, not by the methods for that.
func (h *Host) Engine(ctx context.Context) (*Docker, error) {
	version, err := h.dockerVersion(ctx)
	return &Docker{host: h, version: version}, err
}
