package iptables

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/statetest"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata")

// TestGolden renders the states in testdata. A file is an archive in txtar format: state.json,
// perhaps docker with the bridges of Docker's driver, br_netfilter where the kernel has it, latch where there is one, proxied with
// bridges to which no loopback address leads, publish with what the daemon's mode comes to, user where DOCKER-USER
// has rules, and what is expected in v4 and v6.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 22 {
		t.Fatalf("found %d files in testdata, error %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			comment, parts := readArchive(t, file)
			s := readState(t, parts)
			p := firewall.Render(s, hostOf(parts, s))
			got := map[string]string{"v4": Render(p.V4).Text(), "v6": Render(p.V6).Text()}
			if *update {
				writeArchive(t, file, comment, parts, got)
				return
			}
			for _, family := range []string{"v4", "v6"} {
				if diff := cmp.Diff(parts[family], got[family]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", family, diff)
				}
			}
		})
	}
}

// readState returns an archive's state, which must be one that the driver would take.
func readState(t *testing.T, parts map[string]string) state.Snapshot {
	t.Helper()
	var s state.Snapshot
	if err := json.Unmarshal([]byte(parts["state.json"]), &s); err != nil {
		t.Fatalf("state.json: %v", err)
	}
	s.Sort()
	for _, n := range s.Networks {
		if err := n.Validate(); err != nil {
			t.Fatalf("state.json: %v", err)
		}
	}
	for _, e := range s.Endpoints {
		n, _ := s.Network(e.Network)
		if err := e.Validate(n); err != nil {
			t.Fatalf("state.json: %v", err)
		}
	}
	return s
}

func hostOf(parts map[string]string, s state.Snapshot) firewall.Host {
	_, bridged := parts["br_netfilter"]
	_, latched := parts["latch"]
	_, asked := parts["user"]
	proxied := strings.Fields(parts["proxied"])
	publish := state.Publish(strings.TrimSpace(parts["publish"]))
	leads := func(n state.Network) bool { return !n.Internal && !n.Adopted && !slices.Contains(proxied, n.Bridge) }
	return firewall.Host{
		UserRules: firewall.Both{V4: asked, V6: asked},
		Loopback:  true, Proxied: statetest.Proxied(s, leads),
		DockerBridges: strings.Fields(parts["docker"]), BridgeNetfilter: bridged, Latched: latched, Divert: statetest.Diverts(s),
		Modes: state.Modes{Inherit: publish, Auto: publish},
	}
}

var marker = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

func readArchive(t *testing.T, file string) (comment string, parts map[string]string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	parts = map[string]string{}
	marks := marker.FindAllStringSubmatchIndex(text, -1)
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		parts[text[m[2]:m[3]]] = text[m[1]:end]
	}
	return text[:marks[0][0]], parts
}

func writeArchive(t *testing.T, file, comment string, parts, got map[string]string) {
	t.Helper()
	out := comment + "-- state.json --\n" + parts["state.json"]
	for _, name := range []string{"docker", "br_netfilter", "latch", "proxied", "publish", "user"} {
		if part, ok := parts[name]; ok {
			out += "-- " + name + " --\n" + part
		}
	}
	out += "-- v4 --\n" + got["v4"] + "-- v6 --\n" + got["v6"]
	if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
}
