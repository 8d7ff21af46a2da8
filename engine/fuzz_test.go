package engine

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// canned answers each question with the same.
type canned struct {
	status int
	body   []byte
}

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: c.status, Status: http.StatusText(c.status), Body: io.NopCloser(bytes.NewReader(c.body))}, nil
}

// FuzzAnswers: from what is not the whole answer of an engine nothing is concluded, and people are told in one sentence.
func FuzzAnswers(f *testing.F) {
	for _, body := range []string{version, networks, inspected, `{"message":"a\nb"}`, "null", "[]", "[null]", `[{"Id":""}]`, `{"Id":"` + string(web) + `","Containers":null}`, networks[:90], "{}{}"} {
		f.Add(http.StatusOK, []byte(body))
		f.Add(http.StatusNotFound, []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		c := client{path: "/run/docker.sock", http: http.Client{Transport: canned{status, body}}}
		ctx := context.Background()
		failed := func(err error) bool {
			if err != nil && (strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 600) {
				t.Errorf("error is not one sentence: %q", err)
			}
			if err == nil && status != http.StatusOK {
				t.Errorf("status %d is success", status)
			}
			return err != nil
		}
		failed(c.checkEngine(ctx))
		if list, err := c.networks(ctx); !failed(err) {
			if list == nil {
				t.Errorf("%q is a list of networks", body)
			}
			for _, n := range list {
				if n.ID == "" {
					t.Errorf("%q has a network without id", body)
				}
			}
		}
		if endpoints, err := c.endpoints(ctx, web); !failed(err) {
			if !bytes.Contains(body, []byte(web)) {
				t.Errorf("%q is about network web", body)
			}
			for _, e := range endpoints {
				if e == state.EndpointID("") && !bytes.Contains(body, []byte(looseEndpoint)) {
					t.Errorf("%q names an endpoint without id", body)
				}
			}
		}
	})
}
