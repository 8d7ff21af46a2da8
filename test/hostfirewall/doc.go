// Package hostfirewall sets up the firewalls that hosts have, in a lab, by what an administrator types: ufw, firewalld, iptables of both
// variants, nft. It is for tests that compare: what a firewall lets through to an ordinary process of the host it must let through to a published
// port, and nothing else.
//
//	for _, f := range hostfirewall.All() {
//		h := lab.Up(t, f.Options)                    // and its links and clients
//		err := f.Start(ctx, h)                       // from outside nothing new comes in
//		err = f.Allow(ctx, h, hostfirewall.Rule{Proto: "tcp", Port: 8080, From: client})
//		err = f.Deny(ctx, h, hostfirewall.Rule{Proto: "tcp", Port: 8080, Link: "ext1"})
//		err = f.Reset(ctx, h)                        // as after Start
//	}
//
// Admits says what a list of rules means. [DrawUFW] and [DrawFirewalld] draw whole configurations, of which nobody says what they mean: there
// the ordinary process is the measure.
//
// # Be aware
//
// The host has the links ext0 and ext1 when Start is called: firewalld puts each into a zone of its own.
package hostfirewall
