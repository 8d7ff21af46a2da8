package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
)

// What tests ask the engine dozens of times is asked over its API: docker(1) costs a process, on a busy machine half a second, for each question.

// get asks the API and returns the body of the answer, which the caller closes.
func (d *Docker) get(ctx context.Context, path string) (io.ReadCloser, error) {
	t := unixsocket.Transport(d.host.Path(dockerSocket))
	t.DisableKeepAlives = true
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		said, err := io.ReadAll(res.Body)
		return nil, errors.Join(fmt.Errorf("GET %s: dockerd answers %s: %s", path, res.Status, said), err)
	}
	return res.Body, nil
}

// inspect has the API describe an object.
func (d *Docker) inspect(ctx context.Context, path string, into any) error {
	body, err := d.get(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(into)
}
