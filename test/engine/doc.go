// Package engine tests Drawbridge as a user meets it: a real dockerd, and where a test says so a
// real firewalld, in a throw-away host of package lab, with containers and outside clients that send packets.
//
// The tests have the build tag "engine", need root and install nothing; `make test-engine` builds
// the plugin for them and names it in DRAWBRIDGE_BIN.
package engine
