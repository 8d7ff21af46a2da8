// Package load gives one daemon more than it will ever meet, and looks whether it is the same afterwards. It is a test (build tag load,
// root) on a real engine in a throw-away host of package lab, with a daemon that was built with the race detector, and with one that was
// not, for its memory:
//
//	make test-load
//	DRAWBRIDGE_ENGINE=26.1 DRAWBRIDGE_BACKEND=nftables make test-load
//
// # What it does
//
// All at once: containers with published ports are started and stopped, eight at a time, and some of them asked from outside;
// networks are made and removed, eight at a time; two callers make the calls of dockerd for the same object in the same instant, with the same
// arguments and with different ones; and somebody asks for status, ports, rules and verify without a pause. All of that twice: with 200 containers and 100 networks (or LOAD_CONTAINERS and half as many), and then with half as many of each.
//
// # What it wants
//
//   - Every call and command succeeds, or, where two callers exclude each other, fails for one of them, within its deadline.
//   - No data race, where the race detector looks.
//   - Nothing is left: state, links, rules, sets, listening sockets, zones and the daemon's open files are as before. Its goroutines are those of
//     one that was started a moment ago and met little.
//   - The second time takes no more memory than the first one did (see growth), where no race detector takes it.
//
// The figures are printed.
package load
