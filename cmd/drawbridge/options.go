package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge-net/drawbridge/driver"
)

// setting is an option or a flag, as people and programs are shown it. The tables in the documentation are made from
// the same values (docs_test.go).
type setting struct {
	Key         string `json:"key"`
	Type        string `json:"type"`
	Default     string `json:"default"`
	Environment string `json:"environment,omitempty"` // variable that stands for a flag
	Meaning     string `json:"meaning"`
}

// allSettings are the settings by the place where they are made.
type allSettings struct {
	Network  []setting `json:"network"`
	Endpoint []setting `json:"endpoint"`
	Serve    []setting `json:"serve"`
}

func listSettings() allSettings {
	return allSettings{
		Network:  settingsOf(driver.NetworkOptions()),
		Endpoint: settingsOf(driver.EndpointOptions()),
		Serve:    flagsOf(newServe()),
	}
}

func settingsOf(options []driver.Option) []setting {
	var out []setting
	for _, o := range options {
		out = append(out, setting{Key: o.Key, Type: o.Type, Default: o.Default, Meaning: o.Meaning})
	}
	return out
}

// flagsOf returns the flags of a command, in the order in which it declared them.
func flagsOf(cmd *cobra.Command) []setting {
	var out []setting
	cmd.Flags().SortFlags = false
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		s := setting{Key: "--" + f.Name, Type: flagType(f), Default: f.DefValue, Environment: environmentName(f), Meaning: f.Usage}
		if f.Value.Type() == "stringArray" {
			s.Default = strings.Trim(f.DefValue, "[]")
		}
		out = append(out, s)
	})
	return out
}

// flagType is pflag's type in the words that options have.
func flagType(f *pflag.Flag) string {
	switch t := f.Value.Type(); t {
	case "bool":
		return "true|false"
	case "int":
		return "number"
	case "stringArray":
		return "text, repeatable"
	case "duration":
		return "time"
	default:
		return "text"
	}
}

func newOptions() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "options",
		Short: "List the options of networks and containers, and the settings of the daemon",
		Long: `List the options of networks (docker network create -o), those of a container's attachment to a network
(docker run --network name=…,driver-opt=…) and the settings of the daemon (drawbridge serve). It asks no daemon.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), listSettings())
			}
			return listSettings().write(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a allSettings) write(w io.Writer) error {
	var b strings.Builder
	for _, part := range []struct {
		title    string
		settings []setting
	}{
		{"NETWORKS   docker network create -o KEY=VALUE;\ndriver_opts of a network in compose", a.Network},
		{"CONTAINERS   docker run --network name=NETWORK,driver-opt=KEY=VALUE;\ndriver_opts of a service's network in compose", a.Endpoint},
		{"THE DAEMON   drawbridge serve --FLAG=VALUE, or the environment variable", a.Serve},
	} {
		fmt.Fprintf(&b, "%s\n\n", part.title)
		for _, s := range part.settings {
			b.WriteString(s.text())
		}
	}
	_, err := io.WriteString(w, strings.TrimSuffix(b.String(), "\n"))
	return err
}

// columns is the width of the narrowest terminal that people use. Keys are too long for a table with a column for
// each part in it.
const columns = 80

func (s setting) text() string {
	facts := s.Type
	if s.Default != "" {
		facts += "; default " + s.Default
	}
	if s.Environment != "" {
		facts += "; " + s.Environment
	}
	const indent = "      "
	return fmt.Sprintf("  %s\n%s%s\n", s.Key, wrap(facts, indent, columns), wrap(s.Meaning, indent, columns))
}

// wrap breaks a text into indented lines of at most width characters.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	line := indent
	for _, word := range strings.Fields(text) {
		if len(line) > len(indent) && len(line)+1+len(word) > width {
			fmt.Fprintln(&b, line)
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(&b, line)
	return b.String()
}
