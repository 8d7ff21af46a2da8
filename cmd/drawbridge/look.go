package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/internal/version"
)

// look holds the flags of commands that read from the daemon.
type look struct {
	socket string
	json   bool
}

func (l *look) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.socket, "control-socket", defaultControlSocket, "unix socket of the daemon")
	cmd.Flags().BoolVar(&l.json, "json", false, "print JSON")
}

func printJSON(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func newStatus() *cobra.Command {
	var l look
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the host is as it should be",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd); err != nil {
				return err
			}
			s, err := control.Dial(l.socket).Status(cmd.Context())
			if err != nil {
				return err
			}
			if l.json {
				err = printJSON(cmd, s)
			} else {
				err = control.WriteStatus(cmd.OutOrStdout(), s)
			}
			if err == nil && !s.Healthy() {
				err = errors.New("the host is not as it should be")
			}
			return err
		},
	}
	l.register(cmd)
	return cmd
}

func newPorts() *cobra.Command {
	var l look
	cmd := &cobra.Command{
		Use:   "ports",
		Short: "List published ports, ephemeral ones included",
		Long: `List published ports: host address and port, protocol, container address and port, endpoint and network.
Docker itself cannot show them for networks of a plugin.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd); err != nil {
				return err
			}
			ports, err := control.Dial(l.socket).Ports(cmd.Context())
			if err != nil {
				return err
			}
			if l.json {
				return printJSON(cmd, ports)
			}
			return control.WritePorts(cmd.OutOrStdout(), ports)
		},
	}
	l.register(cmd)
	return cmd
}

func newRules() *cobra.Command {
	var l look
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Print the firewall rules and sets of Drawbridge",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd); err != nil {
				return err
			}
			rules, err := control.Dial(l.socket).Rules(cmd.Context())
			if err != nil {
				return err
			}
			if l.json {
				return printJSON(cmd, map[string]string{"rules": rules})
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), rules)
			return err
		},
	}
	l.register(cmd)
	return cmd
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd, map[string]string{"version": version.String()})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "drawbridge", version.String())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
