// Package driver is Docker's NetworkDriver: it turns the engine's words into desired
// state and waits until the host is equal to it.
//
// A call does three things: check what it was given, change the state in one transaction, wait
// for a reconcile pass that includes the change. It makes no kernel call and no call to
// Docker. If the pass fails for the object of the call, the transaction is undone and
// the host brought back, so that an error leaves nothing behind.
//
// # Order and repetition of calls
//
// Every call may come twice; the second changes nothing. Deleting, leaving and revoking what
// is unknown succeeds, because the engine drops such errors and forgets the object
// either way. Leave implies Revoke, DeleteEndpoint implies Leave, DeleteNetwork implies
// DeleteEndpoint for what is left. ProgramExternalConnectivity says what the ports of an
// endpoint shall be, not what to add: newer engines send it again without a Revoke
// between.
//
// What loses a published port loses the tracked connections that came in by it: the firewall
// lets established ones pass, so that a closed port would otherwise stay open for those who
// use it. The container's own connections go on, because Revoke and Leave may only move the
// role of its gateway to another network. All of them end with DeleteEndpoint, since its
// address goes to somebody else.
//
// Host ports are given back when the host has followed. If it has not, the rules may still
// lead to them, and they stay held until a later pass closes them. A call that removes nothing
// does not wait for a pass, unless something is left over from a removal before.
//
// The container's end of a veth pair is made at CreateEndpoint and handed over at Join by
// name; the engine moves it. Ports are published by ProgramExternalConnectivity alone: the port
// list in other calls is the container's, and on a container with several
// networks only one of them publishes. With Docker 28 and later there can be two, one for
// each family. Which is which is told only to the endpoint that is the IPv4 gateway alone, by
// no_proxy_6to4; the rest follows from the endpoints' addresses, and each is left with what the other one
// does not take (families.go).
//
// # Options
//
// What a user may set is in two tables, one for networks and one for endpoints, with what the commands and the
// documentation say of each. A value that makes no sense is refused, and a key that is
// almost one of them is taken for a mistake. As with Docker, an option says nothing where another one leaves it nothing to do.
//
// What depends on the host is found out once, when the network is made, and kept: whether its bridge was there, and the MTU.
package driver
