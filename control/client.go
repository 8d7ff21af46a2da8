package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
)

// ErrUnreachable says that no daemon answers on the control socket. The command line
// ends with exit code 3 for it.
var ErrUnreachable = errors.New("the daemon cannot be reached")

// Client asks the daemon. Its methods may be called concurrently.
type Client struct {
	path string
	http http.Client
}

// Dial returns a client of the control socket at path. The connection is made by each
// question anew, so that there is nothing to close.
func Dial(path string) *Client {
	transport := unixsocket.Transport(path)
	transport.DisableKeepAlives = true
	return &Client{path: path, http: http.Client{Transport: transport}}
}

// Status asks how the daemon is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.get(ctx, statusPath, &s)
	return s, err
}

// Ports asks for the published ports.
func (c *Client) Ports(ctx context.Context) ([]Port, error) {
	var ports []Port
	err := c.get(ctx, portsPath, &ports)
	return ports, err
}

// Rules asks for the firewall rules that should be in the kernel, as text.
func (c *Client) Rules(ctx context.Context) (string, error) {
	var r rules
	err := c.get(ctx, rulesPath, &r)
	return r.Text, err
}

// Verify has the host compared with the state, and asks how they differ.
func (c *Client) Verify(ctx context.Context) ([]Difference, error) {
	var found []Difference
	err := c.get(ctx, verifyPath, &found)
	return found, err
}

// Orphans asks for what Docker has forgotten.
func (c *Client) Orphans(ctx context.Context) ([]Orphan, error) {
	var out []Orphan
	err := c.get(ctx, gcPath, &out)
	return out, err
}

// Collect has it removed, and returns what became of it.
func (c *Client) Collect(ctx context.Context) ([]Orphan, error) {
	var out []Orphan
	err := c.do(ctx, http.MethodPost, gcPath, &out)
	return out, err
}

func (c *Client) get(ctx context.Context, path string, answer any) error {
	return c.do(ctx, http.MethodGet, path, answer)
}

func (c *Client) do(ctx context.Context, method, path string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://drawbridge"+path, nil)
	if err != nil {
		return fmt.Errorf("asking the daemon for %s: %w", path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body := json.NewDecoder(resp.Body)
	if resp.StatusCode == http.StatusOK {
		if err := body.Decode(answer); err != nil {
			return fmt.Errorf("the answer of the daemon at %s to %s is malformed: %w", c.path, path, err)
		}
		return nil
	}
	var f failure
	if body.Decode(&f) != nil || f.Error == "" {
		return fmt.Errorf("the daemon at %s answered %s with %s", c.path, path, resp.Status)
	}
	return errors.New(f.Error)
}

// unreachable says why there was no answer and what to do.
func (c *Client) unreachable(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err() // nobody wants to know
	case ctx.Err() != nil:
		return fmt.Errorf("%w at %s: it did not answer in time", ErrUnreachable, c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w at %s: only root may ask it", ErrUnreachable, c.path)
	}
	return fmt.Errorf("%w at %s: is `drawbridge serve` running? (%w)", ErrUnreachable, c.path, rootCause(err))
}

// rootCause leaves out the address of the request, which means nothing on a unix socket.
func rootCause(err error) error {
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next
	}
	return err
}
