// Package inquiry asks the rules for forwarded packets about a client that comes to a socket of the host.
//
// Rules that a user has in DOCKER-USER are promised to decide about clients of published ports. They see what is forwarded; a client that a
// socket serves is not, so that its own packets never come by. [Desk.Admits] therefore sends one of its own about the client:
//
//	d := inquiry.New(inquiry.Options{})
//	defer d.Close()
//	yes, err := d.Admits(ctx, state.Visit{Proto: state.TCP, Client: client, At: local, Link: index})
//
// # The packet
//
// It is what opens a connection of TCP, or an empty datagram, from the client's address to the address and port that the client used. Only
// the port of its source is another one, so that it has nothing to do with the client's connection. It arrives by the link by which the client
// came, as its own did, with a bit of the mark (state.MarkInquiry), and takes the way of all that is published: connection tracking,
// DRAWBRIDGE-USER, the limits, translation to the container, routing, and the chains of FORWARD. Packages firewall/iptables and
// firewall/nftables have rules for the bit: that it is translated whatever the port's mode is; and, behind DOCKER-USER, that it is shown to
// NFLOG and dropped. No container ever sees it, and no connection is left of it, since that is confirmed by who lets a packet out.
//
// What NFLOG shows is the answer: yes. Nothing within [Patience] is the other one.
//
// # How it arrives
//
// A program of BPF that is attached to nothing is run by the kernel for one packet (BPF_PROG_TEST_RUN). It sets the mark, and has a copy of
// the packet arrive by a link (bpf_clone_redirect). Nothing of it is on the host but while it runs. The packet has mostly been through all rules
// when the system call returns.
//
// # What it takes
//
// CAP_BPF and CAP_NET_ADMIN, and NFLOG (nfnetlink_log) with a group that no other program has. [Desk.Missing] says what is missing; nobody is
// admitted then.
//
// # Be aware
//
//   - A link that forwards nothing (net.ipv4.ip_forward) cannot be asked by: then clients that come by it are admitted. No rule sees
//     anything there, with Docker neither.
//   - Those who count packets in PREROUTING (-m recent, -m limit) see two for a client, in DOCKER-USER one.
//   - Clients with link-local addresses of IPv6 are not forwarded by the kernel, and not admitted.
//   - Who takes the bit off between PREROUTING and FORWARD (-j CONNMARK --restore-mark or -j MARK --set-mark without a mask) keeps the
//     answer from coming. Give it a mask.
//   - A sniffer at the link shows the packet.
package inquiry
