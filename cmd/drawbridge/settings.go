package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge-net/drawbridge/driver"
	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/internal/spelling"
	"github.com/drawbridge-net/drawbridge/ipam"
	"github.com/drawbridge-net/drawbridge/state"
)

// settings are the flags of serve as given; parsed is what they mean.
type settings struct {
	pluginSocket, controlSocket, state string
	relaySocket                        string
	iptables, ip6tables, ipForward     bool
	ipMasq, icc, userlandProxy         bool
	ip                                 string
	mtu                                int
	addressPools                       []string
	backend, latch, firewalld          string
	logLevel                           string
	publish                            string
	learnedTime                        time.Duration
	engineSockets                      []string
	gcGrace                            time.Duration
	proc                               string
}

type parsed struct {
	driver driver.Options
	pools  []ipam.BasePool
	level  slog.Level
	// publish is the mode of networks and endpoints that do not say.
	publish state.Publish
	// engines are the sockets of the engines to ask, none with off.
	engines []string
}

func (s *settings) register(f *pflag.FlagSet) {
	f.StringVar(&s.pluginSocket, "plugin-socket", defaultPluginSocket, "unix socket on which dockerd finds the plugin")
	f.StringVar(&s.controlSocket, "control-socket", defaultControlSocket, "unix socket for the other commands and for monitoring")
	f.StringVar(&s.relaySocket, "relay-socket", defaultRelaySocket, "unix socket of the process that holds published ports; it is started where nobody listens")
	f.StringVar(&s.state, "state", defaultState, "file that keeps networks, endpoints, ports and addresses")
	f.BoolVar(&s.iptables, "iptables", true, "add rules to the host's firewall; with false no rule is changed")
	f.BoolVar(&s.ip6tables, "ip6tables", true, "add rules for IPv6; with false, or with --iptables=false, none is changed")
	f.BoolVar(&s.ipForward, "ip-forward", true, "turn on the host's IP forwarding when a network needs it; with false it is left alone")
	f.BoolVar(&s.ipMasq, "ip-masq", true, "containers leave the host with its address, on networks that do not say (enable_ip_masquerade)")
	f.BoolVar(&s.icc, "icc", true, "containers of a network reach each other, on networks that do not say (enable_icc)")
	f.StringVar(&s.ip, "ip", "0.0.0.0", "host address of published ports that name none (0.0.0.0 for all addresses of both families, :: for all of IPv6)")
	f.BoolVar(&s.userlandProxy, "userland-proxy", true, "serve published ports by a proxy where they are not translated: on ::1 and, of some networks, 127.0.0.1; with false nobody does")
	f.StringVar(&s.publish, "publish", "auto", "how clients from outside come to published ports of networks that do not say (drawbridge.publish): dnat, past the host's INPUT rules, as with Docker; host or learned, as those rules say; localhost, not at all; auto, learned where a firewall of the host is active, host where that one counts or looks into packets, and dnat elsewhere")
	f.DurationVar(&s.learnedTime, "learned-time", firewall.DefaultLearnedTime, "for how long a client that the host's INPUT rules let in is translated before they are asked again (drawbridge.publish=learned)")
	f.IntVar(&s.mtu, "mtu", 0, "MTU of networks that name none, in bytes (0: that of the link with the default route)")
	f.StringArrayVar(&s.addressPools, "default-address-pool", nil, "where subnets are taken from: base=10.0.0.0/8,size=24 (repeatable)")
	f.StringVar(&s.backend, "firewall-backend", "auto", "how rules are written: iptables, nftables, or auto, which follows Docker")
	f.StringVar(&s.latch, "latch", "auto", "auto: containers stay closed to new connections while somebody has flushed the rules, where the kernel can do that (5.12); off: they are open until the rules are back")
	f.StringVar(&s.firewalld, "firewalld", "auto", "auto: put bridges into firewalld's docker zone where firewalld runs; off: leave firewalld alone")
	f.StringArrayVar(&s.engineSockets, "engine-socket", []string{defaultEngineSocket}, "unix socket of the Docker engine, which is asked what Docker has forgotten (repeatable, for each engine on the host); off asks none and keeps it")
	f.DurationVar(&s.gcGrace, "gc-grace", 5*time.Minute, "how long the engine must have missed a network or an address pool before it is removed; endpoints go after a minute at most")
	f.StringVar(&s.proc, "proc", defaultProc, "where the host's /proc is mounted, with sys/net in it for writing; for a daemon in a container, whose own /proc shows its own processes and may only be read")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
}

// maxLearnedTime bounds how long a verdict of the host's firewall may be old.
const maxLearnedTime = 5 * time.Minute

// untranslated says what becomes of connections to 127.0.0.1 that the kernel does not translate.
func (s *settings) untranslated() string {
	if s.userlandProxy {
		return "published ports are served on 127.0.0.1 by the proxy, which is slower"
	}
	return "published ports are not served on 127.0.0.1"
}

// inContainer reports whether the daemon is in a container of an engine's, as a managed plugin is.
func (s *settings) inContainer() bool { return s.proc != defaultProc }

// environmentPrefix begins the variable of every flag: --log-level is DRAWBRIDGE_LOG_LEVEL.
const environmentPrefix = "DRAWBRIDGE_"

