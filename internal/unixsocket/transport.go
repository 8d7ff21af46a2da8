package unixsocket

import (
	"context"
	"net"
	"net/http"
)

// Transport returns one for HTTP over the socket at path, whatever host a request names.
func Transport(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
}
