package lab

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"
)

// ufwDefaults is /etc/default/ufw as Debian has it, without comments: the machine's own may be anything.
const ufwDefaults = `IPV6=yes
DEFAULT_INPUT_POLICY="DROP"
DEFAULT_OUTPUT_POLICY="ACCEPT"
DEFAULT_FORWARD_POLICY="DROP"
DEFAULT_APPLICATION_POLICY="SKIP"
MANAGE_BUILTINS=no
IPT_SYSCTL=/etc/ufw/sysctl.conf
IPT_MODULES=""
`

// StartUFW turns ufw on, as it is after its installation (incoming connections are denied), and has it take commands before that, each of
// them the words behind "ufw". Its rules are written by the lab's variant of iptables. They are in force when this returns, and there
// is no process that could end.
func (h *Host) StartUFW(ctx context.Context, commands ...string) error {
	began := time.Now()
	if err := os.WriteFile(h.Path("/etc/default/ufw"), []byte(ufwDefaults), 0o644); err != nil {
		return err
	}
	for _, command := range append(append([]string{"reset"}, commands...), "enable") {
		if err := h.UFW(ctx, command); err != nil {
			return err
		}
	}
	h.logf("ufw ready in %v", time.Since(began))
	return nil
}

// UFW runs a command of ufw, such as "allow 8080/tcp", "reload" or "disable". It asks no questions.
func (h *Host) UFW(ctx context.Context, command string) error {
	words := strings.Fields(command)
	if len(words) > 0 && slices.Contains([]string{"enable", "reset", "delete"}, words[0]) {
		words = append([]string{"--force"}, words...) // which others do not take
	}
	_, err := h.Run(ctx, "ufw", words...)
	return err
}
