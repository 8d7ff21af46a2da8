package control

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"
)

// WritePorts shows ports as a table with one line each, in the order given.
func WritePorts(w io.Writer, ports []Port) error {
	if len(ports) == 0 {
		_, err := fmt.Fprintln(w, "no ports are published")
		return err
	}
	return table(w, func(line func(...any)) {
		line("HOST", "CONTAINER", "MODE", "FROM", "BY", "ENDPOINT", "NETWORK", "BRIDGE", "WHY")
		for _, p := range ports {
			line(
				fmt.Sprintf("%s/%s", hostSide(p), p.Protocol),
				netip.AddrPortFrom(p.ContainerAddress, p.ContainerPort),
				p.Mode, fromText(p), linksText(p),
				p.Endpoint.Short(), p.Network.Short(), p.Bridge, oneLine(p.Why),
			)
		}
	})
}

// hostSide is where clients connect to, in words where that is no address of the host.
func hostSide(p Port) string {
	if p.HostPort == 0 {
		return "routed"
	}
	return netip.AddrPortFrom(p.HostAddress, p.HostPort).String()
}

// WriteStatus shows the status as a table of names and values, notes and errors last. Times are UTC.
func WriteStatus(w io.Writer, s Status) error {
	return table(w, func(line func(...any)) {
		line("version", orNone(s.Version))
		line("running since", since(s.Since))
		line("firewall backend", orNone(s.Backend))
		line("state", revision(s))
		line("networks", s.Networks)
		line("endpoints", s.Endpoints)
		line("published ports", s.Ports)
		line("address pools", s.Pools)
		line("relay", relay(s.Relay))
		for _, n := range s.Notes {
			line("note", oneLine(n))
		}
		for _, e := range s.Errors {
			line("error", oneLine(e))
		}
	})
}

// relay says in words who holds published ports.
func relay(r *Relay) string {
	if r == nil {
		return orNone("")
	}
	return fmt.Sprintf("process %d, version %s, %d sockets, %d connections", r.PID, r.Version, r.Sockets, r.Connections)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func revision(s Status) string {
	if s.Applied == s.Revision {
		return fmt.Sprintf("revision %d, applied", s.Revision)
	}
	return fmt.Sprintf("revision %d, applied up to %d", s.Revision, s.Applied)
}

func since(t time.Time) string {
	if t.IsZero() {
		return orNone("")
	}
	return t.UTC().Format("2006-01-02 15:04:05 MST")
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// table aligns the cells of the lines that fill writes.
func table(w io.Writer, fill func(line func(cells ...any))) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fill(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, c)
		}
		fmt.Fprintln(tw)
	})
	return tw.Flush() // errors of the writes before come out here
}
