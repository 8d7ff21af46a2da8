package nftables

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// editor is the kernel as a Backend uses it.
type editor interface {
	generation() (uint32, error)
	read() (*held, error)
	commit(generation uint32, edits []edit) (took time.Duration, err error)
	check(edits []edit) error
	// hasElements reports whether a set of our table has any; one that is not there has none.
	hasElements(set string) (bool, error)
	dockerBridges() ([]string, error)
	dockerTable() (bool, error)
	close()
}

// Neighbour is iptables beside nftables: its FORWARD chain may refuse what we permit, and Docker and users have
// rules there. iptables.Marked is one, made with MarkPermitted.
type Neighbour interface {
	// Read looks at the rules, and returns what those of others tell. It is false where
	// there is no iptables: then nothing else is called but Purge.
	Read(ctx context.Context) (o firewall.Others, installed bool, err error)
	// Write makes iptables accept what carries the mark. Without a Read since the last Write it
	// writes only what another policy changed. It says what of the rules somebody else had changed.
	Write(ctx context.Context, p firewall.Policy) (mended []string, err error)
	// Inspect returns what Read does, and what compares the rules with those of a policy. It is no Read to Write.
	Inspect(ctx context.Context) (o firewall.Others, installed bool, compare func(firewall.Policy) ([]string, error), err error)
	// Rules returns the rules of a policy as text.
	Rules(p firewall.Policy) string
	// Purge removes every rule of ours.
	Purge(ctx context.Context) error
}

// Backend applies policies with nftables.
type Backend struct {
	// Committed, if set, is told of each transaction how long the kernel took for it: from when it was sent to the answer.
	Committed func(took time.Duration)

	// mu is held by each method that uses what follows: ForgetLearned is called by another goroutine than the others.
	mu        sync.Mutex
	kernel    editor
	neighbour Neighbour
	host      firewall.HostReader
	list      firewall.Bridges
	now       func() time.Time

	// gen is the generation of the host's rules at which the table was as have says; known is false until it was
	// read, and after a failure. have returns nil where there is no table. It renders again what was written: that is
	// seldom needed and would take more memory than all else.
	gen   uint32
	known bool
	have  func() *held
	// made says that the table, and what iptables was told, is what the last Sync or Follow was asked for.
	made bool
	// fresh says that the table was read, and not written since then: what differs is somebody else's doing.
	fresh bool
	// partly says that of several transactions only the first were made, so that what differs may be our own doing.
	partly bool
	// looked is when the rules of others were last read: others is what they tell, alone says that
	// there is no iptables.
	looked time.Time
	// suspect says that somebody knows them to have changed.
	suspect atomic.Bool
	others  firewall.Others
	alone   atomic.Bool
	// present are the host's bridges as last listed, unsettled until when there may be rules to come for them.
	present   []string
	seen      firewall.Host // what the last Sync found
	unlisted  error
	unsettled time.Time
	// socket are the rules that look for sockets, learning those that note who was let in, and log those that show packets: the kernel may not
	// take them.
	socket, learning, log firewall.Lack
}

// attempts is how often a change is tried anew when somebody changed rules between our reading and our writing.
const attempts = 5

// lookInterval is how long the rules of iptables are taken for unchanged while nftables' generation is: its legacy
// variant has none. It is just below the interval of the loop, so that each pass which was due by time looks.
const lookInterval = 25 * time.Second

// settling is how long dockerd may take to write its rules for a bridge that it made. Until then they are looked for with
// each pass: the generation does not tell of those in legacy iptables.
const settling = 5 * time.Second

// New returns a backend for the current network namespace that looks for Docker's bridges among bridges. Sync must
// not be called concurrently.
func New(neighbour Neighbour, bridges firewall.Bridges) (*Backend, error) {
	k, err := newKernel(tableName, 0)
	if err != nil {
		return nil, err
	}
	return newBackend(k, neighbour, bridges), nil
}

func newBackend(k editor, neighbour Neighbour, bridges firewall.Bridges) *Backend {
	b := &Backend{kernel: k, neighbour: neighbour, list: bridges, now: time.Now}
	b.host = firewall.NewHostReader(func() ([]string, error) { return b.present, b.unlisted })
	return b
}

// Close gives back what New opened. No other method may be called afterwards.
func (b *Backend) Close() { b.kernel.close() }

// Sync implements firewall.Backend.
func (b *Backend) Sync(ctx context.Context, w firewall.Wanted) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole(ctx, w)
}

