package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab/ask"
)

// A request is what get was asked for.
type request struct {
	network, addr, bind string
	timeout             time.Duration // for the connection and for each answer
	count               int           // answers wanted on the one connection
	every               time.Duration // pause between two requests
	lines, length       int           // of one request: that many lines at once, of that many bytes
}

// get prints one line per answer. When there is none it exits 1 with one of
// the words of ask.Outcome on standard output and the whole error on standard error.
func get(args []string) error {
	var r request
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	flags.StringVar(&r.bind, "bind", "", "source address, with or without a port")
	flags.DurationVar(&r.timeout, "timeout", 2*time.Second, "how long to wait for the connection and for each answer")
	flags.IntVar(&r.count, "count", 1, "how many requests to make on one connection")
	flags.DurationVar(&r.every, "every", 100*time.Millisecond, "pause between two requests")
	flags.IntVar(&r.lines, "lines", 1, "how many lines one request has; each is answered")
	flags.IntVar(&r.length, "length", len("hello"), "how long these lines are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("usage: probe get [-bind IP] [-timeout D] [-count N -every D] [-lines N] [-length N] tcp|udp|sctp ADDR")
	}
	r.network, r.addr = flags.Arg(0), flags.Arg(1)
	err := fetch(os.Stdout, r)
	if err != nil {
		fmt.Println(ask.Outcome(err))
	}
	return err
}

func fetch(out io.Writer, r request) error {
	c, err := ask.Dial(context.Background(), r.network, r.addr, r.bind, r.timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for i := range r.count {
		if i > 0 {
			time.Sleep(r.every)
		}
		line, err := r.ask(c, in)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, line); err != nil {
			return err
		}
	}
	return nil
}

// ask makes one request.
func (r request) ask(c net.Conn, in *bufio.Reader) (string, error) {
	if r.lines > 1 {
		return r.pour(c, in)
	}
	return ask.Line(c, in, r.network, r.timeout)
}

// pour sends many lines and returns the last answer. It reads meanwhile, or both sides would wait for each other.
func (r request) pour(c net.Conn, in *bufio.Reader) (string, error) {
	if err := c.SetDeadline(time.Now().Add(r.timeout)); err != nil {
		return "", err
	}
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, strings.Repeat(strings.Repeat("x", r.length)+"\n", r.lines))
		written <- err
	}()
	var last string
	for range r.lines {
		var err error
		if last, err = in.ReadString('\n'); err != nil {
			return "", err
		}
	}
	return last, <-written
}
