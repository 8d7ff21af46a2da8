// Package hostfw tells whether a firewall of the host guards what the host itself listens on, and why it says so; and whether it decides by more than
// who comes and where to.
//
// Published ports that are translated on their way in go past such a firewall, which is why the daemon's mode "auto" serves them by
// sockets where there is one. [Looker.Look] reads the rules of others and changes nothing:
//
//	l := hostfw.New(hostfw.Options{Run: process.Run, Firewalld: zones})
//	defer l.Close()
//	found, err := l.Look(ctx) // {true, "ufw is active", ""}, or with "recent" after ufw limit
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
// # By what it decides
//
// Who is translated because the host let him in a moment ago passes by the rules from then on. That is as good as to ask them only if they would say
// the same again. So of an active firewall is told what else they ask ([Finding.Beyond]). These are plain: addresses and sets of them, ports,
// protocols and what begins a connection of TCP, links, types of ICMP, marks, and of connection tracking all but counters and times. What is not known here
// is not plain, nor are a program that is asked (queue) and a set that rules fill. A rule that is not plain counts
//
//   - if packets may fare otherwise behind it than where it sends them: it accepts what would be refused, refuses what would be accepted, jumps to
//     a chain that does, or leaves one that would. One ahead of a LOG does not count, nor a limit of rejects where all that is left is dropped;
//   - if it sets a mark or fills a set, whoever asks for it;
//   - but not if it is about ICMP alone, or about what is invalid.
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
// A mark is plain, whatever rule of another hook sets it, and so is a set that a table of iptables fills elsewhere than in INPUT, or that has elements with
// limits of their own while the set as a whole has none.
//
// Programs that the kernel runs without rules (XDP, tc, filters of cgroups and sockets) are not seen. A legacy chain's policy that alone
// is changed is seen up to 25 seconds later: the kernel's numbers do not tell of it.
package hostfw
