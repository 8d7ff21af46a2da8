//go:build vm

package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ofPorts are tests of publish about what kernels before 6.3 cannot do: keep a client's port without a bind of it (IP_LOCAL_PORT_RANGE).
const ofPorts = "^Test(ClientsChooseTheirPorts|ClientsLeavePorts|Transparent|TransparentObeys)$"

// TestKernel runs them on the kernel, or those that VM_RUN names.
func TestKernel(t *testing.T) {
	run := ofPorts
	if text := os.Getenv("VM_RUN"); text != "" {
		run = text
	}
	m := newMachine(t)
	m.command("go", "test", "-c", "-tags", "kernel", "-o", filepath.Join(m.share, "publish.test"), "../../publish")
	out := m.boot("modprobe -a br_netfilter tun nf_tables && cd /vm && ./publish.test -test.v -test.run '"+run+"'", 30*time.Minute)
	m.logTests(out)
	if !strings.Contains(out, "--- PASS") {
		t.Errorf("no test ran:\n%s", out)
	}
}
