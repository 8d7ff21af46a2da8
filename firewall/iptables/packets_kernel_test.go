//go:build kernel

package iptables

import (
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

var variants = []string{"-nft", "-legacy"}

// inLab makes a backend of the lab's variant.
func inLab(inner *firewalltest.Lab) firewall.Backend { return withBackend(inner).backend }

func TestPackets(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant[1:], func(t *testing.T) { firewalltest.PacketsInWorlds(t, variant, inLab) })
	}
}

func TestEstablished(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant[1:], func(t *testing.T) { firewalltest.Established(t, variant, inLab) })
	}
}

func TestFlushed(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant[1:], func(t *testing.T) { firewalltest.Flushed(t, variant, inLab) })
	}
}

func TestPacketsControl(t *testing.T) { firewalltest.Control(t) }

func TestMarks(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant[1:], func(t *testing.T) { firewalltest.Marks(t, variant, inLab) })
	}
}

func TestUserRules(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant[1:], func(t *testing.T) { firewalltest.UserRules(t, variant, inLab) })
	}
}

func TestGuard(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant[1:], func(t *testing.T) { firewalltest.Guard(t, variant, inLab) })
	}
}

func TestOptions(t *testing.T) {
	for _, variant := range variants {
		t.Run("iptables"+variant, func(t *testing.T) { firewalltest.Options(t, variant, inLab) })
	}
}

func TestExposures(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant[1:], func(t *testing.T) { firewalltest.Exposures(t, variant, inLab) })
	}
}

func TestLimitsHold(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant[1:], func(t *testing.T) { firewalltest.LimitsHold(t, variant, inLab) })
	}
}

func TestDiverted(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant[1:], func(t *testing.T) { firewalltest.Diverted(t, variant, inLab) })
	}
}
