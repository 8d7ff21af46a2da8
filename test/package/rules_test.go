package debian

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestRulesNameOurGroups: udev compares text, in decimal, and has no names of ours.
func TestRulesNameOurGroups(t *testing.T) {
	text, err := os.ReadFile("../../packaging/debian/85-drawbridge.rules")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("ATTR{netdev_group}==\"%d|%d|%d|%d|%d\",",
		state.GroupBridge, state.GroupInternal, state.GroupPort, state.GroupDoomed, state.GroupDoomedBridge)
	if !strings.Contains(string(text), want) {
		t.Errorf("no rule has %s", want)
	}
	id := strings.Repeat("0", 64)
	end := state.Endpoint{ID: state.EndpointID(id)}.ContainerLink()
	if pattern := "KERNEL==\"dbr" + strings.Repeat("[0-9a-f]", len(end)-len("dbr")) + "\""; !strings.Contains(string(text), pattern) {
		t.Errorf("no rule has %s for links such as %s", pattern, end)
	}
}
