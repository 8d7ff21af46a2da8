// Package effect is the seam between the daemon and what outlives it: the state file, the kernel's links, rules, sets and
// sysctls, firewalld, sockets, and the answers to the engine. Whatever changes one of these goes through [Do].
//
//	err := effect.Do("link.add", func() error { return handle.LinkAdd(link) })
//
// In the released program Do is a plain call and there is nothing else here. Built with the tag faults, each Do is a point
// at which the process can be killed, before or after the effect, or at which the effect can fail without being tried: a
// file tells which (see Plan). Tests walk all points that way, and look what a new process makes of what is left.
//
// The name of an effect says its kind, "link.add" or "store.commit", and nothing of the object: a walk counts points, and
// the name is for people who read what it counted.
package effect
