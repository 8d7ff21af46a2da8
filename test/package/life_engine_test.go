//go:build engine

package debian

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestLifeOfThePackage goes from the installation to the purge, on the machine's own Debian (12) and on Debian 13.
func TestLifeOfThePackage(t *testing.T) {
	debs, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{lab.Own, lab.Trixie} {
		t.Run(root, func(t *testing.T) {
			t.Parallel()
			life(t, up(t, lab.Options{Root: root}), debs[0], debs[1])
		})
	}
}

const stateFile = "/var/lib/drawbridge/state.db"

func life(t *testing.T, b *bed, olderDeb, newerDeb string) {
	before := b.tree()
	b.dpkg("-i", olderDeb)
	b.isInstalled(older)
	b.run("sed", "-i", "s/^#DRAWBRIDGE_LOG_LEVEL/DRAWBRIDGE_LOG_LEVEL/", "/etc/default/drawbridge")

	b.start()
	kernel := b.kernel()
	b.serve()
	b.reaches()
	b.areMarked()
	held := b.hold()

	if said := b.dpkg("-i", newerDeb); strings.Contains(said, "drawbridge: ") {
		t.Errorf("the upgrade did more than replace files:\n%s", said)
	}
	b.isInstalled(newer)
	goOn(t, "upgraded, before the restart", held)
	b.reaches()
	b.stop()
	goOn(t, "without a daemon", held)
	b.start()
	b.eventually("the relay is of the new version", func() bool { return strings.Contains(b.relay(), "version "+newer+",") })
	goOn(t, "after the restart", held)
	b.reaches()
	if out := b.run("cat", "/etc/default/drawbridge"); !strings.Contains(out, "\nDRAWBRIDGE_LOG_LEVEL=debug") {
		t.Errorf("the upgrade changed the administrator's settings:\n%s", out)
	}

	// Not the package's unit, as that of a managed plugin is not: it goes on, with its sockets.
	const words = "that daemon is not the package's unit, and keeps what it has made"
	if said := b.dpkg("-r", "drawbridge"); !strings.Contains(said, words) || strings.Contains(said, "--force") {
		t.Errorf("the removal beside another daemon says\n%s", said)
	}
	for _, socket := range []string{"/run/drawbridge/control.sock", "/run/drawbridge/relay.sock", "/run/docker/plugins/drawbridge.sock"} {
		b.run("test", "-S", socket)
	}
	b.reaches()
	if said := b.dpkg("-P", "drawbridge"); !strings.Contains(said, "has it open") {
		t.Errorf("the purge beside another daemon says\n%s", said)
	}
	b.run("test", "-e", stateFile)
	b.reaches()
	b.dpkg("-i", newerDeb)
	goOn(t, "after a removal beside another daemon", held)

	b.stop()
	if said := b.dpkg("-r", "drawbridge"); !strings.Contains(said, "containers are attached to drawbridge networks, by 2 links") {
		t.Errorf("the removal does not say that it takes links from containers:\n%s", said)
	}
	b.isGone(kernel)
	if _, err := b.Run(t.Context(), "test", "-e", stateFile); err != nil {
		t.Error("the removal took the state away")
	}
	back := func() {
		t.Helper()
		b.dpkg("-i", newerDeb)
		b.start()
		for mode := range published {
			lab.Eventually(t, b.client, "tcp", b.addr(mode)) // the containers have run all the time
		}
	}
	back()

	b.stop()
	b.run("cp", stateFile, stateFile+".good")
	b.run("truncate", "-s", "100", stateFile)
	if said := b.dpkg("-r", "drawbridge"); strings.Contains(said, "not everything") {
		t.Errorf("the removal with a damaged state:\n%s", said)
	}
	b.isGone(kernel)
	b.run("mv", stateFile+".good", stateFile)
	back()

	b.do("rm", "-f", "on-dnat", "on-host")
	b.do("network", "rm", "web-dnat", "web-host")
	b.stop()
	if err := b.docker.Stop(); err != nil {
		t.Fatal(err)
	}
	if said := b.dpkg("-P", "drawbridge"); strings.Contains(said, "containers") || strings.Contains(said, "not everything") {
		t.Errorf("the purge complains:\n%s", said)
	}
	b.isGone(kernel)
	if left := added(before, b.tree()); len(left) > 0 {
		t.Errorf("the purge left\n%s", strings.Join(left, "\n"))
	}
}