func (b *Backend) whole(ctx context.Context, w firewall.Wanted) error {
	var err error
	for range attempts {
		if err = b.sync(ctx, w); !errors.Is(err, errChanged) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// Follow implements firewall.Backend: it asks for the generation, and for more only where that has changed.
func (b *Backend) Follow(ctx context.Context, w firewall.Wanted) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	gen, err := b.kernel.generation()
	if err != nil || !b.known || gen != b.gen || b.looked.IsZero() {
		return b.whole(ctx, w)
	}
	if err := b.write(ctx, w, false); !errors.Is(err, errChanged) {
		return err
	}
	return b.whole(ctx, w)
}

func (b *Backend) sync(ctx context.Context, w firewall.Wanted) error {
	around, err := b.look(ctx)
	if err != nil {
		return err
	}
	b.seen = b.host.Read(b.others)
	return b.write(ctx, w, around)
}

// write writes what differs. It closes before it opens: what is refused and where ports lead is one transaction, or a few (inOrder), and what
// iptables must accept comes after it. around says that the rules of iptables were read, which may be others than were
// left there.
func (b *Backend) write(ctx context.Context, w firewall.Wanted, around bool) error {
	b.lacks(w, &b.seen)
	change, ok := firewall.Change{}, false
	if b.known && b.made && w.Change != nil {
		change, ok = w.Change(b.seen)
	}
	b.made = false
	if ok && !around {
		err := b.apply(elementsOf(change), w)
		b.made = err == nil
		return err
	}
	policy := w.Policy(b.seen)
	edits := elementsOf(change)
	var before *held // what somebody else may have changed
	if !ok {
		have := b.have()
		edits = difference(have, Render(policy, b.alone.Load()))
		if b.fresh && len(edits) > 0 {
			before = have
		}
	}
	err := b.apply(edits, w)
	var mended []string
	if err == nil && !b.alone.Load() {
		mended, err = b.neighbour.Write(ctx, policy)
	}
	if b.made = err == nil; b.made {
		b.report(w, len(edits) > 0 && b.fresh, before, mended)
		b.fresh = false
	}
	return err
}

// report tells what somebody else had changed in the table, if it was read, and in iptables.
func (b *Backend) report(w firewall.Wanted, read bool, before *held, mended []string) {
	if !read && len(mended) == 0 {
		return
	}
	w.Report(func(last firewall.Policy) []string {
		if !read {
			return mended
		}
		return append(words(tableName, before, Render(last, b.alone.Load())), mended...)
	})
}

// Inspect implements firewall.Backend.
func (b *Backend) Inspect(ctx context.Context, w firewall.Wanted) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	others, installed, compare, err := b.neighbour.Inspect(ctx)
	if err != nil {
		return nil, err
	}
	bridges, err := b.kernel.dockerBridges()
	if err != nil {
		return nil, err
	}
	have, err := b.kernel.read()
	if err != nil {
		return nil, err
	}
	b.listBridges()
	others.Bridges = append(others.Bridges, bridges...)
	host := b.host.Read(others)
	b.lacks(w, &host)
	policy := w.Policy(host)
	out := words(tableName, have, Render(policy, !installed))
	if !installed {
		return out, nil
	}
	more, err := compare(policy)
	return append(out, more...), err
}

// look reads what may have changed since the last look, and reports whether it read the rules of others.
func (b *Backend) look(ctx context.Context) (around bool, err error) {
	gen, err := b.kernel.generation()
	if err != nil {
		return false, err
	}
	b.listBridges()
	changed := !b.known || gen != b.gen
	if changed {
		if err := b.reread(gen); err != nil {
			return false, err
		}
	}
	if b.suspect.Swap(false) || changed || b.now().Before(b.unsettled) || b.now().Sub(b.looked) >= lookInterval {
		return true, b.lookAround(ctx)
	}
	return false, nil
}

// Suspect has the next Sync read the rules of iptables, which the generation does not tell of if they are the legacy variant's.
func (b *Backend) Suspect() { b.suspect.Store(true) }

// listBridges lists the host's bridges, and notes when one came or went.
func (b *Backend) listBridges() {
	present, err := b.list()
	slices.Sort(present)
	if err == nil && !slices.Equal(present, b.present) {
		b.unsettled = b.now().Add(settling)
	}
	b.present, b.unlisted = present, err
}

// reread reads the table, all of it at one generation.
func (b *Backend) reread(gen uint32) error {
	b.known, b.made = false, false
	have, failed := b.kernel.read()
	after, err := b.kernel.generation()
	if err != nil {
		return err
	}
	if after != gen {
		return errChanged // which may be why it failed
	}
	if failed != nil {
		return failed
	}
	b.have, b.gen, b.known, b.fresh = func() *held { return have }, gen, true, !b.partly
	return nil
}

// lookAround reads the rules of others.
func (b *Backend) lookAround(ctx context.Context) error {
	b.looked = time.Time{}
	others, installed, err := b.neighbour.Read(ctx)
	if err != nil {
		return err
	}
	more, err := b.kernel.dockerBridges()
	if err != nil {
		return err
	}
	others.Bridges = append(others.Bridges, more...)
	b.others, b.looked = others, b.now()
	if b.alone.Swap(!installed) == installed {
		b.made = false // the guard moves
	}
	return nil
}

// apply makes edits, after which the table is as wanted. The generation is then that behind our last transaction, or the kernel refused one.
func (b *Backend) apply(edits []edit, w firewall.Wanted) error {
	b.known = false
	for _, transaction := range inOrder(edits) {
		took, err := b.kernel.commit(b.gen, transaction)
		if err != nil {
			return err
		}
		if b.Committed != nil {
			b.Committed(took)
		}
		b.gen, b.partly = next(b.gen), true
	}
	b.known, b.partly = true, false
	host, alone := b.seen, b.alone.Load()
	b.have = func() *held { return Render(w.Policy(host), alone).holds() }
	return nil
}

// next is the generation behind another, which is never 0.
func next(gen uint32) uint32 {
	if gen++; gen == 0 {
		gen++
	}
	return gen
}

// Rules implements firewall.Backend: the table, and what iptables is told.
func (b *Backend) Rules(p firewall.Policy) string {
	text := Render(p, b.alone.Load()).Text()
	if text != "" {
		text = "# nftables\n" + text
	}
	if b.alone.Load() {
		return text
	}
	return text + b.neighbour.Rules(p)
}

// Generation returns the number of the host's nf_tables rules, which each change of anybody raises. It must not be called
// while another method runs.
func (b *Backend) Generation() (uint32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kernel.generation()
}

// Variant names the backend, for people.
func (b *Backend) Variant() string { return "nftables" }

var _ firewall.Backend = (*Backend)(nil)
