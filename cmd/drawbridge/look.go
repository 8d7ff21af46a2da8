package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/internal/version"
)

// question is something that a command asks the daemon.
type question[T any] struct {
	ask   func(*control.Client, context.Context) (T, error)
	write func(io.Writer, T) error // as text; JSON needs no help
	judge func(T) error            // what makes the command fail after it printed; nil for nothing
}

// command makes the cobra command of a question.
func (q question[T]) command(cmd *cobra.Command) *cobra.Command {
	var socket string
	var asJSON bool
	cmd.Flags().StringVar(&socket, "control-socket", defaultControlSocket, "unix socket of the daemon")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Args = noArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := fromEnvironment(cmd); err != nil {
			return err
		}
		answer, err := q.ask(control.Dial(socket), cmd.Context())
		if err != nil {
			return err
		}
		write := q.write
		if asJSON {
			write = printJSON[T]
		}
		if err := write(cmd.OutOrStdout(), answer); err != nil || q.judge == nil {
			return err
		}
		return q.judge(answer)
	}
	return cmd
}

func printJSON[T any](w io.Writer, v T) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func newStatus() *cobra.Command {
	return question[control.Status]{
		ask:   (*control.Client).Status,
		write: control.WriteStatus,
		judge: func(s control.Status) error {
			if !s.Healthy() {
				return errors.New("the host is not as it should be")
			}
			return nil
		},
	}.command(&cobra.Command{
		Use:   "status",
		Short: "Show whether the host is as it should be",
		Long: `Show whether the host is as it should be. It exits with 1 if the last comparison of host and state left
something to be done, and then says what. A note tells of what is as it should be, and not as usual.

Every change has a revision. "applied up to" a smaller one, with no error, is fine for some seconds: the newest change
is being carried out, or needs nothing done on the host and is counted by the next comparison, within 30 seconds.`,
	})
}

func newVerify() *cobra.Command {
	return question[[]control.Difference]{
		ask:   (*control.Client).Verify,
		write: control.WriteVerify,
		judge: func(found []control.Difference) error {
			switch len(found) {
			case 0:
				return nil
			case 1:
				return errors.New("there is a difference: the daemon mends what it can within seconds")
			}
			return fmt.Errorf("there are %d differences: the daemon mends what it can within seconds", len(found))
		},
	}.command(&cobra.Command{
		Use:   "verify",
		Short: "Compare the host with the desired state, and change nothing",
		Long: `Compare the host with the desired state, and change nothing: links, addresses, sysctls, firewall rules and sets,
firewalld's zone, and the sockets of published ports. Each difference is named in words, and the exit code is 1 if
there is one. It looks only at what is Drawbridge's, and knows a rule by the id in its comment: that somebody changed a
rule and left the comment is not seen.

The daemon hears of most changes and mends them within a second, and looks at the whole host every 30 seconds; its log
says "repaired". What stays here is something that it cannot mend, and says why, or that somebody keeps changing.`,
	})
}

func newPorts() *cobra.Command {
	return question[[]control.Port]{
		ask:   (*control.Client).Ports,
		write: control.WritePorts,
	}.command(&cobra.Command{
		Use:   "ports",
		Short: "List published ports, ephemeral ones included",
		Long: `List published ports: host address and port, protocol, container address and port, endpoint and network.
Docker itself cannot show them for networks of a plugin.

MODE is how clients from outside the host come to the port (drawbridge.publish), FROM and BY are who may come and by
which links (drawbridge.publish.from, drawbridge.publish.iface), and WHY says where the mode comes from.

"routed" in the column HOST stands for no address of the host: the network's gateway mode is routed, and clients
connect to the container's own address and port.`,
	})
}

// ruleText is the answer of rules as JSON.
type ruleText struct {
	Rules string `json:"rules"`
}

func newRules() *cobra.Command {
	return question[ruleText]{
		ask: func(c *control.Client, ctx context.Context) (ruleText, error) {
			text, err := c.Rules(ctx)
			return ruleText{text}, err
		},
		write: func(w io.Writer, r ruleText) error {
			_, err := fmt.Fprint(w, r.Rules)
			return err
		},
	}.command(&cobra.Command{
		Use:   "rules",
		Short: "Print the firewall rules and sets of Drawbridge",
		Long: `Print the firewall rules and sets of Drawbridge as they were last written, in the languages of nft, ipset restore and
iptables-restore. Nothing is printed while there is no network.`,
	})
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"version": version.String()})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "drawbridge", version.String())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