func environmentName(f *pflag.Flag) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// fromEnvironment sets flags that were not given from their variables. A list is
// separated by spaces. An empty variable sets nothing: a managed plugin has no other way back to the default.
func fromEnvironment(cmd *cobra.Command) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := environmentName(f)
		value, ok := os.LookupEnv(name)
		if !ok || value == "" || f.Changed || err != nil {
			return
		}
		values := []string{value}
		if f.Value.Type() == "stringArray" {
			values = strings.Fields(value)
		}
		for _, v := range values {
			var bad *pflag.InvalidValueError
			if e := cmd.Flags().Set(f.Name, v); errors.As(e, &bad) {
				err = usageError{valueError("environment variable "+name, bad)}
			} else if e != nil {
				err = usageError{fmt.Errorf("environment variable %s: %w", name, e)}
			}
		}
	})
	return err
}

// valueError says in words what pflag says in those of Go's parsers.
func valueError(where string, bad *pflag.InvalidValueError) error {
	switch bad.GetFlag().Value.Type() {
	case "bool":
		return fmt.Errorf("%s: %q is neither true nor false", where, bad.GetValue())
	case "int":
		return fmt.Errorf("%s: %q is not a number", where, bad.GetValue())
	case "duration":
		return fmt.Errorf("%s: %q is not a time, such as 90s or 5m", where, bad.GetValue())
	}
	return fmt.Errorf("%s: %q is not possible", where, bad.GetValue())
}

// strayVariables returns what is wrong with each variable that has our prefix and is no setting of any command.
// It is worth no more than a warning: others may have their reasons for the name.
func strayVariables(environment []string) []string {
	var known, out []string
	for _, cmd := range newRoot().Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, environmentName(f)) })
	}
	for _, assignment := range slices.Sorted(slices.Values(environment)) {
		name, _, _ := strings.Cut(assignment, "=")
		if !strings.HasPrefix(name, environmentPrefix) || slices.Contains(known, name) {
			continue
		}
		hint := "`drawbridge options` lists the settings"
		if nearest, near := spelling.Nearest(name, known); near {
			hint = "did you mean " + nearest + "?"
		}
		out = append(out, fmt.Sprintf("environment variable %s sets nothing: %s", name, hint))
	}
	return out
}

// parse checks every setting before anything is started.
func (s *settings) parse() (parsed, error) {
	p, err := s.parseAll()
	if err != nil {
		return p, usageError{err}
	}
	return p, nil
}

func (s *settings) parseAll() (parsed, error) {
	p := parsed{driver: driver.Options{
		IPForward: s.ipForward, MTU: s.mtu, NoICC: !s.icc, NoMasquerade: !s.ipMasq, NoRules: !s.iptables, NoRules6: !s.ip6tables,
	}, pools: ipam.DefaultBasePools()}
	var err error
	if p.driver.HostIP, err = driver.ParseHostIP(s.ip); err != nil {
		return p, fmt.Errorf("--ip %w", err)
	}
	if s.mtu != 0 && (s.mtu < 68 || s.mtu > 65535) {
		return p, fmt.Errorf("--mtu %d is not possible: give 68 to 65535, or 0", s.mtu)
	}
	if err := p.level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return p, fmt.Errorf("--log-level %s is not debug, info, warn or error", state.Clip(s.logLevel))
	}
	if !slices.Contains([]string{"auto", "iptables", "nftables"}, s.backend) {
		return p, fmt.Errorf("--firewall-backend %s is not auto, iptables or nftables", state.Clip(s.backend))
	}
	if !slices.Contains([]string{"auto", "off"}, s.firewalld) {
		return p, fmt.Errorf("--firewalld %s is not auto or off", state.Clip(s.firewalld))
	}
	if !slices.Contains([]string{"auto", "off"}, s.latch) {
		return p, fmt.Errorf("--latch %s is not auto or off", state.Clip(s.latch))
	}
	if !s.iptables && !s.userlandProxy {
		return p, fmt.Errorf("with --iptables=false only the proxy serves published ports: leave --userland-proxy on")
	}
	if p.publish, err = state.ParsePublish(s.publish); err != nil {
		return p, fmt.Errorf("--publish %w", err)
	}
	if s.learnedTime < time.Second || s.learnedTime > maxLearnedTime {
		return p, fmt.Errorf("--learned-time %s is not possible: give 1s to 5m", s.learnedTime)
	}
	if s.gcGrace < time.Second {
		return p, fmt.Errorf("--gc-grace %s is too short: give 1s or more", s.gcGrace)
	}
	for flag, path := range map[string]string{"state": s.state, "proc": s.proc} {
		if !filepath.IsAbs(path) {
			return p, fmt.Errorf("--%s %q is not an absolute path", flag, state.Clip(path))
		}
	}
	if p.engines, err = parseEngines(s.engineSockets); err != nil {
		return p, err
	}
	if len(s.addressPools) > 0 {
		p.pools = nil
	}
	for _, text := range s.addressPools {
		pool, err := ipam.ParseBasePool(text)
		if err != nil {
			return p, fmt.Errorf("--default-address-pool: %w", err)
		}
		p.pools = append(p.pools, pool)
	}
	return p, nil
}

func parseEngines(sockets []string) ([]string, error) {
	if len(sockets) == 1 && sockets[0] == "off" {
		return nil, nil
	}
	for _, path := range sockets {
		switch {
		case path == "off":
			return nil, errors.New("--engine-socket off stands alone: leave it out, or all others")
		case !filepath.IsAbs(path):
			return nil, fmt.Errorf("--engine-socket %s is not an absolute path, nor off", state.Clip(path))
		}
	}
	return sockets, nil
}
