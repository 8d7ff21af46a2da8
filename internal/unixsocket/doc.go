// Package unixsocket opens the unix sockets on which the daemon listens, and
// serves HTTP on them until it is told to end. [Transport] is the other side.
//
// Both of the daemon's sockets, the plugin's and the control socket, give whoever
// can connect the power to change the host's network. They are therefore made
// for their owner alone, and made so by the kernel in the same step as the file
// itself: there is no instant in which another user could connect.
//
// # Be aware
//
// [Listen] takes the place of a socket file that nobody serves, since a killed
// process leaves one behind and Docker waits 15 seconds per call on it. Two processes that
// start in the same instant could each find the other's file dead: the caller must keep them
// apart, as the daemon does by [Claim], taken before. A server that only stands in for another gets the listener by [Lend].
package unixsocket
