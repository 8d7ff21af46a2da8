// Package vm runs what depends on the kernel on Debian 12's own, 6.1, in an emulated machine, since all other tests run on the kernel of the
// machine that they are started on. It takes a quarter of an hour, and is no part of make test:
//
//	make test-vm
//
// The machine (qemu-system-x86_64, without help from the processor, and some ten times slower for it) has this machine's files, for reading; what it writes
// goes with it. It has no network. The kernel is that of Debian's package, whose modules can be withheld: TestMissing looks at what Drawbridge says
// where one is, and what works without. TestEngine runs tests of test/engine there,
// TestKernel those of publish about the ports of clients.
package vm
