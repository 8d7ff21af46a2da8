package nftables

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Watch calls changed when rules of nf_tables have changed, by nft or by iptables-nft, until ctx ends. Those of legacy iptables
// are for package iptables to watch. A change of our own counts too: whoever looks finds the generation to be the one that he left.
//
// It is called when a burst of changes is over. What cannot wait for that is done by atOnce, which gets the name of the program, "" where
// that is not known.
func Watch(ctx context.Context, atOnce, changed func(string)) error {
	c := &calm{call: changed}
	for {
		// A subscription that cannot be had is tried for again: the loop checks the host from time to time anyway.
		err := watch(ctx, func(program string) {
			atOnce(program)
			c.ask("rules changed by " + cmp.Or(program, "somebody"))
		})
		if errors.Is(err, unix.ENOBUFS) {
			atOnce("")
			c.ask("changes of rules were not heard")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// watch is one subscription.
func watch(ctx context.Context, changed func(program string)) error {
	conn, err := subscribe()
	if err != nil {
		return err
	}
	return listen(ctx, conn, changed)
}

// listen hears until ctx ends or an error keeps it from it.
func listen(ctx context.Context, conn *netlink.Conn, changed func(program string)) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	for {
		messages, err := conn.Receive()
		if err != nil {
			return fmt.Errorf("listening for changes of rules: %w", err)
		}
		for _, m := range messages {
			changed(author(message{data: m.Data}))
		}
	}
}

// subscribe hears the one message that ends every transaction. What it changed, message by message, is left to the kernel.
func subscribe() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for nftables: %w", err)
	}
	var kind [2]byte
	binary.NativeEndian.PutUint16(kind[:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN)
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // the type in the header, as if in the order of the network
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(kind[:])), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err == nil {
		err = conn.SetBPF(filter)
	}
	if err == nil {
		err = conn.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribing to changes of rules: %w", err)
	}
	return conn, nil
}

// author tells which program's transaction it was, if the kernel says so.
func author(m message) string {
	for kind, value := range m.attributes() {
		if kind == unix.NFTA_GEN_PROC_NAME {
			return string(bytes.TrimRight(value, "\x00"))
		}
	}
	return ""
}

// calm passes on what is told to it when nothing more has come for a while, once for all: a program such as firewalld makes many
// changes one after the other, and some fail if somebody else has made one in between. In a storm without end it does not wait for that.
type calm struct {
	call func(reason string)

	mu    sync.Mutex
	timer *time.Timer // nil while nothing was told
	first time.Time   // when it was begun to tell
}

const (
	quiet   = 300 * time.Millisecond
	maxWait = 3 * time.Second
)

func (c *calm) ask(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		if left := time.Until(c.first.Add(maxWait)); left > 0 {
			c.timer.Reset(min(quiet, left))
		}
		return
	}
	c.first = time.Now()
	c.timer = time.AfterFunc(quiet, func() {
		c.mu.Lock()
		c.timer = nil
		c.mu.Unlock()
		c.call(reason)
	})
}
