package lab

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// Rules is the text of iptables-save and ip6tables-save, of the lab's variant,
// without counters and comments: equal texts are equal rules.
func (h *Host) Rules(ctx context.Context) (string, error) {
	var out strings.Builder
	for _, name := range []string{"iptables-save", "ip6tables-save"} {
		text, err := h.Run(ctx, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "# %s\n%s", name, withoutCounters(text))
	}
	return out.String(), nil
}

// counters stand behind a chain's policy.
var counters = regexp.MustCompile(` \[\d+:\d+\]$`)

func withoutCounters(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, "#") {
			out.WriteString(counters.ReplaceAllString(line, "") + "\n")
		}
	}
	return out.String()
}

// NFTables is nft's ruleset without counters. With the nft variant of iptables it has its rules too.
func (h *Host) NFTables(ctx context.Context) (string, error) {
	return h.Run(ctx, "nft", "--stateless", "list", "ruleset")
}

// Sysctls are all of net.* in the host's network namespace, with sysctl(8)'s
// names, except those that change by themselves.
func (h *Host) Sysctls(ctx context.Context) (map[string]string, error) {
	// Some keys can only be written; sysctl complains of them and goes on.
	out, err := h.Run(ctx, "sysctl", "--all", "--ignore", "--pattern", `^net\.`)
	if err != nil {
		return nil, err
	}
	return parseSysctls(out), nil
}

// volatile keys count things, or are drawn at random.
var volatile = regexp.MustCompile(`conntrack_count$|\.stable_secret$|_fastopen_key$`)

func parseSysctls(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " = ")
		if ok && !volatile.MatchString(key) {
			all[key] = value
		}
	}
	return all
}

// Links are the host's links, by name, each with its kind, master, group, alias
// and addresses. Indexes and hardware addresses, which no two runs share, are left out.
func (h *Host) Links(ctx context.Context) (map[string]string, error) {
	out, err := h.Run(ctx, "ip", "-details", "-json", "address", "show")
	if err != nil {
		return nil, err
	}
	return parseLinks(out)
}
