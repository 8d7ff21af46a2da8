// Package plugin speaks Docker's plugin protocol over a unix socket: HTTP POST of a
// JSON object to /NetworkDriver.Join and its like, a JSON object back. It knows
// HTTP and knows no networking; what a call means is the business of the network
// driver and the IPAM driver, whose methods [Routes] puts into a table.
//
//	l, err := plugin.Listen("/run/docker/plugins/drawbridge.sock")
//	srv := plugin.NewServer(plugin.Routes(networks, addresses), plugin.Options{Log: log, Ready: loaded})
//	err = srv.Serve(ctx, l) // until ctx is done
//
// # What dockerd needs of a plugin
//
//   - A socket that answers from the first moment. Listen first and load the state
//     afterwards: calls wait for [Options.Ready] within their deadline. The calls that
//     carry no arguments (Activate, the capabilities, the address spaces) depend
//     on no state and do not wait; dockerd leaves a driver whose GetCapabilities failed
//     unregistered until dockerd itself is restarted.
//   - A deadline on each call: dockerd has none for a plugin found by its socket,
//     and holds the locks of the container and of the network meanwhile.
//   - No success for an empty body. After a broken connection dockerd repeats the
//     call without its arguments and takes a 200 for success.
//   - Errors as a status other than 200, with the text under "Err" (which dockerd reads
//     for both APIs) and "Error" (the IPAM API's own word). Never 404 for a call
//     that exists: for ProgramExternalConnectivity dockerd reads it as "not
//     implemented, never mind".
//   - The socket removed at the end: dockerd spends 15 seconds per call on a dead one. Or one that is there
//     all the time, because somebody else made it (systemd): [Server.Serve] takes any listener, and removes the file of none but [Listen]'s.
//
// # Be aware
//
// A handler's context is not cancelled when dockerd's connection breaks. Work once
// begun is finished, so that the repeated call, or the Delete that follows, meets one of
// two known states. It ends at the deadline, and a handler that
// overstays it has its caller answered with an error while it still runs; what it
// then does must be undone by the Delete or Leave that dockerd sends next.
package plugin
