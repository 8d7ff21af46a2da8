// Package managed tests Drawbridge as a plugin that the engine itself runs (docker plugin create, install, upgrade): a
// real dockerd, a real firewalld and a real registry in a throw-away host of package lab.
//
// The tests have the build tag "engine" and need root. `make test-engine` builds the plugin for them (make plugin) and names its
// directory in DRAWBRIDGE_PLUGIN; DRAWBRIDGE_ENGINE and DRAWBRIDGE_BACKEND are those of package test/engine. What is the same
// however the daemon is run is tested there; here is what a container of the engine's makes different: mounts, capabilities, the end of
// all processes with the daemon, names with a tag, and what the engine does to plugins.
package managed
