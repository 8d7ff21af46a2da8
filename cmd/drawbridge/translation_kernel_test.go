//go:build kernel

package main

import (
	"net"
	"strings"
	"testing"
	"time"
)

// TestUntranslatedFlow: a sender of UDP that began while somebody had flushed the rules, and never pauses, is translated once they are
// back.
func TestUntranslatedFlow(t *testing.T) {
	h := newPublishing(t)
	h.settle()
	var client net.Conn
	h.in(func() (err error) {
		client, err = net.Dial("udp", "[fd00:1::1]:5353")
		return err
	})
	defer client.Close()
	_, source, _ := strings.Cut(client.LocalAddr().String(), "]")
	h.output("nft", "flush", "ruleset")
	var last string
	for began := time.Now(); time.Since(began) < patience; time.Sleep(20 * time.Millisecond) {
		_, _ = client.Write([]byte("x"))
		select {
		case last = <-h.peers:
			if strings.HasSuffix(last, source) { // and not by the proxy
				return
			}
		default:
		}
	}
	t.Errorf("the container never got what port %s sent, but from %q:\n%s", source, last, h.log.String())
}
