package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Route is one call of the protocol: its path and what answers it. Routes are made by
// [Routes].
type Route struct {
	// Path of the URL, such as /NetworkDriver.Join.
	Path string

	// handle gets the request's body and returns the reply's.
	handle func(ctx context.Context, body []byte) ([]byte, error)
	// early calls depend on no state and are answered before it is loaded.
	early bool
}

// name is how users and Docker's documentation call it: NetworkDriver.Join.
func (r Route) name() string { return strings.TrimPrefix(r.Path, "/") }

// call adapts a method with arguments and an answer.
func call[Req, Resp any](path string, method func(context.Context, *Req) (*Resp, error)) Route {
	return Route{Path: path, handle: func(ctx context.Context, body []byte) ([]byte, error) {
		req := new(Req)
		if err := decode(path, body, req); err != nil {
			return nil, err
		}
		return encode(method(ctx, req))
	}}
}

// callNoReply adapts a method with arguments that answers with success or failure only.
func callNoReply[Req any](path string, method func(context.Context, *Req) error) Route {
	return call(path, func(ctx context.Context, req *Req) (*struct{}, error) {
		return nil, method(ctx, req)
	})
}

// ask adapts a method without arguments; dockerd sends these with an empty body.
func ask[Resp any](path string, method func(context.Context) (*Resp, error)) Route {
	return Route{Path: path, early: true, handle: func(ctx context.Context, _ []byte) ([]byte, error) {
		return encode(method(ctx))
	}}
}

// manifest answers Activate: both APIs are on this one socket.
type manifest struct{ Implements []string }

// activate is the handshake with which dockerd learns what a socket offers.
func activate() Route {
	return ask("/Plugin.Activate", func(context.Context) (*manifest, error) {
		return &manifest{Implements: []string{"NetworkDriver", "IpamDriver"}}, nil
	})
}

// encode turns what a method returned into the reply's body; nil becomes {}, since
// dockerd decodes the body of every success.
func encode[Resp any](resp *Resp, err error) ([]byte, error) {
	switch {
	case err != nil:
		return nil, err
	case resp == nil:
		return []byte("{}"), nil
	}
	body, err := json.Marshal(resp)
	if err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	return body, nil
}
