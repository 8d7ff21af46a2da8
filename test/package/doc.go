// Package debian tests the Debian package: that two builds are the same to the byte, and that dpkg installs, upgrades, removes
// and purges it on a throw-away host of package lab, with a real engine, containers and connections.
//
// The tests have the build tag "engine" and need root and git. They build the packages themselves. A lab has no systemd: there the
// maintainer scripts leave units alone, and the test starts and stops the daemon where they would.
package debian
