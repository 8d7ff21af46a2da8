package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLevels(t *testing.T) {
	for text, want := range map[string][]int{"0": {0}, "1,100": {1, 100}, "": {7}, "2,1": nil, "1,1": nil, "x": nil, "-1": nil, "1,": nil} {
		got, err := levels(text, false, nil, []int{7})
		if (err != nil) != (want == nil) || cmp.Diff(want, got) != "" {
			t.Errorf("levels(%q) = %v, %v", text, got, err)
		}
	}
}

func TestUnknownScenario(t *testing.T) {
	if _, err := parse([]string{"-scenarios", "connect,nothing"}); err == nil {
		t.Error("an unknown scenario is accepted")
	}
}

func TestFirewallTime(t *testing.T) {
	const log = `time=T level=DEBUG msg="pass ended" rev=1 reason=change duration=9ms steps="links 1ms, firewall 2.5ms, firewalld 60µs" failed=false
time=T level=DEBUG msg="pass ended" rev=2 reason="link x was removed" duration=9ms steps="links 1ms, firewall 100ms, firewalld 60µs" failed=false
time=T level=INFO msg=call call=NetworkDriver.Join duration=1ms
time=T level=DEBUG msg="nftables transaction" duration=12.5µs
time=T level=DEBUG msg="nftables transaction" duration=1ms
time=T level=DEBUG msg="pass ended" rev=3 reason="link x was removed, change" duration=9ms steps="links 1ms, firewall 500µs" failed=false
`
	if got := firewallTime(log); got != 3 {
		t.Errorf("%v ms, want 3", got)
	}
	if got := kernelTime(log); got != 1.0125 {
		t.Errorf("%v ms of the kernel, want 1.0125", got)
	}
}
