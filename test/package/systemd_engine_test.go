//go:build engine

package debian

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/docs"
	"github.com/drawbridge-net/drawbridge/test/lab"
	"github.com/drawbridge-net/drawbridge/test/outage"
)

// TestUnderSystemd: the maintainer scripts start, restart and stop units; no test does. In the end it types what the documentation has for apt.
func TestUnderSystemd(t *testing.T) {
	t.Parallel()
	lines := docs.Left(t, "test/package.TestUnderSystemd").Under("README.md", "Install it")[0]
	for _, root := range []string{lab.Own, lab.Trixie} {
		t.Run(root, func(t *testing.T) { underSystemd(t, root, lines) })
	}
}

// underSystemd gets the lines that install, remove and purge the package.
func underSystemd(t *testing.T, root string, lines []string) {
	t.Parallel()
	debs, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	b := up(t, lab.Options{Root: root, Systemd: true})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.Journal(context.Background(), 100))
		}
	})
	if b.docker, err = b.Engine(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.run("systemctl", "start", "docker.service")
	b.run("rm", "-f", "/usr/sbin/policy-rc.d") // by which a machine made from an image for containers forbids packages to start anything
	before, kernel := b.tree(), b.kernel()

	b.dpkg("-i", debs[0])
	b.isInstalled(older)
	b.unitsAre("active", "drawbridge.service", "drawbridge.socket", "drawbridge-relay.socket")
	b.unitsAre("enabled", "drawbridge.service", "drawbridge.socket")
	b.serve()
	b.reaches()
	b.run("sed", "-i", "s/^#DRAWBRIDGE_LOG_LEVEL/DRAWBRIDGE_LOG_LEVEL/", "/etc/default/drawbridge")
	held := b.hold()
	knocks, err := outage.Knock(t.Context(), b.client, 20*time.Millisecond, "tcp", b.addr("dnat"), b.addr("host"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(knocks.Close)
	if err := knocks.Await(time.Now(), 1, 20*time.Second); err != nil {
		t.Error(err)
	}

	t.Run("upgrade", func(t *testing.T) {
		began, pid := time.Now(), b.run("systemctl", "show", "--value", "-p", "MainPID", "drawbridge.service")
		b.dpkg("-i", debs[1])
		b.isInstalled(newer)
		b.unitsAre("active", "drawbridge.service", "drawbridge.socket", "drawbridge-relay.socket", "drawbridge-relay.service")
		now := b.run("systemctl", "show", "--value", "-p", "MainPID", "drawbridge.service")
		if now == pid {
			t.Error("the daemon was not restarted")
		}
		if out := b.run("cat", "/proc/"+strings.TrimSpace(now)+"/environ"); !strings.Contains(out, "DRAWBRIDGE_LOG_LEVEL=debug\x00") {
			t.Errorf("the daemon has not the settings of /etc/default/drawbridge: %q", out)
		}
		b.eventually("the relay is of the new version", func() bool { return strings.Contains(b.relay(), "version "+newer+",") })
		goOn(t, "after the upgrade", held)
		b.reaches()
		until := time.Now()
		time.Sleep(outage.Patience) // a request that was made until now has come to its end
		sum := knocks.Sum(began, until)
		t.Logf("new connections meanwhile: %+v", sum)
		if sum.Requests < 20 || len(sum.Failed) > 0 {
			t.Errorf("new connections: %+v", sum)
		}
	})
	t.Run("disabled stays disabled", func(t *testing.T) {
		b.run("systemctl", "disable", "drawbridge.service", "drawbridge.socket")
		b.dpkg("-i", debs[1])
		b.unitsAre("disabled", "drawbridge.service", "drawbridge.socket")
		b.run("systemctl", "enable", "drawbridge.service", "drawbridge.socket")
		goOn(t, "after it was installed again", held)
	})
	t.Run("what may not be stopped stays", func(t *testing.T) {
		b.run("sh", "-c", "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d")
		out, err := b.Command(t.Context(), "dpkg", "-r", "drawbridge").CombinedOutput()
		b.run("rm", "/usr/sbin/policy-rc.d")
		if err == nil || !strings.Contains(string(out), "the daemon runs and was not stopped: systemctl stop drawbridge.socket drawbridge.service") {
			t.Errorf("the removal of a daemon that may not be stopped: %v\n%s", err, out)
		}
		if got := b.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "drawbridge"); got != "installed" {
			t.Errorf("then the package is %q", got)
		}
		b.unitsAre("active", "drawbridge.service", "drawbridge.socket", "drawbridge-relay.socket", "drawbridge-relay.service")
		b.relay()
		goOn(t, "after a removal that was refused", held)
	})
	b.run("mkdir", "/root/dist")
	b.run("cp", debs[1], "/root/dist/drawbridge_"+newer+"-1_amd64.deb") // as the documentation calls it, whichever it is
	t.Run("removal and return", func(t *testing.T) {
		b.types(lines[1])
		b.isGone(kernel)
		b.unitsAre("inactive", "drawbridge.service", "drawbridge.socket", "drawbridge-relay.socket", "drawbridge-relay.service")
		b.types(lines[0])
		b.isInstalled(newer)
		for mode := range published {
			lab.Eventually(t, b.client, "tcp", b.addr(mode))
		}
	})
	t.Run("purge", func(t *testing.T) {
		b.do("rm", "-f", "on-dnat", "on-host")
		b.do("network", "rm", "web-dnat", "web-host")
		b.types(lines[2])
		b.isGone(kernel)
		if out := b.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "drawbridge*"); out != "" {
			t.Errorf("units are left:\n%s", out)
		}
		if left := added(before, b.tree()); len(left) > 0 {
			t.Errorf("the purge left\n%s", strings.Join(left, "\n"))
		}
	})
}

// unitsAre asks systemd what it knows of units: whether they run, or whether they are enabled. The relay comes and goes with what the daemon asks of
// its socket, a moment after the daemon's own unit.
func (b *bed) unitsAre(want string, units ...string) {
	b.t.Helper()
	ask := "is-active"
	if strings.HasSuffix(want, "abled") {
		ask = "is-enabled"
	}
	for _, unit := range units {
		b.eventually(unit+" is "+want, func() bool {
			// The exit code says it too, in another way for each answer.
			out, _ := b.Command(b.t.Context(), "systemctl", ask, unit).Output()
			return strings.TrimSpace(string(out)) == want
		})
	}
}
