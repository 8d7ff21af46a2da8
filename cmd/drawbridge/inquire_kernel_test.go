//go:build kernel

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/inquiry"
)

// TestUnaskedIsTold: where DOCKER-USER has rules and the relay cannot ask them, status and ports say so and why, and the log once; it passes
// when the reason does. Without rules there is nothing to be said.
func TestUnaskedIsTold(t *testing.T) {
	h := newWholeHost(t)
	h.flags = []string{"--publish", "host"}
	h.start()
	h.succeed(createNet, createEndpoint, join, request{program.name, with(ofEndpoint, "Options", map[string]any{
		"com.docker.network.portmap": []any{map[string]any{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080}},
	})})
	other := inquiry.New(inquiry.Options{})
	defer other.Close()
	h.in(other.Ready)
	h.settle()
	const why = "DOCKER-USER cannot be asked"
	told := func(want bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			status, err := h.status()
			h.must(err)
			ports, err := control.Dial(h.path("control.sock")).Ports(context.Background())
			h.must(err)
			noted, marked := strings.Contains(strings.Join(status.Notes, "\n"), unasked), 0
			for _, p := range ports {
				if strings.Contains(p.Why, why) && strings.Contains(p.Why, "1427") {
					marked++
				}
			}
			if noted == want && (marked > 0) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("told %v by status, %d times by ports, want %v\n%s", noted, marked, want, h.log.String())
			}
		}
	}
	told(false)
	h.output("iptables", "-A", "DOCKER-USER", "-s", "192.0.2.9", "-j", "DROP")
	told(true)
	h.output("iptables", "-F", "DOCKER-USER")
	told(false)
	const logged = "the host's sockets serve: these are refused"
	h.awaitLog(logged, 1) // the relay says it, and the daemon writes it down when it hears of it
	if n := strings.Count(h.log.String(), logged); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	h.must(other.Close())
	h.output("iptables", "-A", "DOCKER-USER", "-s", "192.0.2.9", "-j", "DROP")
	h.settle()
	told(false)
}
