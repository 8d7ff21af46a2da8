// Package engine tests Drawbridge as a user meets it: a real dockerd, and where a test says so a
// real firewalld, in a throw-away host of package lab, with containers and outside clients that send packets.
//
// The tests have the build tag "engine", need root and install nothing; `make test-engine` builds
// the plugin for them and names it in DRAWBRIDGE_BIN. It runs them once for each engine that
// DRAWBRIDGE_ENGINE may name: 20.10, which is that of Debian 12 and taken from the machine itself, and 26.1, with
// firewalld 2.3, in a lab whose root is Debian 13. Without it, the engine is whichever the machine has. Where engines
// differ, a test asks its bed (bed.engine) and states what each does. DRAWBRIDGE_BACKEND=nftables runs the same tests with
// that backend, in place of iptables.
package engine
