// Package state is the vocabulary of Drawbridge: what a network, an endpoint,
// a published port and an address pool are, what makes each of them valid, and
// what the kernel objects made from them are called.
//
// It does no I/O, reads no clock and imports nothing of this module. Every
// other package speaks in its types:
//
//   - the driver and the IPAM driver turn Docker's words into these values,
//   - the store keeps them,
//   - the planes (link, firewall, firewalld, publish) receive a [Snapshot] and
//     make their part of the host equal to it.
//
// # Be aware
//
// A Snapshot is shared between goroutines. Its slices are sorted and must not
// be changed by those who receive it.
//
// Values enter through the Parse functions and the Validate methods. A plane may
// therefore put any name or address that it finds in a Snapshot into a rule or a
// kernel name without looking at it again.
package state
