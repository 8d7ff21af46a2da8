package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// each asks all addresses at once, over connections of their own, and prints a line for each in their order: "answered" and the answer,
// or a word of outcome and the error. A process for each would cost more than what it asks.
func each(args []string) error {
	flags := flag.NewFlagSet("each", flag.ContinueOnError)
	timeout := flags.Duration("timeout", 2*time.Second, "how long to wait for the connection and for the answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 || flags.NArg()%2 != 0 {
		return errors.New("usage: probe each [-timeout D] tcp|udp|sctp ADDR [tcp|udp|sctp ADDR...]")
	}
	return askEach(os.Stdout, flags.Args(), *timeout)
}

// askEach has a network and an address in turn.
func askEach(out io.Writer, whom []string, timeout time.Duration) error {
	lines := make([]string, len(whom)/2)
	var all sync.WaitGroup
	for i := range lines {
		r := request{network: whom[2*i], addr: whom[2*i+1], timeout: timeout, count: 1, lines: 1}
		all.Go(func() {
			var answer bytes.Buffer
			if err := fetch(&answer, r); err != nil {
				lines[i] = outcome(err) + " " + strings.ReplaceAll(err.Error(), "\n", " ")
				return
			}
			lines[i] = "answered " + strings.TrimSuffix(answer.String(), "\n")
		})
	}
	all.Wait()
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}
