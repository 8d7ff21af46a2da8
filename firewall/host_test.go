package firewall

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestDockerBridges goes through the life of a host, step by step.
func TestDockerBridgesOverTime(t *testing.T) {
	var present []string
	var failed error
	h := NewHostReader(func() ([]string, error) { return present, failed })
	steps := []struct {
		name    string
		present []string
		failed  error
		named   []string // in Docker's chains
		want    []string
	}{
		{"no bridge", nil, nil, nil, nil},
		{"somebody else's", []string{"br-lan", "virbr0", "br-0123456789AB", "br-0123456789abc"}, nil, nil, nil},
		{"dockerd made its bridge, and no rules yet", []string{"br-lan", "docker0"}, nil, nil, []string{"docker0"}},
		{"a network with Docker's name", []string{"br-lan", "docker0", "br-0123456789ab"}, nil, nil, []string{"br-0123456789ab", "docker0"}},
		{"a network with a name of its own", []string{"br-lan", "docker0", "web0"}, nil, []string{"docker0", "web0"}, []string{"docker0", "web0"}},
		{"its rules are flushed", []string{"br-lan", "docker0", "web0"}, nil, nil, []string{"docker0", "web0"}},
		{"the listing fails", nil, errors.New("no"), []string{"docker0"}, []string{"docker0", "web0"}},
		{"the network is removed, its rules stay", []string{"br-lan", "docker0"}, nil, []string{"docker0", "web0"}, []string{"docker0"}},
		{"the name is somebody else's now", []string{"br-lan", "docker0", "web0"}, nil, []string{"docker0"}, []string{"docker0"}},
	}
	for _, step := range steps {
		present, failed = step.present, step.failed
		if diff := cmp.Diff(step.want, h.dockerBridges(step.named), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
}
