//go:build kernel

package nftables

import (
	"testing"

	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

var variants = []string{"-nft", "-legacy"}

func TestPackets(t *testing.T) {
	for _, variant := range variants {
		t.Run("beside iptables"+variant, func(t *testing.T) { firewalltest.PacketsInWorlds(t, variant, inLab) })
	}
}

// TestPacketsAlone has no iptables to speak to.
func TestPacketsAlone(t *testing.T) {
	l := newLab(t, "")
	l.sync(firewalltest.State())
	l.Check(t, firewalltest.Packets, func(p firewalltest.Packet) bool { return p.Name != "to docker0" })
}

func TestUserRules(t *testing.T) {
	for _, variant := range variants {
		t.Run("iptables"+variant, func(t *testing.T) { firewalltest.UserRules(t, variant, inLab) })
	}
}

func TestGuard(t *testing.T) {
	for _, variant := range variants {
		t.Run("iptables"+variant, func(t *testing.T) { firewalltest.Guard(t, variant, inLab) })
	}
}

func TestOptions(t *testing.T) {
	for _, variant := range variants {
		t.Run("iptables"+variant, func(t *testing.T) { firewalltest.Options(t, variant, inLab) })
	}
}
