//go:build engine

package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// operations is the document about a daemon that systemd runs.
const operations = "docs/operations.md"

// settings are what an administrator adds to the daemon's unit.
const settings = "/etc/systemd/system/drawbridge.service.d"

// TestUnits types docs/operations.md on a host with systemd, on which "make install" was typed.
func TestUnits(t *testing.T) {
	t.Parallel()
	script := Left(t, "test/docs.TestUnits")
	s := newUnits(t, script)
	for _, b := range blocksOf(t, operations) {
		s.play(b)
	}
	s.clear()
	s.askAll(operations, read(t, operations)[operations])
	for _, line := range script.Under(plugin, "Drawbridge as a managed plugin")[0] {
		s.sh(line)
	}
	s.sh("! systemctl is-enabled drawbridge.service drawbridge.socket && ! systemctl is-active drawbridge.service drawbridge.socket")
}

// newUnits is a stage with systemd, on the machine's own Debian, which has make.
func newUnits(t *testing.T, script *Script) *stage {
	t.Helper()
	s := &stage{t: t, path: "/usr/local/sbin:" + os.Getenv("PATH"), folder: folder(t), asked: map[string]bool{}, promises: promisesOfUnits, scenes: scenesOfUnits}
	s.host(lab.Options{Root: lab.Own, Systemd: true, Share: []string{s.folder, filepath.Dir(program(t))}})
	// systemctl edit starts it for a file, into which it writes what the document shows.
	editor := filepath.Join(s.Dir(), "editor")
	s.must(os.WriteFile(editor, []byte("#!/bin/sh\ncp "+s.edited()+" \"$1\"\n"), 0o755))
	// The program is built: make finds nothing to be done for that.
	s.env = []string{"SYSTEMD_EDITOR=" + editor, "MAKEFLAGS= -- BIN=" + program(t) + " GO=true"}
	s.ready = func() {
		if _, err := s.Run(t.Context(), "test", "-e", "/usr/local/sbin/drawbridge"); err != nil {
			for _, line := range script.Under("README.md", "Install it")[0] {
				t.Log("README.md: " + line)
				s.sh(line)
			}
		}
		s.sh("[ ! -e " + settings + " ] || { rm -rf " + settings + " && systemctl daemon-reload && systemctl restart drawbridge; }; systemctl start drawbridge.socket drawbridge.service")
		s.soon("drawbridge status")
	}
	s.ready()
	s.sh("systemctl start docker.service")
	var err error
	s.docker, err = s.Engine(t.Context())
	s.must(err)
	s.images()
	return s
}

// edited is the file that has what a document shows.
func (s *stage) edited() string { return filepath.Join(s.Dir(), "shown") }

// promisesOfUnits are what holds behind the commands of docs/operations.md.
var promisesOfUnits = map[string]func(*stage){
	"systemctl stop drawbridge.socket drawbridge.service": func(s *stage) {
		s.sh("! drawbridge status")
		s.open(s.near, "192.168.1.2:8080")
	},
	"systemctl start drawbridge": func(s *stage) { s.soon("drawbridge status") },
	"systemctl restart drawbridge": func(s *stage) {
		s.open(s.near, "192.168.1.2:8080")
		if s.soon("drawbridge status"); strings.Contains(s.shown, "DRAWBRIDGE_PUBLISH=host") {
			s.soon("drawbridge ports | grep -E ' host .* --publish *$'")
		}
	},
	"make uninstall": func(s *stage) {
		s.sh("[ ! -e /usr/local/sbin/drawbridge ] && [ ! -e /run/docker/plugins/drawbridge.sock ] && ! pgrep -x drawbridge")
	},
	"systemctl stop drawbridge-relay.service":                               relayIsBack,
	"systemctl daemon-reload && systemctl restart drawbridge-relay.service": relayIsBack,
	"mv /var/lib/drawbridge/state.db.new /var/lib/drawbridge/state.db": func(s *stage) {
		s.soon("drawbridge verify")
		s.sh("drawbridge ports | grep 0.0.0.0:8080 && docker run --rm --network web busybox true")
		s.open(s.near, "192.168.1.2:8080")
	},
	"docker start till": func(s *stage) { s.open(s.near, "192.168.1.2:8080") },
	"drawbridge purge --force": func(s *stage) {
		s.closed(s.near, "192.168.1.2:8080")
		s.sh("docker rm -f till") // whose network the daemon knows no more
	},
	"drawbridge purge --rules-only": func(s *stage) {
		s.sh("! nft list tables | grep drawbridge && ip -d link show type bridge | grep drawbridge")
	},
	"nft delete table inet drawbridge-latch": func(s *stage) { s.sh("! nft list tables | grep drawbridge-latch") },
}

// scenesOfUnits are what these commands find.
var scenesOfUnits = map[string]func(*stage){
	"systemctl stop drawbridge.socket drawbridge.service": func(s *stage) { s.web() },
	"systemctl edit drawbridge":                           func(s *stage) { s.must(os.WriteFile(s.edited(), []byte(s.shown), 0o644)) },
	"systemctl restart drawbridge":                        func(s *stage) { s.web() },
	"docker network disconnect web till":                  func(s *stage) { s.soon("drawbridge status") },
	"docker network rm web": func(s *stage) {
		s.sh("docker network inspect web || docker network create -d drawbridge --ipam-driver drawbridge web")
	},
	"nft list table inet drawbridge": func(s *stage) { // Docker was there before the daemon
		s.sh("mkdir -p " + settings + " && printf '[Service]\\nEnvironment=DRAWBRIDGE_FIREWALL_BACKEND=nftables\\n' >" + settings + "/backend.conf && " +
			"systemctl daemon-reload && systemctl restart drawbridge")
		s.web()
	},
	"systemctl stop drawbridge-relay.service":                               func(s *stage) { s.web() },
	"systemctl daemon-reload && systemctl restart drawbridge-relay.service": func(s *stage) { s.web() },
	"cp /var/lib/drawbridge-state.db /var/lib/drawbridge/state.db.new":      damaged,
	"docker stop till": func(s *stage) { s.web(); damaged(s) },
	"nft delete table inet drawbridge-latch": func(s *stage) { // older kernels take it away with its owner
		s.web()
		s.sh("systemctl stop drawbridge.socket drawbridge.service drawbridge-relay.socket drawbridge-relay.service; " +
			"nft list table inet drawbridge-latch || nft add table inet drawbridge-latch")
	},
}

// relayIsBack: ports that it serves answer again, and the daemon says that it is there.
func relayIsBack(s *stage) {
	lab.Eventually(s.t, s, "tcp", "[::1]:8080")
	s.open(s.near, "192.168.1.2:8080")
	s.soon("drawbridge status | grep '^relay .* sockets'")
}

// damaged has the daemon refuse, because its file is cut short.
func damaged(s *stage) {
	s.sh("systemctl stop drawbridge.socket drawbridge.service; truncate -s 100 /var/lib/drawbridge/state.db; systemctl start drawbridge")
	s.soon("drawbridge status 2>&1 | grep 'is damaged'")
}
