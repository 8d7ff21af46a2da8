package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/drawbridge-net/drawbridge/plugin"
)

// activated returns the socket that systemd has opened for this program, if it has. The file stays when the listener is closed: it is systemd's.
func activated() (net.Listener, error) {
	given, err := activation.Listeners()
	if err != nil || len(given) == 0 {
		return nil, err
	}
	if len(given) == 1 {
		if l, is := given[0].(*net.UnixListener); is {
			l.SetUnlinkOnClose(false)
			return l, nil
		}
	}
	return nil, errors.New("what systemd hands over is not one unix socket: its .socket unit is to have one line ListenStream=, with a path")
}

// listenForEngine returns the plugin's socket: systemd's, which was there before us and stays when we end, or one of our own.
func listenForEngine(path string) (net.Listener, error) {
	l, err := activated()
	if err != nil {
		return nil, usageError{err}
	}
	if l == nil {
		return plugin.Listen(path)
	}
	if at := l.Addr().String(); at != path {
		_ = l.Close()
		return nil, usageError{fmt.Errorf("systemd listens on %s for us, and --plugin-socket is %s: name the same in ListenStream= of drawbridge.socket", at, path)}
	}
	return l, nil
}
