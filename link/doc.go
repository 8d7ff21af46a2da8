// Package link makes the host's links equal to the state: a bridge for each network, a veth
// pair for each endpoint, their addresses, and the few sysctls that they need.
//
// It is two planes, because a link must not be up before the firewall knows it:
// [Links.Prepare] creates, changes and removes links and leaves new bridges down;
// [Links.Activate], which runs after the firewall, brings them up and turns on the host's
// forwarding where the state says that this is ours to do.
//
// # What is ours
//
// A link is ours if it has one of our device groups and an alias of ours. The group
// alone is enough where the alias is missing, as after a crash between the two. Links that
// are ours and not in the state are removed; no other link is touched, not even one
// that has the name which a network wants. A link of the state whose alias somebody
// changed is known by its name and MAC address, and gets it back (mark.go).
//
// # What a pass looks at
//
// Apply looks at all links of the host, Follow at those of the objects that differ from the state before. Links that are
// removed are doomed: they go down at once, and are deleted together a moment later (reap.go).
//
// # What somebody else does
//
// [Links.Watch] hears of it from the kernel, and [Links.WatchSettings] reads sysctls, of which the kernel tells nobody. Neither tells of our own work: passes
// note how they leave links and settings (settled.go, switches.go).
//
// # Loopback
//
// Bridges are opened for the host's loopback addresses (route_localnet), so that connections to 127.0.0.1 can be translated. First,
// each of their ports gets a filter that drops packets of these addresses which a container sends (guard.go).
//
// # Answers to the host's sockets
//
// Where the host's sockets show containers the addresses of their clients (package publish), what containers answer is for somebody else
// and marked. A routing rule for each such bridge and one table lead it to the host (divert.go). They are known by their number of
// protocol. Rules of others in the same table stay.
//
// # Be aware
//
// The container's end of a veth pair belongs to the engine from Join on: it moves it
// into the container, and back under its old name at Leave. The pair is removed with the
// endpoint, by its host's end.
//
// A pair that vanishes while its container runs was deleted by somebody: it is made again, with all that the engine had set
// (rewire.go). That the container runs is told by its network namespace, which is opened by the path that Join named, at that moment. Where it
// is gone, or CAP_SYS_ADMIN is missing, the endpoint stays without a link until the container is restarted or the endpoint is
// removed. What cannot be known is not brought back: link-local addresses given by the user (--link-local-ip) and sysctls of
// single links. A container of several networks goes out as it did when a pass last looked at the whole host. Where none has, as with
// a daemon that was started later, the link that publishes becomes the way out in the families in which there is none, or else any of those lost.
//
// On the bridge of an IPv4-only network IPv6 is switched off, so that containers have no
// way to the host by link-local addresses that nobody asked for.
package link
