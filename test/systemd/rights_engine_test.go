//go:build engine

package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capabilities are those that units may name, by their numbers.
var capabilities = map[int]string{
	unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_NET_RAW: "CAP_NET_RAW", unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE",
	unix.CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH", unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE",
	unix.CAP_BPF: "CAP_BPF",
}

// documented are the capabilities that docs/security.md has in the table of a unit.
func (b *bed) documented(unit string) []string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(b.t), "docs/security.md"))
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	row := regexp.MustCompile("(?m)^\\| `(CAP_[A-Z_]+)` \\| (yes|–) \\| (yes|–) \\|")
	column := map[string]int{daemon: 2, relay: 3}[unit]
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		if m[column] == "yes" {
			out = append(out, m[1])
		}
	}
	slices.Sort(out)
	return out
}

// rights compares what the processes may do with the documentation.
func (b *bed) rights() {
	b.t.Helper()
	for _, unit := range []string{daemon, relay} {
		status := b.run("cat", "/proc/"+b.property(unit, "MainPID")+"/status")
		want := strings.Join(b.documented(unit), " ")
		for _, set := range []string{"CapBnd", "CapEff", "CapPrm"} {
			got := b.set(field(status, set))
			b.t.Logf("%s %s: %s", unit, set, got)
			if got != want {
				b.t.Errorf("%s of %s is %s, and docs/security.md has %s", set, unit, got, want)
			}
		}
		for name, want := range map[string]string{"CapInh": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"} {
			if got := field(status, name); got != want {
				b.t.Errorf("%s of %s is %s, not %s", name, unit, got, want)
			}
		}
	}
}

// field is a value in /proc/…/status.
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// set names the capabilities of a mask, in order.
func (b *bed) set(mask string) string {
	b.t.Helper()
	bits, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for i := range 64 {
		if bits&(1<<i) == 0 {
			continue
		}
		name, known := capabilities[i]
		if !known {
			name = fmt.Sprint("capability ", i)
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// figures compares what systemd says of the sandboxes with the documentation.
func (b *bed) figures() {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(b.t), "docs/security.md"))
	if err != nil {
		b.t.Fatal(err)
	}
	said := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+) (\S+)`)
	for _, unit := range []string{daemon, relay} {
		out := b.run("systemd-analyze", "security", "--no-pager", unit)
		m := said.FindStringSubmatch(out)
		if m == nil {
			b.t.Fatalf("systemd-analyze security %s:\n%s", unit, out)
		}
		b.t.Logf("systemd-analyze security %s: %s %s", unit, m[1], m[2])
		if want := fmt.Sprintf("| `%s` | %s |", unit, m[1]); !strings.Contains(string(text), want) {
			b.t.Errorf("docs/security.md does not have %q", want)
		}
	}
}
