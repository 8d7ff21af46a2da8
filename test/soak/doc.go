// Package soak lets a host live through minutes of what goes wrong in years: networks and containers come and go at random, while the
// plugin and dockerd are killed and restarted, rules flushed, firewalld reloaded, links deleted and forwarding is turned off, under clients that never
// stop. It is a test (build tag engine, root) on a real engine in a throw-away host of package lab:
//
//	make soak                                   # each engine with each backend, SOAK_TIME=3m each
//	make soak SOAK_TIME=20m                     # longer
//	SOAK_SEED=42 make soak                      # what run 42 did, once more
//
// A short one is part of `make test`, with the engine and backend that DRAWBRIDGE_ENGINE and DRAWBRIDGE_BACKEND name.
//
// # What it watches
//
//   - An established connection and new ones, of an outside client, to a container that stays, in both families. The established
//     one may never be cut, unless dockerd itself ended the container: without live-restore it does so at each of its ends or starts.
//   - Probers, from outside and from a container of another network, that try what must be closed, every 20 milliseconds from the first
//     to the last: the test fails at the first success, also while all rules are flushed.
//   - What a user asked for: a command that a fault made fail is repeated, as a user would, and must succeed in the end. Every few
//     steps faults pause and every container must be reached by its port, reach the world and reach its neighbours.
//   - In the end all is removed, and of us nothing may be left: links, rules, sets, sockets, state, zones.
//
// # What can be set
//
//	SOAK_TIME      for how long things go wrong; default 45s
//	SOAK_SEED      draws the same steps again; the default is drawn, and printed
//	SOAK_PATIENCE  how long things may take to come right when faults end; default 40s, which is beyond the daemon's comparison
//	               every 30 seconds
//	SOAK_LOGS      a directory to which the logs of plugin and dockerd are written in the end
//	SOAK_FAULTS    only faults whose names have one of these words, by commas: for the search of a cause
//
// # Be aware
//
// A seed says which steps are done and how long after the beginning of each its fault comes. What the fault meets is up to the machine: a
// failure may need some runs to be met again.
package soak
