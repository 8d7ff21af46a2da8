//go:build kernel

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// busConfig is a bus on which everybody may do everything.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
`

// startFirewalld gives the host a system bus and a firewalld of its own, with a configuration that goes with the host.
func (h *wholeHost) startFirewalld() {
	h.t.Helper()
	socket := h.path("bus")
	h.must(os.WriteFile(h.path("bus.conf"), []byte(strings.Replace(busConfig, "SOCKET", socket, 1)), 0o600))
	h.must(os.CopyFS(h.path("firewalld"), os.DirFS("/etc/firewalld")))
	h.env = append(h.env, "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+socket)
	h.flags = append(h.flags, "--firewalld", "auto")
	h.background("dbus-daemon", "--config-file", h.path("bus.conf"), "--nofork", "--nopidfile")
	h.awaitProgram("dbus", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	h.background("firewalld", "--nofork", "--nopid", "--system-config", h.path("firewalld"), "--log-target", "file", "--log-file", h.path("firewalld.log"))
	h.awaitProgram("firewalld", func() bool {
		state, err := h.try("dbus-send", "--system", "--print-reply", "--dest=org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1",
			"org.freedesktop.DBus.Properties.Get", "string:org.fedoraproject.FirewallD1", "string:state")
		return err == nil && strings.Contains(state, `"RUNNING"`)
	})
}

// zoned reports whether the host has a firewalld.
func (h *wholeHost) zoned() bool {
	_, err := os.Stat(h.path("bus"))
	return err == nil
}

// forgetZone takes away what the daemon makes once in the life of a host: the zone, the policy, and the reload that loads them.
func (h *wholeHost) forgetZone() {
	h.t.Helper()
	if !h.zoned() {
		return
	}
	h.must(os.RemoveAll(h.path("firewalld/zones/docker.xml")))
	h.must(os.RemoveAll(h.path("firewalld/policies/docker-forwarding.xml")))
	_, err := h.try("dbus-send", "--system", "--print-reply", "--dest=org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1",
		"org.fedoraproject.FirewallD1.reload")
	h.must(err)
}

// background runs a program until the test ends.
func (h *wholeHost) background(argv ...string) {
	h.t.Helper()
	path, err := exec.LookPath(argv[0])
	h.must(err)
	cmd := exec.Command(path, argv[1:]...)
	cmd.Env = append(os.Environ(), h.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h.in(cmd.Start)
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGKILL)
		_ = cmd.Wait()
	})
}

func (h *wholeHost) awaitProgram(name string, ready func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(filepath.Join(h.dir, name+".log"))
			h.t.Fatalf("%s does not answer: %s", name, said)
		}
	}
}

// dumpZone writes down what firewalld's zone holds.
func (h *wholeHost) dumpZone(d *dump) {
	h.t.Helper()
	if !h.zoned() {
		return
	}
	zones, err := h.try("dbus-send", "--system", "--print-reply", "--dest=org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1",
		"org.fedoraproject.FirewallD1.zone.getActiveZones")
	h.must(err)
	for i, line := range strings.Split(zones, "\n") {
		if i > 0 { // the first one has the sender and a serial number
			d.add("firewalld %03d: %s", i, strings.TrimSpace(line))
		}
	}
}
