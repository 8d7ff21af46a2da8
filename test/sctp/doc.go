// Package sctp speaks as much SCTP (RFC 9260) as it takes to see where a packet goes and where it seems to
// come from: one INIT and one INIT ACK. It does so over raw sockets, since many kernels have no SCTP
// of their own; it needs CAP_NET_RAW.
//
// # Be aware
//
//   - A port that nobody serves answers nothing as long as anybody in the network namespace has a raw
//     socket for SCTP. Otherwise its kernel says that it does not know the protocol, which is
//     ECONNREFUSED here.
//   - A kernel that has SCTP itself answers with an ABORT of its own, since it knows of no raw sockets. It is
//     not listened to.
//   - An ICMP error names no port that the kernel would look at: it reaches every Conn with the same two addresses.
//   - An answer leaves from the address that the kernel chooses. Where there are several, bind one.
package sctp
