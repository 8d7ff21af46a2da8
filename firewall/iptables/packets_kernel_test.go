//go:build kernel

package iptables

import (
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

// inLab makes a backend of the lab's variant.
func inLab(inner *firewalltest.Lab) firewall.Backend { return withBackend(inner).backend }

func TestPackets(t *testing.T) { firewalltest.EachVariant(t, inLab, firewalltest.PacketsInWorlds) }

func TestEstablished(t *testing.T)    { firewalltest.EachVariant(t, inLab, firewalltest.Established) }
func TestFlushed(t *testing.T)        { firewalltest.EachVariant(t, inLab, firewalltest.Flushed) }
func TestPacketsControl(t *testing.T) { firewalltest.Control(t) }
func TestMarks(t *testing.T)          { firewalltest.EachVariant(t, inLab, firewalltest.Marks) }
func TestUserRules(t *testing.T)      { firewalltest.EachVariant(t, inLab, firewalltest.UserRules) }
func TestGuard(t *testing.T)          { firewalltest.EachVariant(t, inLab, firewalltest.Guard) }
func TestOptions(t *testing.T)        { firewalltest.EachVariant(t, inLab, firewalltest.Options) }
func TestExposures(t *testing.T)      { firewalltest.EachVariant(t, inLab, firewalltest.Exposures) }
func TestLimitsHold(t *testing.T)     { firewalltest.EachVariant(t, inLab, firewalltest.LimitsHold) }
func TestDiverted(t *testing.T)       { firewalltest.EachVariant(t, inLab, firewalltest.Diverted) }
