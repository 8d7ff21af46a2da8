// Package relay keeps published ports in a process of their own, so that their sockets and the connections that are proxied outlive
// the daemon.
//
// [Server] is that process's: it wraps a [publish.Publisher] and answers on a unix socket. [Client] is the daemon's: it has the methods
// of a Publisher, which driver and reconcile call, and has a relay carry them out.
//
//	ports := relay.New(relay.Options{Socket: path, Start: relay.Spawn(path)})
//	go ports.Watch(ctx, loop.Hurry)
//
// # Who lives how long
//
// No relay runs before a port is published, or there is a file to keep ([Client.Keep]). The daemon then asks on the socket; where systemd listens there it starts
// drawbridge-relay.service, and where nobody does the daemon starts the relay itself, in a session of its own. A relay lives on when the
// daemon ends, in good order or not, for as long as it holds a socket, a connection or a file, and a minute more. [End] ends it, and
// [LetGo] has it close the file.
//
// The daemon hears at once that a relay ended, since an answer that never ends breaks off (it carries the relay's log meanwhile). It
// starts another one and tells it everything. Neither keeps anything on disk: what is published is in the daemon's state, and a relay that
// knows nothing is told all.
//
// # The conversation
//
// JSON over HTTP. The daemon opens a session; what an earlier one had reserved without having it in the state is given up then. Each
// state gets a name, and the next one is sent as what differs from it. Who does not know the name answers so, and gets the whole: after
// a start of either side, and when an answer was lost. The state of ten thousand ports is thus sent once, and not every thirty seconds.
//
// The daemon says in which families DOCKER-USER has rules. The relay asks these about clients by itself (package inquiry), so it does also
// while no daemon runs; until somebody has said anything clients wait for that, and after some seconds it asks in both. Its answer says what keeps it from asking.
//
// Modes cross resolved ([Options].Mode), since what they stand for depends on the host, which only the daemon looks at.
//
// Errors keep their words, the object that they concern ([state.ObjectError]), and the number that errors.Is looks for
// (EADDRINUSE). Each call has a deadline on the daemon's side: a relay that hangs is named, and holds nothing up.
//
// A file that it keeps it fetches from the daemon, by a socket that the call names. It does nothing with it. At a hand-over it is closed,
// and comes again from the daemon.
//
// # Another version
//
// A daemon that finds a relay of another version has it hand over. The old relay starts the daemon's program, and gives it the
// listening sockets, the sessions of UDP, the state and the control socket (SCM_RIGHTS). It then accepts nothing any more, goes on with the
// connections of TCP that it has, and ends with the last of them. The new one tells it what is not published any more, and those
// connections are cut; should the new one end, the old one does too. Nobody is refused: who connects in between waits in the queue
// of a socket that is open all the time, and so do datagrams from when the first copy is made. Under systemd the new process stays in the unit's group, and the old one names it (MAINPID).
//
// The paths of hello, upgrade and end, and the messages of a hand-over, are the same in all versions: fields are only added.
//
// # Be aware
//
//   - Only root, and the relay's own user, may ask (mode 0600 and SO_PEERCRED).
//   - Settings that change what a socket is (--iptables, --ip6tables, --userland-proxy) make all sockets anew, which cuts connections.
//   - A relay that was stopped by a signal is asked again with each call, for two seconds.
package relay
