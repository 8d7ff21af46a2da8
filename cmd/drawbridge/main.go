// Drawbridge is a Docker network and IPAM plugin: a bridge driver that leaves the host's
// firewall in charge. This program is the daemon (drawbridge serve) and the commands that look at it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/internal/version"
)

// Exit codes, which scripts rely on.
const (
	exitOK          = 0
	exitFailed      = 1 // the thing asked for or checked does not hold
	exitUsage       = 2
	exitUnreachable = 3 // the daemon cannot be reached
)

// exitMeanings say what an exit code means, by the code.
var exitMeanings = []string{
	exitOK:          "fine",
	exitFailed:      "what was asked for does not hold or failed",
	exitUsage:       "wrong usage",
	exitUnreachable: "the daemon cannot be reached",
}

// exitText is the sentence about exit codes.
func exitText() string {
	var codes []string
	for code, meaning := range exitMeanings {
		codes = append(codes, fmt.Sprint(code, " ", meaning))
	}
	return "Exit codes: " + strings.Join(codes, ", ") + "."
}

// Paths that are fixed unless a flag says otherwise.
const (
	defaultPluginSocket  = "/run/docker/plugins/drawbridge.sock"
	defaultControlSocket = "/run/drawbridge/control.sock"
	defaultRelaySocket   = "/run/drawbridge/relay.sock"
	defaultState         = "/var/lib/drawbridge/state.db"
	defaultEngineSocket  = "/run/docker.sock"
	defaultProc          = "/proc"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "drawbridge:", err)
	}
	return exitCode(err)
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, control.ErrUnreachable):
		return exitUnreachable
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:     "drawbridge",
		Version: version.String(),
		Short:   "A Docker network and IPAM plugin that leaves the host's firewall in charge",
		Long: `Drawbridge is a Docker network and IPAM plugin: bridge networks with addresses, masquerade,
published ports and isolation, as Docker's own, by rules that heal themselves and that can be looked at.

Start the daemon with "drawbridge serve" (as root), then

  docker network create -d drawbridge --ipam-driver drawbridge web
  docker run --network web -p 8080:80 …
  drawbridge ports

` + exitText(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          subcommandNeeded,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		var bad *pflag.InvalidValueError
		if errors.As(err, &bad) {
			err = valueError("--"+bad.GetFlag().Name, bad)
		}
		return usageError{err}
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newServe(), newStatus(), newVerify(), newPorts(), newRules(), newOptions(), newGC(), newPurge(), newVersion(), newRelay())
	return root
}

func subcommandNeeded(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%q is not a command: see `%s --help`", args[0], cmd.CommandPath())}
	}
	return nil
}

// noArgs refuses arguments, as a mistake of usage. Behind a switch, true and false are arguments: its value
// needs the "=".
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if _, err := strconv.ParseBool(args[0]); err == nil {
		var switches []string
		cmd.Flags().Visit(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" {
				switches = append(switches, f.Name)
			}
		})
		name := "FLAG"
		if len(switches) == 1 {
			name = switches[0]
		}
		return usageError{fmt.Errorf("%q belongs to no flag: write --%s=%s, with the =", args[0], name, args[0])}
	}
	return usageError{fmt.Errorf("`%s` takes no argument, such as %q: see `%s --help`", cmd.CommandPath(), args[0], cmd.CommandPath())}
}
