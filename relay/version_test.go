package relay

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/test/transcript"
)

// old is a relay of another version that cannot hand over, in front of one of this version, if there is one.
type old struct {
	protocol int
	behind   *running
	ended    context.CancelFunc
	over     atomic.Bool // it was asked to end, and does so a moment later
}

func (o *old) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case helloPath:
		respond(w, http.StatusOK, Hello{Protocol: o.protocol, Version: "old", Instance: "old", PID: os.Getpid()})
	case upgradePath:
		if o.over.Load() {
			respond(w, http.StatusServiceUnavailable, reply{Failures: failures(errOver)})
			return
		}
		respond(w, http.StatusInternalServerError, reply{Failures: failures(errors.New("this one cannot"))})
	case endPath:
		o.over.Store(true)
		o.ended()
		respond(w, http.StatusOK, reply{})
	default:
		o.behind.ServeHTTP(w, r)
	}
}

// TestCannotHandOver: a relay that cannot stays while both understand each other, and is ended, and started anew, where they do not.
func TestCannotHandOver(t *testing.T) {
	for name, row := range map[string]struct {
		protocol int
		words    string
		starts   int
	}{
		"same protocol":    {protocol, "of another version and stays", 0},
		"another protocol": {protocol + 1, "of another version and is ended, with its connections", 1},
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			l, err := unixsocket.Listen(path)
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			o := &old{protocol: row.protocol, behind: serve(t, socketPath(t), ServerOptions{}), ended: cancel}
			served := make(chan error)
			go func() { served <- unixsocket.Serve(ctx, &http.Server{Handler: o, ConnContext: whoAsks}, l, drainTime) }()
			relays := make(chan *running, 1)
			var log transcript.Text
			c := client(t, path, Options{Start: starter(t, path, relays), Log: log.Logger()})
			port := tcp(free(t))
			for range 2 {
				must(t, c.Apply(t.Context(), snapshot(endpoint("a", port))))
				if !taken(port) {
					t.Error("the port is not held")
				}
				c.drop()
			}
			if n := strings.Count(log.String(), row.words); n != 1 || len(relays) != row.starts {
				t.Errorf("started are %d, and told is %d times: %s", len(relays), n, log.String())
			}
			cancel()
			if err := <-served; err != nil && !errors.Is(err, unixsocket.ErrNotDrained) {
				t.Error(err)
			}
		})
	}
}
