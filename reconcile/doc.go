// Package reconcile makes the host equal to the desired state, again and again.
//
// A [Loop] takes the whole state as one snapshot and hands it to its planes one after
// the other: a pass. A pass runs at the start, when someone asks for it (Trigger, Wait),
// at every Interval, and some time after a pass that failed. A restart of the daemon, a
// reload of the firewall, rules that someone deleted and a change of the state are thus
// the same event.
//
//	loop := reconcile.New(store, []reconcile.Step{
//		{Name: "link", Plane: links},
//		{Name: "firewall", Plane: rules},
//	}, reconcile.Options{Log: log})
//	go loop.Run(ctx)
//
//	revision, err := store.Update(ctx, change)
//	err = loop.Wait(ctx, revision, state.Scope{Network: id}) // the host is as the change wants it
//
// # What a pass looks at
//
// A pass that was asked for by Wait alone, after one in which nothing failed, has a [Follower] do only what
// the state has changed. Every other pass looks at the whole host: that after a Trigger, a Check or a failure, and those due by time.
//
// # Failures
//
// A plane reports what concerns a single network or endpoint as *[state.ObjectError]
// and goes on; the pass goes on too, and only those who wait for that object see the
// error. Any other error ends the pass: the steps after it do not run. Order the
// steps so that the one which lets traffic through comes last, and a host whose
// firewall could not be written stays closed.
//
// After a failed pass the next one comes after a second, then two, and so on up to a
// minute, until one succeeds. Whoever asks does not wait for that.
//
// # Who shares a pass
//
// All requests made before a pass begins are served by it. A Wait that comes while a pass
// runs joins it if the pass works on a snapshot that is new enough; a Trigger that
// comes while a pass runs always makes another one follow, because what it reports
// may have happened behind the pass's back.
//
// # Repairs
//
// A [Mender] says what it mended. What of it the state had not changed since the host was last equal to it, somebody else did, and
// it is logged. Who undoes the same repair again and again waits for the next one, longer each time: in such a truce the loop looks at
// the host first when a Trigger or a Glance comes, and makes no pass where nothing else differs. Wait, Hurry and the passes due by
// time do not ask. [Loop.Inspect] looks and changes nothing.
//
// # Be aware
//
// Planes run in the goroutine of Run, one at a time. One that does not return when
// its context ends holds up everything; Wait still returns with its own context.
package reconcile
