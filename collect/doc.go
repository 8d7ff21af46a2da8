// Package collect removes what the engines of the host have forgotten.
//
// Docker drops the errors of Leave, DeleteEndpoint, DeleteNetwork and Release… and forgets the object, so that
// what is removed while the daemon is away stays in the state, with its bridge, rules, ports and addresses. The
// collector asks the engines from time to time what they know (package engine) and compares it with the state.
//
//	c := collect.New(collect.Parts{Store: st, Engines: engines, Networks: driver, Pools: ipam}, collect.Options{})
//	go c.Run(ctx)
//	orphans, err := c.List(ctx)
//
// An orphan is
//
//   - an endpoint that the engines do not know, or whose network they do not know, while its link is in no container;
//   - a network that they do not know, and no endpoint of which is in a container;
//   - an address pool of no network in the state, while no network of the engines has its subnet, whatever its driver.
//
// Ports and addresses go with their endpoint, the pools of a network with the network.
//
// # What is removed by itself
//
// Only what was an orphan in all of several rounds, for the whole of [Options.Grace] (endpoints for a minute at most); and of networks and
// pools only those that an engine was seen to know. The state remembers that, because a second
// engine on the host, with another socket, may have made them. An orphan that an engine knows again is none any more and begins anew.
//
// Nothing is removed by itself while the engines know none of the networks in the state: this is what an engine says
// that lost its data, or that runs with another data root. [Collector.Collect], by hand, removes all
// orphans without a grace period, after two rounds that are [Options.Gap] apart.
//
// # Be aware
//
// While an engine cannot be asked there are no orphans. What `driver` and `ipam` find out without
// an engine goes on: endpoints whose link is in no container, addresses that no endpoint has (their Sweep).
//
// An engine does not tell of what it is creating. Therefore what a call is at work on is no orphan, the state is looked at
// before the engines are asked, and one round is never enough.
package collect
