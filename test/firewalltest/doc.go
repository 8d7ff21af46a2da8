// Package firewalltest is a throw-away router with container networks behind it, the packets that every backend of the
// firewall must judge alike, and what else may be on a host. It is for tests.
package firewalltest
