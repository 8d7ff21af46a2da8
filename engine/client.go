package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/state"
)

const (
	// askTime bounds all questions of one round to one engine, which answers from its memory.
	askTime = 10 * time.Second
	// maxBody bounds an answer. A network takes one KiB or two, and a container on it 300 bytes.
	maxBody = 32 << 20
)

// client asks one engine.
type client struct {
	path    string
	http    http.Client
	starter starter
}

// newClient makes a connection for each question anew, so that there is nothing to close.
func newClient(path, proc string) *client {
	transport := unixsocket.Transport(path)
	transport.DisableKeepAlives = true
	return &client{path: path, http: http.Client{Transport: transport}, starter: starter{proc: proc}}
}

func (c *client) get(ctx context.Context, path string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return fmt.Errorf("asking for %s: %w", path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return cause(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body := http.MaxBytesReader(nil, resp.Body, maxBody)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s with %s%s", path, resp.Status, sentence(body))
	}
	answers := json.NewDecoder(body)
	if err := answers.Decode(answer); err != nil {
		return fmt.Errorf("its answer to %s cannot be read: %w", path, cause(ctx, err))
	}
	switch _, err := answers.Token(); {
	case err == nil:
		return fmt.Errorf("its answer to %s goes on behind its end", path)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("its answer to %s cannot be read: %w", path, cause(ctx, err))
	}
	return nil
}

// sentence is what the engine says of an error, if it does.
func sentence(body io.Reader) string {
	var answer struct{ Message string }
	if json.NewDecoder(body).Decode(&answer) != nil || answer.Message == "" {
		return ""
	}
	return ": " + state.Clip(answer.Message)
}

// cause leaves out what means nothing on a unix socket.
func cause(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("it does not answer in time")
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
