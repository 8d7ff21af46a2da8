package iptables

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// noLearning is why the host is asked about each connection: no set of ipset has a link beside an address and a port.
const noLearning = "only --firewall-backend=nftables can"

// lacks tells the host what its kernel, or iptables, cannot do of what is wanted.
func (b *Backend) lacks(ctx context.Context, variant string, w firewall.Wanted, h *firewall.Host) (err error) {
	h.NoLearning = noLearning
	if h.NoSocket, err = b.lacksSocket(ctx, variant, w); err != nil {
		return err
	}
	h.NoInquiry, err = b.lacksLog(ctx, variant, w, *h)
	return err
}

// lacksSocket reports whether the kernel or iptables lacks the match for sockets. It asks once, when the match is wanted.
func (b *Backend) lacksSocket(ctx context.Context, variant string, w firewall.Wanted) (bool, error) {
	if !w.Divert {
		return false, nil
	}
	divert := Chain{Name: chainDivert, Rules: []Rule{{Match: toTransparent, Target: "RETURN"}}}
	return b.ask(ctx, &b.socket, variant, isMissing, divert)
}

// lacksLog reports whether the kernel or iptables lacks the target that shows packets. It asks until it has it.
func (b *Backend) lacksLog(ctx context.Context, variant string, w firewall.Wanted, h firewall.Host) (bool, error) {
	if !w.Inquires(h) {
		return false, nil
	}
	forward := Chain{Name: chainForward, Rules: inquiries(false, "", Rule{Target: chainInquiry})}
	return b.ask(ctx, &b.log, variant, firewall.Never, inquiry(), forward)
}

// ask asks whether iptables takes the chains, if that is not known. One that is too slow has not answered.
func (b *Backend) ask(ctx context.Context, l *firewall.Lack, variant string, lasts func(error) bool, chains ...Chain) (bool, error) {
	err := l.Ask(func() error { return b.try(ctx, variant, Table{Name: "mangle", Chains: chains}) }, lasts)
	if err != nil && slow(ctx, err) {
		return false, errors.Join(ctx.Err(), err)
	}
	return err != nil, nil
}

// try has iptables look through a table, and change nothing. The legacy variant takes its lock for that too.
func (b *Backend) try(ctx context.Context, variant string, t Table) error {
	_, err := b.run(ctx, t.text(), program(false)+variant+"-restore", "--noflush", "--wait", lockWait, "--test")
	return err
}

// unable is what the kernel, or the program, has not and our rules cannot do without.
type unable struct {
	names []string // extensions of iptables or a type of set
	err   error    // which says so
}

func (u unable) Error() string {
	return fmt.Sprintf("the kernel or iptables lacks %s, which our rules need: load or install it; else --firewall-backend=nftables may be possible, or --iptables=false, where a proxy serves published ports",
		strings.Join(u.names, ", "))
}

// Unwrap gives the cause to errors.Is and errors.As.
func (u unable) Unwrap() error { return u.err }

// extension is how iptables of either variant names what it, or the kernel, has not. Revisions that a kernel lacks are told of where another one
// does as well, and mean nothing.
var extension = regexp.MustCompile("Extension ([A-Za-z0-9_]+) is not supported, missing kernel module|Couldn't load (?:match|target) `([A-Za-z0-9_]+)'")

// revisionZero is all that is said of a target that the kernel has not, beside a rule that it does not take for a file that is not there. No
// revision is older.
var revisionZero = regexp.MustCompile("Extension ([A-Za-z0-9_]+) revision 0 not supported, missing kernel module")

// isMissing reports whether a restore failed for something that is missing, and so will the next.
func isMissing(err error) bool {
	var missing unable
	return errors.As(nameExtensions(err), &missing)
}

// nameExtensions names what a restore failed for, if that is something missing.
func nameExtensions(err error) error {
	if err == nil {
		return nil
	}
	var names []string
	said := err.Error()
	for _, m := range extension.FindAllStringSubmatch(said, -1) {
		names = append(names, "xt_"+m[1]+m[2])
	}
	if len(names) == 0 && strings.Contains(said, "failed (No such file or directory)") {
		for _, m := range revisionZero.FindAllStringSubmatch(said, -1) {
			names = append(names, "xt_"+m[1])
		}
	}
	if len(names) == 0 {
		return err
	}
	slices.Sort(names)
	return unable{slices.Compact(names), err}
}

// failedSet says what failed of a set. If that is for its type, or for ipset as a whole, it names what is missing.
func failedSet(doing, name, setType string, err error) error {
	switch {
	case errors.Is(err, nl.IPSetError(nl.IPSET_ERR_FIND_TYPE)):
		return unable{[]string{"ip_set_" + strings.NewReplacer(":", "_", ",", "").Replace(setType)}, err}
	case noIPSet(err):
		return unable{[]string{"ip_set"}, err}
	}
	return fmt.Errorf("%s set %s: %w", doing, name, err)
}

// noIPSet reports whether an answer says that the kernel has no ipset (linux/net/netfilter/nfnetlink.c).
func noIPSet(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT)
}
