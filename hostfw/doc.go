// Package hostfw tells whether a firewall of the host guards what the host itself listens on, and why it says so.
//
// Published ports that are translated on their way in go past such a firewall, which is why the daemon's mode "auto" serves them by
// sockets where there is one. [Looker.Look] reads the rules of others and changes nothing:
//
//	l := hostfw.New(hostfw.Options{Run: process.Run, Firewalld: zones})
//	defer l.Close()
//	found, err := l.Look(ctx) // {true, "ufw is active"}
//
// # What counts
//
//   - firewalld runs, whatever its zones say.
//   - A chain that packets for the host itself come to may refuse some of them: by its policy or by a rule, in the chain
//     or in one to which it jumps, at once or by way of a verdict map. Such are the INPUT chains of iptables, nft and legacy variant alike, and each chain
//     of nftables with type filter and hook input, of the families ip, ip6 and inet. To drop, to reject, to hand to a program (queue) and whatever
//     is unknown here is to refuse. Which packets a rule is for, and whether one before it accepts them all, is not looked at.
//
// A host that is taken for guarded and is not loses some speed; one that is taken for open and is not is opened. So all doubts are decided
// for "active", and these alone do not count:
//
//   - what is ours: the tables drawbridge and drawbridge-latch, chains DRAWBRIDGE*; and Docker's own: the table docker-bridges, chains DOCKER*.
//     Chains that those two call and users fill (DRAWBRIDGE-USER, DOCKER-USER) do count if INPUT leads to them;
//   - what a rule does to packets of the connection tracking's state "invalid" and to no others, which is good housekeeping without a
//     firewall too;
//   - chains at other hooks. PREROUTING, ingress and the like come before translation, so that published ports obey them anyway.
//
// # What is read, and when
//
// nftables, and with it iptables-nft, is read by netlink. Legacy iptables is read by its own program, if the kernel has a table of it: to
// look for one that is not there would make it. A Looker remembers what it read: until nftables' generation has moved, or the numbers and
// sizes of legacy rules, it reads nothing again. Nobody tells of changes of legacy rules: [Looker.Watch] looks for them. Of the others the
// daemon hears by watches that it has anyway (nftables.Watch, firewalld's Plane.Watch), and calls Look then.
//
// # Be aware
//
// Programs that the kernel runs without rules (XDP, tc, filters of cgroups and sockets) are not seen. A legacy chain's policy that alone
// is changed is seen up to 25 seconds later: the kernel's numbers do not tell of it.
package hostfw
