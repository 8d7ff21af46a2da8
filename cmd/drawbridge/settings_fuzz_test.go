package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge-net/drawbridge/state"
)

// FuzzSettings gives any value to two variables. What is taken works for what it is there for, and
// what is refused is a mistake of usage, told in one sentence.
func FuzzSettings(f *testing.F) {
	var names []string
	var all settings
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	all.register(flags)
	flags.VisitAll(func(flag *pflag.Flag) { names = append(names, environmentName(flag)) })
	for which, values := range map[string][]string{
		"IP": {"::", "fe80::1%eth0", "224.0.0.1", "::ffff:10.0.0.1", "localhost"}, "MTU": {"67", "-1", "0x500"}, "GC_GRACE": {"1ns", "5m"},
		"DEFAULT_ADDRESS_POOL": {"base=10.0.0.0/8,size=24 base=fd00::/8,size=64", "size=\"24"}, "ENGINE_SOCKET": {"/run/a /run/b", "off /x", "off"},
		"ICC": {"maybe"}, "LOG_LEVEL": {"info+3", "loud\n"}, "FIREWALL_BACKEND": {"nftables", ""},
		"PUBLISH": {"learned", "auto\n"}, "LEARNED_TIME": {"300s", "1ns"},
	} {
		for _, value := range values {
			f.Add(slices.Index(names, environmentPrefix+which), value, slices.Index(names, environmentPrefix+"STATE"), "/tmp/x")
		}
	}
	f.Fuzz(func(t *testing.T, first int, a string, second int, b string) {
		for i, value := range map[int]string{first: a, second: b} {
			if i >= 0 && i < len(names) {
				t.Setenv(names[i], strings.ReplaceAll(value, "\x00", ""))
			}
		}
		var s settings
		cmd := &cobra.Command{}
		s.register(cmd.Flags())
		err := fromEnvironment(cmd)
		var p parsed
		if err == nil {
			p, err = s.parse()
		}
		if err != nil {
			if exitCode(err) != exitUsage || strings.ContainsAny(err.Error(), "\n\r\x00") {
				t.Errorf("not one sentence, or no mistake of usage: %q", err)
			}
			return
		}
		port := state.PortRequest{Proto: state.TCP, ContainerPort: 80, HostIP: p.driver.HostIP}
		if err := port.Validate(); err != nil {
			t.Errorf("--ip %q is taken: %v", s.ip, err)
		}
		if p.driver.MTU != 0 && (p.driver.MTU < 68 || p.driver.MTU > 65535) || s.gcGrace < time.Second {
			t.Errorf("MTU %d or grace %s is taken", p.driver.MTU, s.gcGrace)
		}
		if len(p.pools) == 0 {
			t.Error("there are no address pools")
		}
		if !slices.Contains(state.PublishModes(), string(p.publish)) || s.learnedTime < time.Second || s.learnedTime > 5*time.Minute {
			t.Errorf("mode %q or time %s is taken", p.publish, s.learnedTime)
		}
		for _, path := range p.engines {
			if !filepath.IsAbs(path) {
				t.Errorf("engine socket %q is taken", path)
			}
		}
		if !slices.Contains([]string{"auto", "iptables", "nftables"}, s.backend) || !slices.Contains([]string{"auto", "off"}, s.firewalld) {
			t.Errorf("backend %q or firewalld %q is taken", s.backend, s.firewalld)
		}
	})
}
