//go:build engine

package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/test/lab"
	"github.com/drawbridge-net/drawbridge/test/outage"
)

// TestLife is a host from the installation to the uninstallation. The steps build on each other.
func TestLife(t *testing.T) { onEach(t, testLife) }

func testLife(t *testing.T, root string) {
	b := up(t, lab.Options{Root: root})
	b.t.Log(strings.TrimSpace(b.run("sh", "-c", "systemctl --version | head -n 1; dockerd --version")))
	before := b.kernel()
	b.install()
	b.verify()
	b.run("systemctl", "enable", "--now", "drawbridge")
	b.sockets()
	b.boot()
	b.network("web", "--ipv6", "-o", "drawbridge.publish=host")
	c := b.serve("web", "-p", "8080:80", "--name", "web")
	asked, err := b.docker.Serve(t.Context(), []string{"--network", "web", "-p", "8081:80/udp", "--name", "asked"}, "udp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	for _, addr := range []string{at(host4, 8080), at(host6, 8080)} {
		lab.Reaches(t, b.client, "tcp", addr)
	}
	b.rights()
	b.figures()

	b.step("restart", func() { b.undisturbed("a restart of the daemon", "systemctl", "restart", daemon) })
	b.step("started by a call", b.startedByCall)
	b.step("hang", b.hang)
	b.step("crash", b.crash)
	b.step("another user has the name", b.squatted)
	b.step("newer state", b.newerState)
	b.step("wrong flag", b.wrongFlag)
	b.step("upgrade", b.upgrade)
	lab.Reaches(t, b.client, "tcp", at(host4, 8080))

	if said := b.fails("sh", uninstall(t)); !strings.Contains(said, "containers are attached to drawbridge networks, by 2 links") {
		t.Errorf("uninstalling with a container attached: %s", said)
	}
	lab.Reaches(t, b.client, "tcp", at(host4, 8080))
	b.eventually("the daemon that was not uninstalled serves again", func() bool { return b.property(daemon, "ActiveState") == "active" })
	b.do("rm", "-f", c.Name, asked.Name)
	b.do("network", "rm", "web")
	said := b.run("sh", uninstall(t))
	t.Log(said)
	b.gone()
	if diff := cmp.Diff(before, b.kernel()); diff != "" {
		t.Errorf("left after the uninstallation (-before +after):\n%s", diff)
	}
}

