package publish

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestCandidates(t *testing.T) {
	tests := []struct {
		name          string
		request       state.PortRequest
		rng, reserved string
		want          []uint16 // sorted: an ephemeral search begins anywhere
		err           string
	}{
		{"exact", exact(state.TCP, "", 8080, 80), "1 2", "8080", []uint16{8080}, ""},
		{"range", ranged(state.TCP, "", 8000, 8003, 80), "1 2", "", []uint16{8000, 8001, 8002, 8003}, ""},
		{"range to the last port", ranged(state.TCP, "", 65534, 65535, 80), "1 2", "", []uint16{65534, 65535}, ""},
		{"ephemeral", ephemeral(state.UDP, "", 53), "40000\t40003", "", []uint16{40000, 40001, 40002, 40003}, ""},
		{"ephemeral to the last port", ephemeral(state.UDP, "", 53), "65535 65535", "", []uint16{65535}, ""},
		{"reserved", ephemeral(state.UDP, "", 53), "40000\t40005", "80,40001,40003-40004,50000", []uint16{40000, 40002, 40005}, ""},
		{"all reserved", ephemeral(state.UDP, "", 53), "40000\t40005", "1-65535", nil, ""},
		{
			"malformed range", ephemeral(state.UDP, "", 53), "many", "", nil,
			`choosing an ephemeral host port: sysctl net.ipv4.ip_local_port_range: "many" is not a range of ports`,
		},
		{
			"reversed range", ephemeral(state.UDP, "", 53), "9 8", "", nil,
			`choosing an ephemeral host port: sysctl net.ipv4.ip_local_port_range: "9-8" is not a range of ports`,
		},
		{
			"malformed reservation", ephemeral(state.UDP, "", 53), "8 9", "8-x", nil,
			`choosing an ephemeral host port: sysctl net.ipv4.ip_local_reserved_ports: "8-x" is not a range of ports`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proc := procfs(procDir(t, map[string]string{
				"sys/net/ipv4/ip_local_port_range":     tt.rng + "\n",
				"sys/net/ipv4/ip_local_reserved_ports": tt.reserved + "\n",
			}))
			seq, err := proc.candidates(tt.request)
			if text(err) != tt.err {
				t.Fatalf("error %q, want %q", text(err), tt.err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(tt.want, slices.Sorted(seq)); diff != "" {
				t.Errorf("candidates (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCandidatesWithoutProc(t *testing.T) {
	_, err := procfs(t.TempDir()).candidates(ephemeral(state.TCP, "", 80))
	if err == nil || !strings.HasPrefix(err.Error(), "choosing an ephemeral host port: ") {
		t.Errorf("error %v", err)
	}
}

func TestSpanGoesAround(t *testing.T) {
	tests := []struct {
		name  string
		start int
		want  string
	}{
		{"from the first", 10, "[10 11 12 13]"},
		{"from the middle", 12, "[12 13 10 11]"},
		{"from the last", 13, "[13 10 11 12]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := fmt.Sprint(slices.Collect(span{10, 13}.from(tt.start, nil))); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestNoneFree(t *testing.T) {
	tests := []struct {
		name    string
		request state.PortRequest
		want    string
	}{
		{"ephemeral", ephemeral(state.TCP, "", 80), "no ephemeral host port is free for container port 80/tcp: widen the sysctl net.ipv4.ip_local_port_range"},
		{"range", ranged(state.UDP, "", 5000, 5003, 53), "no host port of 5000-5003/udp is free for container port 53"},
		{"range v6", ranged(state.UDP, "2001:db8::1", 5000, 5003, 53), "no host port of 5000-5003/udp is free on 2001:db8::1 for container port 53"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := noneFree(tt.request).Error(); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
