package outage

import (
	"bytes"
	"context"
	"fmt"
	"strings"
)

// client is a program that goes on until it is ended, or gives up.
type client struct {
	cancel context.CancelFunc
	ended  chan struct{}
	stderr *bytes.Buffer // to be read when ended is closed
	what   string        // it means that it has ended
}

func newClient(cancel context.CancelFunc, what string) client {
	return client{cancel: cancel, ended: make(chan struct{}), stderr: &bytes.Buffer{}, what: what}
}

// Close ends it and waits for that.
func (c client) Close() {
	c.cancel()
	<-c.ended
}

// Ended is closed when it has ended.
func (c client) Ended() <-chan struct{} { return c.ended }

// Err says how it ended.
func (c client) Err() error {
	<-c.ended
	return fmt.Errorf("%s: %s", c.what, strings.TrimSpace(c.stderr.String()))
}
