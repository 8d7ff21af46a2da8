package main

import (
	"errors"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall/iptables"
)

func TestChooseBackend(t *testing.T) {
	old := errors.New("an old kernel")
	tests := []struct {
		name   string
		facts  facts
		native bool
	}{
		{"nothing", facts{}, true},
		{"an old kernel", facts{unusable: old}, false},
		{"an old kernel with Docker's table", facts{unusable: old, table: true}, false},
		{"Docker in iptables", facts{docker: iptables.DockerRules}, false},
		{"Docker in nftables", facts{table: true}, true},
		{"Docker in iptables, and a table left behind", facts{docker: iptables.DockerRules, table: true}, false},
		{"Docker in nftables, and the user's chain left behind", facts{docker: iptables.DockerUser, table: true}, true},
		{"the user's chain alone", facts{docker: iptables.DockerUser}, false},
		{"dockerd came after us", facts{earlier: true, docker: iptables.DockerRules}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			native, reason := test.facts.choose()
			if native != test.native || reason == "" {
				t.Errorf("nftables %v, since %q", native, reason)
			}
		})
	}
}
