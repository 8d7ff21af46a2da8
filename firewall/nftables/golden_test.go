package nftables

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

var update = flag.Bool("update", false, "rewrite the expected files in testdata")

// TestGolden renders the states in the testdata of firewall/iptables, which are in txtar format; what is expected here
// is in a file of the same name.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("../iptables/testdata/*.txtar")
	if err != nil || len(files) < 22 {
		t.Fatalf("found %d files in testdata, error %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			p := firewall.Render(readState(t, file))
			got := "# " + name + "\n" + Render(p, false).Text()
			if alone := Render(p, true).Text(); alone != Render(p, false).Text() {
				got += "# where no iptables is installed\n" + alone
			}
			golden := filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

var marker = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

// readState returns an archive's state and host. firewall/iptables has a test that the states are valid.
func readState(t *testing.T, file string) (state.Snapshot, firewall.Host) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	parts := map[string]string{}
	marks := marker.FindAllStringSubmatchIndex(text, -1)
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		parts[text[m[2]:m[3]]] = text[m[1]:end]
	}
	var s state.Snapshot
	if err := json.Unmarshal([]byte(parts["state.json"]), &s); err != nil {
		t.Fatalf("state.json: %v", err)
	}
	s.Sort()
	_, bridged := parts["br_netfilter"]
	_, latched := parts["latch"]
	proxied := strings.Fields(parts["proxied"])
	publish := state.Publish(strings.TrimSpace(parts["publish"]))
	leads := func(n state.Network) bool { return !n.Internal && !n.Adopted && !slices.Contains(proxied, n.Bridge) }
	_, asked := parts["user"]
	return s, firewall.Host{
		UserRules: firewall.Both{V4: asked, V6: asked},
		Loopback:  true, Proxied: statetest.Proxied(s, leads),
		DockerBridges: strings.Fields(parts["docker"]), BridgeNetfilter: bridged, Latched: latched, Divert: statetest.Diverts(s),
		Modes: state.Modes{Inherit: publish, Auto: publish},
	}
}
