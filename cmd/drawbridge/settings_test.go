package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usage runs a command line that must end as a mistake of usage, and returns what it says.
func usage(t *testing.T, args ...string) string {
	t.Helper()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(io.Discard)
	err := root.ExecuteContext(t.Context())
	if exitCode(err) != exitUsage {
		t.Fatalf("%q ends with %v", args, err)
	}
	return err.Error()
}

// TestUsage: mistakes are told in plain words, none of Go's parsers.
func TestUsage(t *testing.T) {
	tests := map[string]string{
		"serve --icc=perhaps":          `--icc: "perhaps" is neither true nor false`,
		"serve --icc=":                 `--icc: "" is neither true nor false`,
		"serve --mtu=abc":              `--mtu: "abc" is not a number`,
		"serve --mtu 1e9999":           `--mtu: "1e9999" is not a number`,
		"serve --icc false":            `"false" belongs to no flag: write --icc=false, with the =`,
		"serve false":                  `"false" belongs to no flag: write --FLAG=false, with the =`,
		"serve --mtu 1400 --ip-masq 0": `"0" belongs to no flag: write --ip-masq=0, with the =`,
		"serve --iptables --icc 0":     `"0" belongs to no flag: write --FLAG=0, with the =`,
		"serve now":                    "`drawbridge serve` takes no argument, such as \"now\": see `drawbridge serve --help`",
		"status web":                   "`drawbridge status` takes no argument, such as \"web\": see `drawbridge status --help`",
		"serve --colour=red":           "unknown flag: --colour",
		"serve --gc-grace=soon":        `--gc-grace: "soon" is not a time, such as 90s or 5m`,
		"serve --gc-grace=0s":          "--gc-grace 0s is too short: give 1s or more",
		"serve --publish=nat":          `--publish "nat" is not one of auto, dnat, host, learned, localhost`,
		"serve --publish=":             `--publish "" is not one of auto, dnat, host, learned, localhost`,
		"serve --learned-time=999ms":   "--learned-time 999ms is not possible: give 1s to 5m",
		"serve --learned-time=5m1s":    "--learned-time 5m1s is not possible: give 1s to 5m",
		"serve --state=state.db":       `--state "state.db" is not an absolute path`,
		"serve --ip=fe80::1":           `--ip "fe80::1" is of one link alone: give an address that the host has for all`,
		"serve --engine-socket=docker": "--engine-socket docker is not an absolute path, nor off",
		"serve --engine-socket=off --engine-socket=/run/docker.sock": "--engine-socket off stands alone: leave it out, or all others",
		"gc all":             "`drawbridge gc` takes no argument, such as \"all\": see `drawbridge gc --help`",
		"ports --json=maybe": `--json: "maybe" is neither true nor false`,
	}
	for args, want := range tests {
		t.Run(args, func(t *testing.T) {
			if got := usage(t, strings.Fields(args)...); got != want {
				t.Errorf("says %q, not %q", got, want)
			}
		})
	}
}

func TestUsageOfEnvironment(t *testing.T) {
	tests := map[string]string{
		"DRAWBRIDGE_ICC=maybe": `environment variable DRAWBRIDGE_ICC: "maybe" is neither true nor false`,
		"DRAWBRIDGE_MTU=abc":   `environment variable DRAWBRIDGE_MTU: "abc" is not a number`,
	}
	for assignment, want := range tests {
		t.Run(assignment, func(t *testing.T) {
			name, value, _ := strings.Cut(assignment, "=")
			t.Setenv(name, value)
			if got := usage(t, "serve"); got != want {
				t.Errorf("says %q, not %q", got, want)
			}
		})
	}
}

// TestEmptyVariable: it is as none, whatever the flag is.
func TestEmptyVariable(t *testing.T) {
	var s, want settings
	cmd := &cobra.Command{}
	want.register(cmd.Flags())
	cmd = &cobra.Command{}
	s.register(cmd.Flags())
	cmd.Flags().VisitAll(func(f *pflag.Flag) { t.Setenv(environmentName(f), "") })
	if err := fromEnvironment(cmd); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(settings{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProc(t *testing.T) {
	var s settings
	s.register((&cobra.Command{}).Flags())
	for proc, want := range map[string]string{"proc": "--proc \"proc\" is not an absolute path", "": "--proc \"\" is not an absolute path", "/host/proc": ""} {
		s.proc = proc
		_, err := s.parse()
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%q: %v, not %q", proc, err, want)
		}
	}
}

// TestLinger: who cannot start in a container stays for as long as its engine waits, unless that ends it.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		linger(t.Context(), errors.New("no"), began)
		if stayed := time.Since(began); stayed != enableTime {
			t.Errorf("it stays for %v", stayed)
		}
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		linger(ctx, errors.New("no"), began)
		if stayed := time.Since(began); stayed != time.Second {
			t.Errorf("it stays for %v after it is ended", stayed)
		}
		began = time.Now().Add(-time.Minute)
		linger(t.Context(), errors.New("no"), began)
		if stayed := time.Since(began); stayed != time.Minute {
			t.Errorf("one that ran is kept for %v", stayed)
		}
	})
}

// TestEngineSockets: what is given takes the place of the default.
func TestEngineSockets(t *testing.T) {
	for value, want := range map[string][]string{
		"/run/a.sock /run/b.sock": {"/run/a.sock", "/run/b.sock"},
		"off":                     nil,
		"":                        {defaultEngineSocket},
	} {
		t.Setenv("DRAWBRIDGE_ENGINE_SOCKET", value)
		var s settings
		cmd := &cobra.Command{}
		s.register(cmd.Flags())
		if err := fromEnvironment(cmd); err != nil {
			t.Fatal(err)
		}
		p, err := s.parse()
		if diff := cmp.Diff(want, p.engines); err != nil || diff != "" {
			t.Errorf("%q: error %v %s", value, err, diff)
		}
	}
}

func TestStrayVariables(t *testing.T) {
	got := strayVariables([]string{
		"PATH=/bin", "DRAWBRIDGE_LOGLEVEL=debug", "DRAWBRIDGE_LOG_LEVEL=info", "DRAWBRIDGE_KEEP_STATE=true", "DRAWBRIDGE_COLOUR_OF_BRIDGES=red",
	})
	want := []string{
		"environment variable DRAWBRIDGE_COLOUR_OF_BRIDGES sets nothing: `drawbridge options` lists the settings",
		"environment variable DRAWBRIDGE_LOGLEVEL sets nothing: did you mean DRAWBRIDGE_LOG_LEVEL?",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPurgeHelp: nobody is surprised that running containers lose their links, and how they get new ones.
func TestPurgeHelp(t *testing.T) {
	for name, how := range map[string]string{"keep-state": "restarted", "force": "removed and created again"} {
		if f := newPurge().Flag(name); !strings.Contains(f.Usage, how) {
			t.Errorf("--%s: %s", name, f.Usage)
		}
	}
}
