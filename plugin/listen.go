package plugin

import (
	"net"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
)

// Listen opens the plugin's socket at an absolute path, usually
// /run/docker/plugins/drawbridge.sock. It creates the folder, takes the place of a
// socket that nobody serves, and refuses if another process serves it or if something
// other than a socket is in the way. The file has mode 0600 from its first moment.
func Listen(path string) (net.Listener, error) { return unixsocket.Listen(path) }
