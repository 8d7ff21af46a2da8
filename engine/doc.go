// Package engine asks the Docker engines of a host what they know, over their API.
//
//	engines := engine.New([]string{"/run/docker.sock"}, "/proc")
//	known, err := engines.Ask(ctx, []state.NetworkID{id})
//
// It reads three things: /version, to be sure that an engine answers; /networks; and
// /networks/<id> of the networks whose endpoints are wanted. The paths name no version, so that each engine
// answers in its own words, of which few are needed and have been the same since Docker 1.10.
//
// What an engine knows of a network is told by the network's id. Its driver's name is not looked at: it is
// drawbridge, or whatever tag or alias a managed plugin was installed by.
//
// # Be aware
//
// Never ask from a driver call: dockerd waits for the plugin, which would wait for dockerd.
//
// Where several engines are given, each must answer, or nothing is known. An answer that is
// malformed, cut short or larger than [maxBody] is none. Of networks that
// are being created or deleted an engine may not tell, so that what is missing from one answer means little.
//
// A socket on which systemd listens until somebody connects (docker.socket) is left alone while no
// engine serves it: a question would start the engine that somebody stopped.
package engine
