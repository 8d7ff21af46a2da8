// Package firewall says what the host's firewall has to do for the networks of a
// state: which forwarded packets are refused, which are let through, whose source is
// rewritten and where published ports lead.
//
// [Render] is a pure function from a [state.Snapshot] to a [Policy]. A Policy has no rules in
// it, only the elements that vary: subnets, published ports, the bridges of Docker's
// own driver. A backend (firewall/iptables or firewall/nftables) has a constant skeleton of rules that
// looks these elements up in kernel sets, so the number of rules that a packet meets
// does not grow with the number of networks and containers.
//
// # How packets are judged
//
// In netfilter a drop is final wherever it happens, an accept ends only its own base
// chain. From this follow the two halves of the model:
//
//   - What we forbid is dropped early, in a chain of ours that runs before
//     anybody's filter rules: Docker's and other programs' accept rules, in whichever order
//     they are inserted, cannot reopen it.
//   - What we permit is accepted where others would refuse it, in the filter
//     table's FORWARD, because Docker or an administrator may have set its policy to DROP.
//     DOCKER-USER is evaluated before, so a user's DROP there wins.
//
// A forwarded packet that belongs to an established flow passes, unless its link says that it was sent by somebody else: the kernel
// finds a flow by addresses and ports alone. The links of internal networks lead nowhere else, and a source must be of its link, as in
// 4 below. But a container on two networks answers by its default route, so that answers may come by a bridge of another network, or of
// Docker's own driver. All other packets are judged in this order:
//
//  1. Between two containers of a network that keeps them apart (enable_icc=false) only a link's ports pass, and
//     what a published port redirected. Between two containers of any other network everything does.
//  2. What belongs to no connection (INVALID) is refused on its way to a container, and on its way out where it
//     would leave untranslated.
//  3. What comes from or goes to an internal network is refused.
//  4. What comes from a container network with a source address that the network does not own is refused, and so
//     is what comes from elsewhere with one that a network owns.
//  5. What comes from no network of ours to a container's port that is limited to some sources or links is refused to all others.
//  6. To a container pass: what a published port redirected to exactly that container, protocol and port; on a routed network
//     what is published, and ICMP; from a trusted link what is published, at the container's own address;
//     and to an unprotected network everything that comes from no container network. All else is refused.
//  7. What goes to a bridge of Docker's own driver is refused, unless Docker publishes the port.
//
// The host's own connections are not forwarded. Those to a loopback address are redirected to the networks that
// Settings.Loopback names, and seem to come from the bridge. That takes route_localnet, so that what comes from a container with
// a loopback address is refused before it is routed; package link does the same once more.
//
// # Who comes to published ports, and how
//
// Containers and the host itself are translated. Clients from outside, who come by a link that is no bridge of ours and not by lo,
// are treated as [state.Modes] says for the port: translated too; or, with [Port].Inside, left to the host, with its INPUT rules
// and the sockets of package publish. With [Port].Learned they are left to it until it has let in one connection of the same client,
// by the same link, to the same address and port; for LearnedTime after that, his next ones are translated. A connection
// vouches once, when both sides have spoken: what is translated later does not renew it, nor does a connection that lasts.
// Where nobody can be noted so ([Host].NoLearning), each connection is left to the host.
//
// [Limit] says who may come to a port at all. It is asked before a destination changes, so that it holds for what is translated,
// for what a socket serves, in whichever family, and once more on the way to a container. Users' chains come before.
//
// Where sockets of the host serve published ports with the addresses of their clients (package publish), what comes from a bridge of ours
// for a transparent socket gets a bit of its mark (state.MarkDivert), by which package link has it routed to the host. It is an answer:
// nothing is let in by that, and the host's INPUT judges it as what it is, part of an established connection. A kernel without the
// match for sockets goes without ([Host].NoSocket).
//
// Where DOCKER-USER has rules, such a socket asks them about a client by a packet with a bit of the mark (state.MarkInquiry, package inquiry).
// It is translated whatever the port's mode is, and behind DOCKER-USER shown to NFLOG and dropped.
//
// Our bridges are recognised by their device group (state.GroupBridge), which a bridge
// carries from before it is up. A new network is therefore closed until its elements
// are in the sets.
//
// Where br_netfilter shows bridged packets to the firewall, those inside a network pass by their
// destination: the network's subnet, link-local or multicast. What a container sends over
// the bridge to another destination, by way of a neighbour that routes, is refused there.
package firewall