// verify has systemd look at the units. It tells of keys that it does not know.
func (b *bed) verify() {
	b.t.Helper()
	args := []string{"verify"}
	for _, unit := range all {
		args = append(args, units+unit)
	}
	out, err := b.Command(b.t.Context(), "systemd-analyze", args...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "drawbridge") {
		b.t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// sockets checks who may talk to them: their owner, root.
func (b *bed) sockets() {
	b.t.Helper()
	for path, want := range map[string]string{
		"/run/docker/plugins/drawbridge.sock": "600 root:root socket",
		"/run/drawbridge/control.sock":        "600 root:root socket",
		"/run/drawbridge/relay.sock":          "600 root:root socket",
		"/run/drawbridge":                     "700 root:root directory",
		"/run/docker":                         "700 root:root directory",
		"/var/lib/drawbridge":                 "700 root:root directory",
		"/var/lib/drawbridge/state.db":        "600 root:root regular file",
	} {
		if got := b.run("stat", "--format=%a %U:%G %F", path); got != want {
			b.t.Errorf("%s is %q, not %q", path, got, want)
		}
		if !strings.HasSuffix(want, "socket") {
			continue
		}
		ask := []string{"curl", "--silent", "--show-error", "--max-time", "5", "--unix-socket", path, "http://x/"}
		b.run(ask[0], ask[1:]...)
		nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
		if said := b.fails(nobody[0], append(nobody[1:], ask...)...); !strings.Contains(said, "Could not connect") && !strings.Contains(said, "Failed to connect") {
			b.t.Errorf("who is not root is answered at %s: %s", path, said)
		}
	}
}

// boot starts everything that is enabled in one go, as at a boot, and looks who was first.
func (b *bed) boot() {
	b.t.Helper()
	b.run("systemctl", "enable", "--quiet", "docker.service", "docker.socket", "containerd.service")
	b.run("systemctl", append([]string{"stop", "docker.socket", "docker.service", "containerd.service"}, all...)...)
	b.run("systemctl", "stop", "multi-user.target", "sockets.target")
	b.run("systemctl", "start", "multi-user.target", "sockets.target")
	for _, unit := range []string{"drawbridge.socket", daemon, "docker.service"} {
		if state := b.property(unit, "ActiveState"); state != "active" {
			b.t.Fatalf("after a boot %s is %s", unit, state)
		}
	}
	listens, ready := b.moment("drawbridge.socket", "ActiveEnterTimestampMonotonic"), b.moment(daemon, "ActiveEnterTimestampMonotonic")
	begins := b.moment("docker.service", "ExecMainStartTimestampMonotonic")
	if listens > ready || ready > begins {
		b.t.Errorf("the socket is there at %v, the daemon ready at %v, and dockerd started at %v", listens, ready, begins)
	}
	b.t.Logf("boot: the daemon was ready %v before dockerd was started", begins-ready)
}

func (b *bed) moment(unit, name string) time.Duration {
	b.t.Helper()
	n, err := strconv.ParseInt(b.property(unit, name), 10, 64)
	if err != nil || n == 0 {
		b.t.Fatalf("%s of %s is %d: %v", name, unit, n, err)
	}
	return time.Duration(n) * time.Microsecond
}

// undisturbed does something to the daemon while a connection to a published port that is proxied goes on, and others are made all the time.
func (b *bed) undisturbed(what string, argv ...string) {
	b.t.Helper()
	addr := at(b.client.Host.Addr4(), 8080)
	held, err := outage.Open(b.t.Context(), b.client, addr)
	if err != nil {
		b.t.Fatal(err)
	}
	defer held.Close()
	knocks := map[string]*outage.Knocks{"tcp": nil, "udp": nil}
	for network, port := range map[string]int{"tcp": 8080, "udp": 8081} {
		knocks[network], err = outage.Knock(b.t.Context(), b.client, 10*time.Millisecond, network, at(b.client.Host.Addr4(), port))
		if err != nil {
			b.t.Fatal(err)
		}
		defer knocks[network].Close()
	}
	const enough = 10
	knocking := func(since time.Time) {
		b.t.Helper()
		for network, k := range knocks {
			if err := k.Await(since, enough, 20*time.Second); err != nil {
				b.t.Errorf("%s: new clients by %s: %v", what, network, err)
			}
		}
	}
	began := time.Now()
	knocking(began)
	began = time.Now()
	b.run(argv[0], argv[1:]...)
	b.eventually("the daemon answers", func() bool {
		_, err := b.Run(b.t.Context(), program, "status")
		return err == nil
	})
	knocking(began)
	ended := time.Now()
	time.Sleep(outage.Patience) // for the answers to what was asked until then
	if err := held.GoesOn(5 * time.Second); err != nil {
		b.t.Errorf("%s: %v", what, err)
	}
	requests := 0
	for network, k := range knocks {
		sum := k.Sum(began, ended)
		if len(sum.Failed) > 0 || sum.Requests < enough {
			b.t.Errorf("%s: of %d new clients by %s failed %v", what, sum.Requests, network, sum.Failed)
		}
		requests += sum.Requests
	}
	b.t.Logf("%s: %v, %d new clients, longest wait of the old connection %v", what,
		ended.Sub(began).Round(time.Millisecond), requests, held.Longest(began, ended).Round(time.Millisecond))
}

// startedByCall: Docker's next call starts a daemon that was stopped, and waits for it.
func (b *bed) startedByCall() {
	b.t.Helper()
	b.run("systemctl", "stop", daemon)
	began := time.Now()
	b.network("woken")
	b.t.Logf("a call to a daemon that was stopped took %v", time.Since(began).Round(time.Millisecond))
	b.do("network", "rm", "woken")
	if state := b.property(daemon, "ActiveState"); state != "active" {
		b.t.Errorf("after a call the daemon is %s", state)
	}
}

// hang stops the process: systemd notices, has it say where it was, and starts another one.
func (b *bed) hang() {
	b.t.Helper()
	b.setting(daemon, "watchdog", "WatchdogSec=5")
	b.run("systemctl", "restart", daemon)
	pid := b.property(daemon, "MainPID")
	// For longer than the watchdog waits it does nothing: that it lives is told.
	time.Sleep(7 * time.Second)
	if now := b.property(daemon, "MainPID"); now != pid {
		b.t.Fatalf("the daemon was started again though nothing was wrong:\n%s", b.Journal(b.t.Context(), 50, daemon))
	}
	began := time.Now()
	b.undisturbed("a daemon that hangs", "sh", "-c", signalled("STOP", pid))
	b.t.Logf("a daemon that was stopped by a signal was back after %v", time.Since(began).Round(time.Millisecond))
	for _, words := range []string{"Watchdog timeout", "SIGABRT: abort", "goroutine "} {
		b.told(words, 2000)
	}
	b.run("rm", "-r", units+daemon+".d")
	b.run("systemctl", "daemon-reload")
	b.run("systemctl", "restart", daemon)
}

// told waits until the journal has words in its last lines of the daemon: it gets them through a pipe.
func (b *bed) told(words string, lines int) {
	b.t.Helper()
	b.eventually("the journal says: "+words, func() bool { return strings.Contains(b.Journal(b.t.Context(), lines, daemon), words) })
}

// crash kills the daemon, as a fault would: it is started again.
func (b *bed) crash() {
	b.t.Helper()
	for _, signal := range []string{"KILL", "ABRT"} {
		pid := b.property(daemon, "MainPID")
		b.undisturbed("SIG"+signal, "sh", "-c", signalled(signal, pid))
	}
}

// squatted: a user who takes the name by which daemons keep each other off a host keeps none from it.
func (b *bed) squatted() {
	b.t.Helper()
	b.run("systemctl", "stop", "drawbridge.socket", daemon)
	b.run("systemd-run", "--quiet", "--unit=squatter", "--property=User=nobody", "systemd-socket-activate", "--listen=@drawbridge-host", "sleep", "inf")
	b.eventually("somebody has the name", func() bool {
		_, err := b.Run(b.t.Context(), "grep", "-q", "@drawbridge-host", "/proc/net/unix")
		return err == nil
	})
	b.run("systemctl", "start", daemon)
	b.told("another user's process has the name by which daemons keep each other off", 20)
	if said := b.fails(program, "serve"); !strings.Contains(said, "another drawbridge daemon serves this host: stop it first") {
		b.t.Errorf("a second daemon: %s", said)
	}
	b.run("systemctl", "stop", "squatter")
	b.run("systemctl", "restart", daemon)
}

// signalled is a script that sends a signal to the daemon and waits until another one is active, for twenty seconds and more.
func signalled(signal, pid string) string {
	show := "systemctl show --value --property "
	return fmt.Sprintf("kill -%s %s; n=400; while [ $(%s MainPID %s) = %s ] || [ $(%s ActiveState %s) != active ]; do n=$((n-1)); [ $n -gt 0 ] || exit 1; sleep 0.05; done",
		signal, pid, show, daemon, pid, show, daemon)
}

// newerState: a program whose state file a newer one has converted refuses, in words, and goes on when a copy is back.
func (b *bed) newerState() {
	b.t.Helper()
	const path = "/var/lib/drawbridge/state.db"
	b.run("systemctl", "stop", "drawbridge.socket", daemon)
	b.run("cp", "-a", path, path+".copy")
	db, err := bolt.Open(b.Path(path), 0o600, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("version"), []byte("99")) })
	if err := db.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.run("systemctl", "start", daemon)
	const words = "was written by a newer version of drawbridge"
	if status := b.property(daemon, "StatusText"); !strings.Contains(status, words) || !strings.Contains(status, "install that version") {
		b.t.Errorf("systemctl status says %q", status)
	}
	if said := b.fails("docker", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "refused"); !strings.Contains(said, words) {
		b.t.Errorf("docker says %q", said)
	}
	lab.Reaches(b.t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	b.run("mv", path+".copy", path)
	b.eventually("the daemon goes on with the copy", func() bool {
		_, err := b.Run(b.t.Context(), program, "status")
		return err == nil
	})
}

// wrongFlag: a command line that cannot be understood is told, not tried for ever, and a restart with a right one works.
func (b *bed) wrongFlag() {
	b.t.Helper()
	for _, wrong := range []string{"DRAWBRIDGE_MTU=many", "DRAWBRIDGE_PLUGIN_SOCKET=/run/other.sock"} {
		b.setting(daemon, "wrong", "Environment="+wrong)
		b.run("systemctl", "stop", daemon)
		b.fails("systemctl", "start", daemon)
		if code := b.property(daemon, "ExecMainStatus"); code != "2" {
			b.t.Errorf("%s: exit code %s", wrong, code)
		}
		if state := b.property(daemon, "SubState"); state != "failed" {
			b.t.Errorf("%s: the daemon is %s", wrong, state)
		}
	}
	b.told("systemd listens on /run/docker/plugins/drawbridge.sock for us, and --plugin-socket is /run/other.sock", 20)
	// A call that waits starts it again and again, until systemd gives the socket up.
	began := time.Now()
	b.fails("docker", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "refused")
	took := time.Since(began).Round(time.Millisecond)
	if b.t.Logf("a call to a daemon that does not start: an error after %v", took); took > 30*time.Second {
		b.t.Errorf("Docker waited for %v", took)
	}
	b.eventually("systemd has given the socket up", func() bool { return b.property("drawbridge.socket", "Result") == "trigger-limit-hit" })
	b.run("rm", "-r", units+daemon+".d")
	b.run("systemctl", "daemon-reload")
	b.run("systemctl", "restart", daemon)
	b.network("again")
	b.do("network", "rm", "again")
}

// upgrade installs another version under the running one.
func (b *bed) upgrade() {
	b.t.Helper()
	old := b.property(relay, "MainPID")
	b.run("install", b.next, program)
	over := program + " status | grep -q '^relay .* version 99'"
	b.undisturbed("an upgrade", "sh", "-c", "systemctl restart "+daemon+"; n=400; until "+over+"; do n=$((n-1)); [ $n -gt 0 ] || exit 1; sleep 0.05; done")
	b.eventually("the relay is of the other version too", func() bool {
		said, _ := b.Run(b.t.Context(), program, "status")
		return strings.Contains(said, "99.0.0") && strings.Contains(said, "relay ") && b.property(relay, "MainPID") != old
	})
	if state := b.property(relay, "ActiveState"); state != "active" {
		b.t.Errorf("after an upgrade the relay's unit is %s", state)
	}
}

// gone checks that no unit and no process is left.
func (b *bed) gone() {
	b.t.Helper()
	for _, unit := range all {
		if state := b.property(unit, "LoadState"); state != "not-found" {
			b.t.Errorf("%s is %s", unit, state)
		}
	}
	for _, path := range []string{
		program, "/run/drawbridge", "/run/docker/plugins/drawbridge.sock",
		units + "multi-user.target.wants/" + daemon, units + "sockets.target.wants/drawbridge.socket",
	} {
		if _, err := os.Lstat(b.Path(path)); !os.IsNotExist(err) {
			b.t.Errorf("%s is left: %v", path, err)
		}
	}
	if names, err := filepath.Glob(b.Path(units + "drawbridge*")); err != nil || len(names) > 0 {
		b.t.Errorf("%v are left: %v", names, err)
	}
	if left, err := b.Run(b.t.Context(), "pgrep", "-a", "drawbridge"); err == nil {
		b.t.Errorf("processes are left: %s", left)
	}
}

// kernel is what of the host's network could be ours.
func (b *bed) kernel() string {
	b.t.Helper()
	var out strings.Builder
	for _, argv := range [][]string{
		{"sh", "-c", "nft list tables | grep drawbridge || true"},
		{"sh", "-c", "iptables-save; ip6tables-save"},
		{"ipset", "list", "-name"},
		{"ip", "rule"},
		{"ip", "-6", "rule"},
		{"ip", "route", "show", "table", "all", "proto", "142"},
		{"ip", "-6", "route", "show", "table", "all", "proto", "142"},
		{"sh", "-c", "ip -details link show | grep -B1 -A2 drawbridge || true"},
	} {
		for line := range strings.Lines(b.run(argv[0], argv[1:]...)) {
			if argv[0] != "sh" || strings.Contains(strings.ToLower(line), "drawbridge") {
				out.WriteString(line + "\n")
			}
		}
	}
	return out.String()
}
