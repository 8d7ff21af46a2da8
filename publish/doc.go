// Package publish holds the sockets of published ports and runs the proxy behind
// them.
//
// Clients from outside, and local clients that use an IPv4 address or one of the host's own addresses in IPv6,
// are served by the firewall: it rewrites their packets to the container, and they
// never see a socket. A socket is held for each published port all the same, because it
//
//   - reserves the port against every other program of the host, which would
//     otherwise start without an error and never get a packet, and
//   - serves the clients that come in by the loopback interface and are not translated: by ::1, for which there is no
//     destination NAT, by 127.0.0.1 to networks where that would not be safe (link.Links.LeadsLoopback), and by both while
//     somebody has flushed the rules, and
//   - serves clients from outside where the port's mode leaves them to the host, so that its INPUT rules decide (state.Publish).
//
// # Use
//
// A driver calls [Publisher.Reserve] before it commits the ports of an endpoint to the
// state, and [Publisher.Release] when the commit fails. The reconcile loop calls
// [Publisher.Apply] with the whole state; only from then on are clients served. What connects in between
// waits in the socket's queue.
//
// # The sockets of a port
//
//	HostIP          endpoint has   sockets
//	none            v4 and v6      0.0.0.0, [::]
//	none            v4             0.0.0.0, helper [::1]
//	none            v6             [::], helper 127.0.0.1
//	0.0.0.0, v4     v4             that address
//	::, v6          v6             that address
//	0.0.0.0, v4     v6             that address, proxied for everyone
//	::, v6          v4             that address, proxied for everyone
//	127.x, ::1      any            that address
//
// SCTP has no helpers, no sockets on loopback addresses and none of the other family, see below.
//
// A host address of a family that the container has not is served as Docker does, by the proxy alone: no rule can lead from one
// family to the other. The host's INPUT rules say who gets there, and containers of internal networks are refused. In the mode localhost
// nobody but the host gets there. Only a user who names such an address gets this; a port that is
// published on all addresses is open in the families that the network has.
//
// All sockets of a port have the same number. IPv6 sockets are V6ONLY. A helper makes "localhost" work whichever
// family a client tries first: it is proxied to the family that the container has. A host
// without IPv6 goes without the helper; a helper's port that is taken is a conflict like any other.
//
// # The guard
//
// While the firewall is ours, a packet that reaches one of these sockets by any interface
// but lo came around it: in the moment before the rules exist, or after someone flushed
// them. To serve it would bypass DOCKER-USER. So a socket filter (classic BPF,
// SO_ATTACH_FILTER) is attached before bind(2) that passes what arrived by interface 1 and drops
// everything else, without an answer. Whoever else may come is let in by the first Apply that knows the port, which exchanges the filter. lo has index 1 in every network namespace
// (LOOPBACK_IFINDEX in the kernel's net/core/dev.c). The filter sees a SYN before the handshake, and accepted
// connections inherit it.
//
// The filter looks at the interface, not at addresses. A local client that uses an address of the host arrives by lo as
// well, and is served by the proxy whenever the firewall did not rewrite its packets.
//
// # Clients from outside
//
// [Options.Mode] says by which way clients from outside come to a port. In the modes host and learned they are not translated, or not at
// first: their packets pass the host's real INPUT, and the filter lets them in. In the modes dnat and localhost the guard stays. A port
// that changes its mode keeps its socket and its connections; the kernel exchanges the filter at once, and connections keep the one that they
// were accepted with. Sessions of UDP with clients from outside end with the modes host and learned: from then on the client is
// translated, or refused, and the container's answers are not for us.
//
// Containers are translated in every mode. At a socket that is there for others they show up only while somebody has flushed the rules, and
// then nothing else keeps networks apart. The filter knows interfaces by their numbers, and would have to be exchanged at each socket when a
// network comes or goes. So who bears an address of a network of ours is refused behind it: of TCP the handshake proves the
// source; a datagram may bear any, and what came by a bridge of ours is refused whatever it bears.
//
// A port's limits ([state.Exposure], From and Links) are kept by rules before a destination changes, and here once more, for what those rules do
// not see: datagrams to all of a link, to groups and to anycast addresses, what somebody leads to the socket from another port, and everything
// while the rules are gone or are gone already, since a port's rules go before its socket. A socket has its limits until it is closed.
// A client counts by the address that the socket sees, and by the link that the kernel names: of a datagram that of the datagram, of a connection
// that by which its handshake came to its end. Of a link in a VRF it is one of the two, and rules ask about both. Where the kernel names none, it is
// none that is listed. As rules do, limits ask about the first datagram of a session, and
// let alone the host itself and what comes by bridges of our networks. To a socket of IPv6 what the host sends to an address of its own
// comes by the link that has the address; so what bears the address that it was sent to is taken for the host's own, and the filter of a limited
// port drops that where it did not come by lo. Who is refused is reset, or not heard. What rules translate never comes here: there they alone keep the
// limits. Where there are no rules of ours at all, limited ports are for the host alone all the same: nothing would keep the limits at the
// containers' own addresses.
//
// The container sees the client's own address: the connection to it is made from that (IP_TRANSPARENT), and from his port too, where that is
// neither taken nor lost to others by it. With TCP the kernel can take a port for one connection alone if it is one of those that it lends to
// whoever asks for none (ip_local_port_range), since Linux 6.3; on an older one another port takes its place. Its answers are for the client,
// come by the bridge, and are led back to us by a mark (package firewall) and a routing rule (package link). It takes an ordinary connection, which
// comes from the bridge's address,
//
//   - for clients of the host itself, of our own networks and with link-local addresses, and of the other family,
//   - where the network's bridge is not the container's gateway, as far as the state tells, or the endpoint's network is internal,
//   - where the container has answered no client yet, does not answer this one within 1.5 seconds and answers us: its answers go elsewhere, for
//     example by a VPN of its own. It has then seen a SYN and no connection. For a minute nobody else waits for that. Once it has answered one, whom it
//     does not answer has no connection: it is busy, or refuses him. UDP cannot tell; there such answers are lost, as they are with translation,
//   - where something is missing: CAP_NET_ADMIN, or what [Options.Undiverted] names. That is logged once.
//
// Rules for forwarded packets that a user has (DOCKER-USER) see none of these clients. [Options.Inquirer] asks them about each, where
// [Options.Inquire] says that there are any: before the container is connected to, and before a session of UDP. Datagrams wait meanwhile, a
// few of each client. Who does not pass is reset, or not heard. The host itself is not asked about, nor is anybody where no rule leads to the
// container.
//
// With [Options.NoProxy] sockets only reserve: they are bound, and nobody is served by them but clients from outside of ports in mode
// host or learned.
//
// With [Options.ServeAll] there is no firewall of ours and the proxy serves everyone. Sockets on
// loopback addresses keep the guard even then: another program may have turned on route_localnet.
//
// # SCTP
//
// SCTP is not proxied: what would be, an association with several addresses on both sides, is nothing that a pair
// of sockets could hand on. Nor is it translated on loopback addresses. So a port of SCTP is not reached by 127.0.0.1 and ::1, cannot be published on a loopback
// address, and not at all with [Options.ServeAll]. Its sockets are bound and never listen; they need no guard.
//
// Many kernels have no SCTP sockets. Then no program of the host can have a port of it, and the Publisher alone
// keeps its endpoints apart. Where SCTP is a module, asking for the first socket loads it.
//
// # Be aware
//
//   - The container sees the bridge's gateway address as the client of proxied traffic, as it does of translated loopback
//     connections, but for clients from outside that can be shown to it.
//   - A UDP socket that bears a client's address, and a TCP one whose port the kernel does not lend, keeps other programs of the host from binding the client's port on all addresses, unless
//     they set SO_REUSEADDR.
//   - Where the host changes clients' sources on their way in (SNAT in INPUT), limits of a port count before that and after it: both addresses
//     have to be admitted.
//   - What the host sends to all of a link, or by IPv6 from one of its addresses to another, is limited as what comes by that link.
//   - With NoProxy a port whose mode becomes one that sockets serve gets another socket, and back. For the moment between another program
//     can take the port.
//   - The listening socket completes a client's handshake before the container is asked. If
//     the container refuses, the client sees a connection that is reset at once.
//   - A reservation ends when a snapshot shows its port, when Release takes it back, or when its endpoint
//     vanishes from a later snapshot than one that showed it. Reserve knows no revision, so Apply cannot tell
//     a port that is not yet in the state from one that was put in and taken out between two snapshots. A
//     driver that takes ports out of the state therefore calls Release(id, nil) after that commit.
//   - Snapshots must come in the order of their revisions.
//   - A process needs one file for each socket, one for each UDP session and two for each TCP connection; a direction in which data
//     moves, or waits for its reader, has a pipe for splice(2), two more.
//   - Peers that are gone without a word are asked after by the kernel (SO_KEEPALIVE), on both sides, and their connections end after
//     some minutes. Where the container does not read, one whose client was reset ends within a minute. Of UDP a session ends with its silence ([Options.UDPIdle]).
package publish
