package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// unit is what a unit file says, by section and key.
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	text, err := os.ReadFile("../../packaging/" + name)
	if err != nil {
		t.Fatal(err)
	}
	u, section := unit{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		key, value, assigns := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		case assigns && !strings.HasPrefix(line, "#"):
			u[section+"."+key] = append(u[section+"."+key], strings.Fields(value)...)
		}
	}
	return u
}

// seconds is a time of the unit. A key that is not there is 0, which is too short for all that is asked below.
func (u unit) seconds(key string) time.Duration {
	d, _ := time.ParseDuration(strings.Join(u[key], "") + "s")
	return d
}

// TestUnit reads what the unit promises: dockerd starts behind us, never waits long for us, and is never long without us.
func TestUnit(t *testing.T) {
	u := readUnit(t, "drawbridge.service")
	for key, want := range map[string]string{
		"Unit.Before":                      "docker.service",
		"Unit.After":                       "firewalld.service",
		"Unit.StartLimitIntervalSec":       "0",
		"Service.Type":                     "notify",
		"Service.Restart":                  "always",
		"Service.RestartPreventExitStatus": "2",
		"Service.KillMode":                 "mixed",
		"Service.RuntimeDirectoryPreserve": "yes",
		"Unit.Wants":                       "drawbridge-relay.socket",
		"Install.WantedBy":                 "multi-user.target",
	} {
		if !slices.Contains(u[key], want) {
			t.Errorf("%s is %v, without %s", key, u[key], want)
		}
	}
	for key, values := range u {
		for _, other := range []string{"docker.service", "docker.socket", "firewalld.service", "network-online.target"} {
			if !slices.Contains(values, other) {
				continue
			}
			// Neither started by us nor stopped with us, and nothing that is up late is waited for.
			if !strings.HasPrefix(key, "Unit.Before") && key != "Unit.After" || key == "Unit.After" && other != "firewalld.service" {
				t.Errorf("%s names %s", key, other)
			}
		}
	}
	if start := u.seconds("Service.TimeoutStartSec"); start <= startPatience+leftoverTimeout || start > 30*time.Second {
		t.Errorf("TimeoutStartSec=%v: longer than what the daemon takes by itself (%v and %v), and dockerd waits for it", start, startPatience, leftoverTimeout)
	}
	// 15 s for a call, and what the server gives beyond; see plugin.Options.
	if stop := u.seconds("Service.TimeoutStopSec"); stop < 30*time.Second || stop > time.Minute {
		t.Errorf("TimeoutStopSec=%v", stop)
	}
	if again := u.seconds("Service.RestartSec"); again > 2*time.Second {
		t.Errorf("RestartSec=%v: dockerd tries a call for 15 seconds", again)
	}
	if pre := u["Service.ExecStartPre"]; len(pre) == 0 || !strings.HasPrefix(pre[0], "-") {
		t.Errorf("ExecStartPre %v: a module that the kernel lacks must not keep the daemon from starting", pre)
	}
}

// TestRelayUnits: the relay is started when it is asked, and no end or start of the daemon ends it.
func TestRelayUnits(t *testing.T) {
	daemon, relay, socket := readUnit(t, "drawbridge.service"), readUnit(t, "drawbridge-relay.service"), readUnit(t, "drawbridge-relay.socket")
	if got := socket["Socket.ListenStream"]; !slices.Equal(got, []string{defaultRelaySocket}) || !slices.Equal(socket["Socket.SocketMode"], []string{"0600"}) {
		t.Errorf("systemd listens on %v", got)
	}
	for key, want := range map[string]string{"Service.Type": "notify", "Unit.StartLimitIntervalSec": "0", "Unit.Requires": "drawbridge-relay.socket", "Service.KillMode": "mixed"} {
		if !slices.Contains(relay[key], want) {
			t.Errorf("%s is %v, without %s", key, relay[key], want)
		}
	}
	for _, u := range []unit{relay, socket} {
		for key, values := range u {
			if slices.Contains(values, "drawbridge.service") {
				t.Errorf("%s names drawbridge.service", key)
			}
		}
	}
	for _, key := range []string{"Unit.PartOf", "Unit.BindsTo", "Unit.Requires"} {
		for _, other := range daemon[key] {
			if strings.Contains(other, "relay") {
				t.Errorf("the daemon's unit has %s %s", key, other)
			}
		}
	}
	if !slices.Contains(relay["Service.CapabilityBoundingSet"], "CAP_NET_BIND_SERVICE") {
		t.Error("the relay cannot bind low ports")
	}
}

// TestPluginSocketUnit: Docker finds the socket where it looks, before it starts, and the daemon and its socket come and go by what is enabled.
func TestPluginSocketUnit(t *testing.T) {
	daemon, socket := readUnit(t, "drawbridge.service"), readUnit(t, "drawbridge.socket")
	for key, want := range map[string]string{
		"Socket.ListenStream": defaultPluginSocket, "Socket.SocketMode": "0600", "Unit.Before": "docker.service", "Install.WantedBy": "sockets.target",
	} {
		if !slices.Equal(socket[key], []string{want}) {
			t.Errorf("%s is %v, not %s", key, socket[key], want)
		}
	}
	for _, key := range []string{"Unit.Requires", "Unit.After", "Install.Also"} {
		if !slices.Contains(daemon[key], "drawbridge.socket") {
			t.Errorf("%s is %v, without drawbridge.socket", key, daemon[key])
		}
	}
}

// TestWatchdogUnit: what counts as a hang takes longer than all that the daemon waits for, and who is aborted by systemd is started again.
func TestWatchdogUnit(t *testing.T) {
	u := readUnit(t, "drawbridge.service")
	if every := u.seconds("Service.WatchdogSec") / beats; every < 5*time.Second || every > 20*time.Second {
		t.Errorf("the daemon looks every %v whether it lives", every)
	}
	if !slices.Equal(u["Service.RestartPreventExitStatus"], []string{fmt.Sprint(exitUsage)}) || !slices.Equal(u["Service.Restart"], []string{"always"}) {
		t.Errorf("Restart=%v, but not with %v", u["Service.Restart"], u["Service.RestartPreventExitStatus"])
	}
}
