//go:build load

package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
)

// object is one of JSON's.
type object = map[string]any

// caller asks on a unix socket, as docker asks the engine and the engine asks the plugin. A process for each request
// would cost more than the request.
type caller struct{ http *http.Client }

func dial(socket string) caller {
	transport := unixsocket.Transport(socket)
	transport.MaxIdleConnsPerHost = atOnce
	return caller{&http.Client{Transport: transport}}
}

func (c caller) close() { c.http.CloseIdleConnections() }

// refusal is an answer that says no. Any other error means that there was none.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

func (c caller) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://socket"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = refusal{fmt.Sprintf("%s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(said))}
	}
	return said, err
}
