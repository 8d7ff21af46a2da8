// Package store keeps the desired state on disk: networks, endpoints, pools,
// leases and a few facts about the host, in one file of go.etcd.io/bbolt.
//
// Whoever wants to change the state passes a function to [Store.Update]. The
// function edits a [Tx]; when it returns without an error, everything that it
// changed is written in one durable commit, and only then becomes visible:
//
//	revision, err := s.Update(ctx, func(tx *store.Tx) error {
//		if _, ok := tx.Network(n.ID); ok {
//			return fmt.Errorf("network %s exists already", n.ID.Short())
//		}
//		tx.PutNetwork(n)
//		return nil
//	})
//
// When the function or the commit fails, nothing has changed, neither in memory
// nor on disk. When the function changed nothing (values equal to those that are
// there are no change) there is no commit and the revision stays.
//
// Reading never touches the disk: [Store.Snapshot] returns the state of the last
// commit for the planes, [Store.View] gives the typed access of a Tx to it.
//
// # In memory
//
// The state at a revision is an image of sorted slices that is never changed after
// it was published, so that readers need no lock and a Snapshot costs nothing. A Tx
// is that image with the changes laid over it.
//
// # On disk
//
// There is one bucket for each kind of record (networks, endpoints, pools, leases,
// retired) and a bucket meta for single values, among them the version of the
// format and the revision. All values are JSON. A changed format gets a new version
// and a [migration]; a file of a newer version is refused, because what an older
// program would drop from it cannot be brought back.
//
// bbolt believes its pages, and has no checksum over what is in them. [Open] therefore checks them first (pages.go), and meta holds a
// sum over all entries (sum.go), which each commit brings along by what it changes. What does not pass is a [Fault]; nobody
// repairs it. A new file is made under another name, so that one without content is never a new one.
//
// # Be aware
//
// The store does not validate: values come from state's Parse functions and have
// passed Validate. It keeps no references either: deleting a network leaves its
// endpoints. Only DeletePool takes the pool's leases along.
//
// When the disk fails in the very last step of a commit, no one can know whether the
// change is on it. The next commit then writes the whole state; only a crash before it
// may bring back a change that was reported as failed.
//
// A Tx must not be used after its function has returned, nor may that function call
// Update of the same store: it would wait for itself.
package store
