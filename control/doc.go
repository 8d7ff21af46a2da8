// Package control is the daemon's control socket: JSON over HTTP on a unix socket,
// for the command line and for monitoring. It tells, and changes one thing: on request it removes
// what Docker has forgotten.
//
//	GET /v1/status  a [Status]
//	GET /v1/ports   a list of [Port], never null
//	GET /v1/rules   {"text": "…"}, the rules that should be in the kernel
//	GET /v1/verify  a list of [Difference], never null: how the host differs from the state
//	GET /v1/gc      a list of [Orphan], never null: what Docker has forgotten
//	POST /v1/gc     removes it; the same list, with what became of each. It takes some seconds
//
// An error is a status other than 200 with {"error": "a sentence"}. Fields are only
// ever added under /v1; readers must let unknown ones pass. By hand:
//
//	curl --unix-socket /run/drawbridge/control.sock http://localhost/v1/ports
//
// [Server] answers from the sources that the program gives it; [Client] asks, and
// [WriteStatus], [WritePorts] and [WriteOrphans] show what it got as text.
//
// # Be aware
//
// The socket is its owner's alone (mode 0600, the owner being root): the list of what is
// exposed, and where, is not for every user of the host.
//
// docker ps shows no ports of a network of ours, because Docker asks plugins for them and then
// drops the answer. GET /v1/ports is the only place where an ephemeral
// port can be learnt.
package control
