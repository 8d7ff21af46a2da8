package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/firewall/nftables"
	"github.com/drawbridge-net/drawbridge/firewalld"
	"github.com/drawbridge-net/drawbridge/link"
	"github.com/drawbridge-net/drawbridge/relay"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// purge holds the flags of the command.
type purge struct {
	controlSocket, state string
	relaySocket          string
	keepState, force     bool
	rulesOnly            bool
}

func newPurge() *cobra.Command {
	var p purge
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Take everything of Drawbridge off this host",
		Long: `Take everything of Drawbridge off this host: links, firewall rules and sets, firewalld's bindings, and the
state file. The process that holds published ports is ended, with their connections. The daemon must not be running. It works without a state file too: what is ours is
recognised by its marks.

What stays: rules that you put into DOCKER-USER or DRAWBRIDGE-USER, firewalld's zone "docker" and policy "docker-forwarding",
and IP forwarding, which others may rely on by now. If it was Drawbridge that turned it on, the policy of iptables' FORWARD becomes DROP, as Docker
sets it, so that the host does not become a router.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd); err != nil {
				return err
			}
			return p.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.controlSocket, "control-socket", defaultControlSocket, "unix socket of the daemon, which must not answer")
	f.StringVar(&p.relaySocket, "relay-socket", defaultRelaySocket, "unix socket of the process that holds published ports")
	f.StringVar(&p.state, "state", defaultState, "state file of the daemon")
	f.BoolVar(&p.keepState, "keep-state", false, "keep the state file: the daemon's next start makes everything again. Containers that it may not enter (CAP_SYS_ADMIN) must be restarted")
	f.BoolVar(&p.rulesOnly, "rules-only", false, "take nothing but rules and sets away; containers keep their links")
	f.BoolVar(&p.force, "force", false, "purge even though containers are attached: they lose their links and, without --keep-state, their networks must be removed and created again")
	return cmd
}

func (p purge) run(ctx context.Context, out io.Writer) error {
	if _, err := control.Dial(p.controlSocket).Status(ctx); !errors.Is(err, control.ErrUnreachable) {
		return errors.New("the daemon is running: stop it first (systemctl stop drawbridge.socket drawbridge.service)")
	}
	alone, err := claimHost(p.controlSocket, func(error) {}) // the daemon warns of that
	if err != nil {
		return err
	}
	defer alone.Close()
	known, err := p.readState()
	if err != nil {
		return err
	}
	if p.rulesOnly {
		return p.cleanRulesOnly(ctx, out)
	}
	// Not what the state file has: it may be gone, and knows nothing of containers that were removed while no daemon ran.
	attached, err := link.InContainers()
	if err != nil {
		return err
	}
	if attached > 0 && !p.force {
		return fmt.Errorf("containers are attached to drawbridge networks, by %d links: stop them, or take the links away with --force", attached)
	}
	if err := p.clean(ctx, known, out); err != nil {
		return err
	}
	if p.keepState {
		return nil
	}
	return store.Remove(p.state)
}

// readState returns what the state file says, if there is one. It also makes sure that no
// daemon has it open.
func (p purge) readState() (state.Snapshot, error) {
	if _, err := os.Stat(p.state); errors.Is(err, fs.ErrNotExist) {
		return state.Snapshot{}, nil
	}
	s, err := store.Open(p.state)
	if err != nil {
		return state.Snapshot{}, fmt.Errorf("%w; to purge without it, move it away", err)
	}
	defer s.Close()
	return s.Snapshot(), nil
}

// clean takes links away before rules, so that nothing is open in between. What fails does not keep
// the rest from going.
func (p purge) clean(ctx context.Context, known state.Snapshot, out io.Writer) error {
	links, err := link.New(link.Sysctl{Root: "/proc/sys"})
	if err != nil {
		return err
	}
	defer links.Close()
	bridges, err := links.Purge()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "links: %d bridges removed\n", len(bridges))
	// Also those that an earlier purge removed, which did not get any further.
	bridges = append(bridges, known.Retired...)
	for _, n := range known.Networks {
		bridges = append(bridges, n.Bridge)
	}
	ended, err := relay.End(ctx, p.relaySocket)
	if ended {
		fmt.Fprintln(out, "published ports: their process is ended")
	}
	err = errors.Join(
		err,
		firewalld.New(firewalld.Options{}).Unbind(ctx, bridges),
		cleanRules(ctx, out),
	)
	if known.Forwarding.V4 || known.Forwarding.V6 {
		fmt.Fprintln(out, "note: IP forwarding is still on; where nobody needs it, turn it off: `sysctl -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0`")
	}
	return errors.Join(err, restoreRA(links, known.Forwarding.RA, out))
}

// restoreRA gives the links' own setting for router advertisements back, where that costs the host no route.
func restoreRA(links *link.Links, names state.LinkNames, out io.Writer) error {
	if names == "" {
		return nil
	}
	restored, err := links.RestoreRA(names)
	if err == nil && !restored {
		fmt.Fprintf(out, "note: accept_ra stays 2 on %s: with 1 the host would lose its IPv6 routes while it forwards\n", names)
	}
	return err
}

// cleanRulesOnly leaves bridges behind: what a rule of ours guarded there is closed first.
func (p purge) cleanRulesOnly(ctx context.Context, out io.Writer) error {
	links, err := link.New(link.Sysctl{Root: "/proc/sys"})
	if err != nil {
		return err
	}
	defer links.Close()
	if err := links.CloseLoopback(); err != nil {
		return err
	}
	if nftables.LatchLeft() {
		if err := relay.LetGo(ctx, p.relaySocket); err != nil {
			return err
		}
	}
	return cleanRules(ctx, out)
}

func cleanRules(ctx context.Context, out io.Writer) error {
	backend, err := leftoverRules()
	if err != nil {
		return err
	}
	defer backend.Close()
	closed, err := backend.iptables.CloseForward(ctx)
	if closed {
		fmt.Fprintln(out, "note: drawbridge had turned on IP forwarding and leaves it on, since others may rely on it. So that the host is no router, iptables refuses now what no rule of FORWARD accepts, as Docker sets it; `iptables -P FORWARD ACCEPT` takes that back")
	}
	if err := errors.Join(err, backend.Purge(ctx)); err != nil {
		return err
	}
	text := "firewall: rules and sets removed"
	if !backend.iptables.Installed() {
		text += "; there is no iptables on this host"
	}
	fmt.Fprintln(out, text)
	return nil
}
