// Package systemd tests the units of folder packaging, and make install and uninstall, with a real systemd, a real
// docker.service and packets, in the lab (lab.Options.Systemd): what is there after a boot and who was first, who may talk to the sockets, what
// the processes may do, and what clients notice of a restart, an upgrade, a crash and a daemon that hangs.
//
// TestLife is one host from installation to uninstallation. TestSandbox has the daemon do all that it ever does, with each backend, under
// units that are as sharp as the installed ones or sharper: a system call that their filter forbids kills the process there.
//
// TestOlder upgrades from older programs, which it builds of their source in testdata: what they wrote, told their relay and left in
// the kernel is what today's program has to do with. A source is what building takes of a commit:
//
//	git archive 9b6214a -- . ':!docs' ':!test' ':!bench' ':!tools' ':!*_test.go' ':!*/testdata/*' ':!*.md' ':!.*' | xz -9e
//
//	make build
//	DRAWBRIDGE_BIN=$PWD/bin/drawbridge go test -tags engine ./test/systemd
package systemd