// isInstalled checks that dpkg has the version, the program is it, all files are there as they were packed, and the daemon is enabled.
func (b *bed) isInstalled(version string) {
	b.t.Helper()
	if out := b.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "drawbridge"); out != "install ok installed "+strings.ReplaceAll(version, "-", "~")+"-1" {
		b.t.Errorf("dpkg says %q", out)
	}
	if out := b.run(program, "version"); strings.TrimSpace(out) != "drawbridge "+version && strings.TrimSpace(out) != version {
		b.t.Errorf("the program says it is %q", out)
	}
	for path := range strings.Lines(b.run("dpkg", "-L", "drawbridge")) {
		path = strings.TrimSpace(path)
		if strings.HasPrefix(path, "/usr/share/doc") || strings.HasPrefix(path, "/usr/share/man") {
			continue // the lab's Debian 13 is without
		}
		if _, err := b.Run(b.t.Context(), "test", "-e", path); err != nil {
			b.t.Errorf("%s is not there", path)
		}
	}
	units := strings.Fields(b.run("sh", "-c", "cat /usr/lib/systemd/system/drawbridge*.service | sed -n 's/^ExecStart=//p' | cut -d' ' -f1"))
	if len(units) == 0 || slices.ContainsFunc(units, func(path string) bool { return path != program }) {
		b.t.Errorf("units start %v, want %s", units, program)
	}
	if out := b.run("readlink", "-f", "/etc/systemd/system/multi-user.target.wants/drawbridge.service"); out != "/usr/lib/systemd/system/drawbridge.service\n" {
		b.t.Errorf("the enabled unit is %q", out)
	}
}

// relay is the line of drawbridge status about the process that holds published ports.
func (b *bed) relay() string {
	b.t.Helper()
	for line := range strings.Lines(b.run(program, "status")) {
		if strings.HasPrefix(line, "relay") {
			return line
		}
	}
	return ""
}

// areMarked checks what the rules of udev go by: all links of ours are in groups that they name, and no other link is.
func (b *bed) areMarked() {
	b.t.Helper()
	rules := b.run("cat", "/usr/lib/udev/rules.d/85-drawbridge.rules")
	ours := 0
	for line := range strings.Lines(b.run("sh", "-c", `cd /sys/class/net && for l in *; do echo "$l $(cat $l/netdev_group) $(cat $l/ifalias)"; done`)) {
		words := strings.Fields(line)
		named := words[1] != "0" && strings.Contains(rules, words[1])
		if isOurs := strings.Contains(line, "drawbridge"); named != isOurs {
			b.t.Errorf("link %s: in a group that the rules name is %t, ours is %t", strings.TrimSpace(line), named, isOurs)
		} else if isOurs {
			ours++
		}
	}
	if ours != 4 { // a bridge and a port for each network
		b.t.Errorf("%d links are ours, want 4", ours)
	}
}

// kernel is what the kernel has that could be ours: links, rules, sets and routing rules.
func (b *bed) kernel() map[string]string {
	b.t.Helper()
	links, err := b.Links(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	out := map[string]string{
		"sets": b.run("ipset", "list", "-n"), "routing rules": b.run("ip", "rule"), "routing rules of IPv6": b.run("ip", "-6", "rule"),
	}
	for name, link := range links {
		if name != "docker0" && !strings.HasPrefix(link, "veth") {
			out["link "+name] = link
		}
	}
	return out
}

// isGone checks that the kernel has nothing of ours, by what it had before, and that no process of ours runs.
func (b *bed) isGone(before map[string]string) {
	b.t.Helper()
	if diff := cmp.Diff(before, b.kernel()); diff != "" {
		b.t.Errorf("the kernel is not as it was (-before +now):\n%s", diff)
	}
	rules, err := b.Rules(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	tables, err := b.NFTables(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(rules + tables) {
		// The chain of the administrator's rules stays, empty or not.
		if strings.Contains(strings.ToLower(strings.ReplaceAll(line, "DRAWBRIDGE-USER", "")), "drawbridge") {
			b.t.Errorf("left: %s", line)
		}
	}
	links, err := b.Links(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for name, link := range links {
		if strings.Contains(link, "drawbridge") || strings.Contains(link, fmt.Sprint("group ", state.GroupPort)) {
			b.t.Errorf("left: link %s %s", name, link)
		}
	}
	b.eventually("no process of ours runs", func() bool {
		_, err := b.Run(b.t.Context(), "pgrep", "-ax", "drawbridge")
		return err != nil
	})
}
