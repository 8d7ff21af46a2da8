//go:build kernel

package nftables

import (
	"fmt"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

func TestPackets(t *testing.T)     { firewalltest.EachVariant(t, inLab, firewalltest.PacketsInWorlds) }
func TestEstablished(t *testing.T) { firewalltest.EachVariant(t, inLab, firewalltest.Established) }
func TestFlushed(t *testing.T)     { firewalltest.EachVariant(t, inLab, firewalltest.Flushed) }

// TestPacketsAlone has no iptables to speak to.
func TestPacketsAlone(t *testing.T) {
	l := newLab(t, "")
	l.sync(firewalltest.State())
	l.Check(t, firewalltest.Packets, func(p firewalltest.Packet) bool { return p.Name != "to docker0" })
}

// TestGuardAlone is the guard without iptables. What stays within somebody's bridge passes, where br_netfilter shows it.
func TestGuardAlone(t *testing.T) {
	ext0, out, far, g1, g2 := firewalltest.Ext0, firewalltest.Out, firewalltest.Far, firewalltest.G1, firewalltest.G2
	rows := []firewalltest.Packet{
		{Name: "through the host", From: "far", Proto: "tcp", To: firewalltest.At(out, "80")},
		{Name: "through the host, udp", From: "out", Proto: "udp", To: firewalltest.At(far, "80")},
		{Name: "to Docker's bridge", From: "out", Proto: "tcp", To: firewalltest.At(firewalltest.D, "80")},
		{Name: "egress of Docker's bridge", From: "d", Proto: "tcp", To: firewalltest.At(out, "80"), Answers: "out", Sees: firewalltest.D},
		{Name: "out of virbr0", From: "g1", Proto: "udp", To: firewalltest.At(out, "80")},
		{Name: "into virbr0", From: "out", Proto: "tcp", To: firewalltest.At(g1, "7000")},
		{Name: "within virbr0", From: "g1", Proto: "tcp", To: firewalltest.At(g2, "7000"), Answers: "g2", Sees: g1},
		{Name: "egress", From: "c1a", Proto: "tcp", To: firewalltest.At(out, "80"), Answers: "out", Sees: ext0},
		{Name: "published", From: "out", Proto: "tcp", To: firewalltest.At(ext0, "8080"), Answers: "c1a", Sees: out},
	}
	for _, bridged := range []bool{false, true} {
		t.Run(fmt.Sprint("br_netfilter ", bridged), func(t *testing.T) {
			l := newLab(t, "")
			l.backend.list = func() ([]string, error) { return []string{"docker0", "virbr0"}, nil }
			if bridged {
				l.ShowBridged()
			}
			s := firewalltest.State()
			s.Forwarding = state.Forwarding{V4: true, V6: true}
			l.sync(s)
			l.Check(t, rows, everything)
			l.sync(state.Snapshot{Forwarding: s.Forwarding})
			l.Check(t, rows[:7], everything)
		})
	}
}

func TestMarks(t *testing.T)      { firewalltest.EachVariant(t, inLab, firewalltest.Marks) }
func TestUserRules(t *testing.T)  { firewalltest.EachVariant(t, inLab, firewalltest.UserRules) }
func TestGuard(t *testing.T)      { firewalltest.EachVariant(t, inLab, firewalltest.Guard) }
func TestOptions(t *testing.T)    { firewalltest.EachVariant(t, inLab, firewalltest.Options) }
func TestExposures(t *testing.T)  { firewalltest.EachVariant(t, inLab, firewalltest.Exposures) }
func TestLimitsHold(t *testing.T) { firewalltest.EachVariant(t, inLab, firewalltest.LimitsHold) }
func TestDiverted(t *testing.T)   { firewalltest.EachVariant(t, inLab, firewalltest.Diverted) }
