package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/drawbridge-net/drawbridge/bench/floor"
	"github.com/drawbridge-net/drawbridge/bench/report"
	"github.com/drawbridge-net/drawbridge/bench/traffic"
)

// errNoHelper says that the arguments are a user's.
var errNoHelper = errors.New("not a helper's words")

// help is this program inside a host: the floor plugin, a server, or a load, whose numbers it prints.
func help(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errNoHelper
	}
	switch words := args[1:]; {
	case slices.Contains(floors, args[0]) && len(words) == 1:
		return floor.Serve(ctx, words[0], args[0] == report.Direct)
	case args[0] == "serve" && len(words) == 1:
		port, err := strconv.ParseUint(words[0], 10, 16)
		if err != nil {
			return err
		}
		return traffic.Serve(uint16(port), func() { fmt.Println("ready") })
	case args[0] == "load" && len(words) == 3:
		return load(ctx, words[0], words[1], words[2])
	}
	return errNoHelper
}

// A loaded is what a load came to.
type loaded struct {
	Rate    float64 `json:",omitempty"`
	Packets traffic.Packets
	Stream  float64 `json:",omitempty"`
	Taken   int64   `json:",omitempty"` // bytes that nobody reads
}

func load(ctx context.Context, kind, addr, amount string) error {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(amount) // milliseconds, flows, or connections
	if err != nil {
		return err
	}
	var out loaded
	if kind == "held" || kind == "stopped" {
		return traffic.Hold(ctx, to, n, kind == "stopped", func(taken int64) { _ = json.NewEncoder(os.Stdout).Encode(loaded{Taken: taken}) })
	}
	switch d := time.Duration(n) * time.Millisecond; kind {
	case "connections":
		out.Rate, err = traffic.Connections(to, d)
	case "flows":
		out.Packets, err = traffic.Flows(to, n)
	case "stream":
		out.Stream, err = traffic.Stream(to, d)
	default:
		err = fmt.Errorf("unknown load %q", kind)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}
