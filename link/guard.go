package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// With route_localnet the kernel takes packets for 127.0.0.0/8 from a bridge's ports too. A rule of the firewall keeps
// containers from sending such packets, until somebody flushes the rules. So each port has a guard that no flush removes: a
// filter of traffic control, which drops them where they enter the host.
//
// It stands at the ports and not at the bridge: where br_netfilter is on, the answer in a translated connection has its
// destination 127.0.0.1 back before the bridge itself receives it.
//
// The program is classic BPF, for which the kernel asks no privilege beyond that of making links.

// guardHandle is how we know the filter again among others of its priority.
const guardHandle = 0xd0c

// guardInfo says that the filter is the first, since each one may end the search, and for packets of every protocol.
var guardInfo = 1<<16 | uint32(htons(unix.ETH_P_ALL))

// clsactParent is the classifier's place for what arrives, clsactHandle that of both directions (linux/pkt_sched.h). Behind
// the older kind "ingress" it is the same.
const (
	clsactHandle = 0xffff0000
	clsactParent = 0xfffffff2
)

// guardProgram drops what has an address of 127.0.0.0/8, of IPv4 or of ARP, as the kernel does by itself without
// route_localnet. The first VLAN tag is off before the program runs. A second one is looked through: the kernel takes off
// tags that name no VLAN, and a bridge the one of its own. A third is nobody's.
var guardProgram = []bpf.Instruction{
	bpf.LoadConstant{Dst: bpf.RegX, Val: 0},
	bpf.LoadExtension{Num: bpf.ExtProto},
	bpf.JumpIf{Val: unix.ETH_P_IP, SkipTrue: 9},
	bpf.JumpIf{Val: unix.ETH_P_ARP, SkipTrue: 12},
	bpf.JumpIf{Val: unix.ETH_P_8021Q, SkipTrue: 1},
	bpf.JumpIf{Val: unix.ETH_P_8021AD, SkipFalse: 15},

	bpf.LoadConstant{Dst: bpf.RegX, Val: 4}, // the length of the tag
	bpf.LoadAbsolute{Off: netOffset + 2, Size: 2},
	bpf.JumpIf{Val: unix.ETH_P_IP, SkipTrue: 3},
	bpf.JumpIf{Val: unix.ETH_P_ARP, SkipTrue: 6},
	bpf.JumpIf{Val: unix.ETH_P_8021Q, SkipTrue: 9},
	bpf.JumpIf{Val: unix.ETH_P_8021AD, SkipTrue: 8, SkipFalse: 9},

	bpf.LoadIndirect{Off: netOffset + 12, Size: 1}, // IPv4's source
	bpf.JumpIf{Val: 127, SkipTrue: 6},
	bpf.LoadIndirect{Off: netOffset + 16, Size: 1}, // and destination
	bpf.JumpIf{Val: 127, SkipTrue: 4, SkipFalse: 5},

	bpf.LoadIndirect{Off: netOffset + 14, Size: 1}, // who asks by ARP
	bpf.JumpIf{Val: 127, SkipTrue: 2},
	bpf.LoadIndirect{Off: netOffset + 24, Size: 1}, // and for whom
	bpf.JumpIf{Val: 127, SkipFalse: 1},

	bpf.RetConstant{Val: 2},         // TC_ACT_SHOT
	bpf.RetConstant{Val: 1<<32 - 1}, // TC_ACT_UNSPEC: others decide
}

// netOffset is where the network header begins: the classifier runs with the Ethernet header in front (linux/net/sched/cls_bpf.c).
// To count from the network header itself (SKF_NET_OFF) would not do: kernels before 6.16 load nothing that way from a packet
// whose data is in pages, as a container can send it, and a load that fails lets the packet pass.
const netOffset = 14

// guardCode is the program as the kernel takes it and shows it again.
var guardCode = func() []byte {
	raw, err := bpf.Assemble(guardProgram)
	if err != nil {
		panic(err)
	}
	var out []byte
	for _, r := range raw {
		out = binary.NativeEndian.AppendUint16(out, r.Op)
		out = binary.NativeEndian.AppendUint32(append(out, r.Jt, r.Jf), r.K)
	}
	return out
}()

func htons(n uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)) }

// bpfClassifier is the kind of the filter, which kernels with CONFIG_NET_CLS_BPF have.
const bpfClassifier = "bpf"

// guard makes sure of the guard of a bridge port. Filters of others stay where they are.
func (l *Links) guard(port netlink.Link) error {
	if l.guarded(port) {
		return nil
	}
	err := l.addGuard(port)
	switch {
	case errors.Is(err, unix.ENODEV): // the link is gone
		return nil
	case err != nil:
		return fmt.Errorf("the kernel takes no filter (%s) at the links of containers: %w", l.classifier, err)
	}
	l.journal.noteOpen(port.Attrs().Name, "bridge port %s has no guard against packets of loopback addresses", port.Attrs().Name)
	return nil
}

// addGuard puts the guard there, over one that is not as it should be.
func (l *Links) addGuard(port netlink.Link) error {
	qdisc := l.traffic(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, port)
	qdisc.msg.Handle, qdisc.msg.Parent = clsactHandle, netlink.HANDLE_CLSACT
	qdisc.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("clsact")))
	if err := l.journal.execute("guard.place", qdisc.NetlinkRequest); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	filter := l.traffic(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_ACK, port)
	filter.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(l.classifier)))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_BPF_OPS_LEN, binary.NativeEndian.AppendUint16(nil, uint16(len(guardProgram))))
	options.AddRtAttr(nl.TCA_BPF_OPS, guardCode)
	options.AddRtAttr(nl.TCA_BPF_FLAGS, nl.Uint32Attr(nl.TCA_BPF_FLAG_ACT_DIRECT))
	filter.AddData(options)
	return l.journal.execute("guard.add", filter.NetlinkRequest)
}

// guarded reports whether the guard is there, with our program.
func (l *Links) guarded(port netlink.Link) bool {
	filters, err := l.traffic(unix.RTM_GETTFILTER, unix.NLM_F_ACK, port).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWTFILTER)
	if err != nil || len(filters) != 1 || len(filters[0]) < nl.SizeofTcMsg {
		return false
	}
	options := first(filters[0][nl.SizeofTcMsg:], nl.TCA_OPTIONS)
	return bytes.Equal(first(options, nl.TCA_BPF_OPS), guardCode) && bytes.Equal(first(options, nl.TCA_BPF_FLAGS), nl.Uint32Attr(nl.TCA_BPF_FLAG_ACT_DIRECT))
}

// trafficRequest is one to the kernel's traffic control.
type trafficRequest struct {
	*nl.NetlinkRequest
	msg *nl.TcMsg
}

// traffic returns a request about the guard of a link.
func (l *Links) traffic(kind, flags int, port netlink.Link) trafficRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = l.ports
	msg := &nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(port.Attrs().Index),
		Handle: guardHandle, Parent: clsactParent, Info: guardInfo,
	}
	req.AddData(msg)
	return trafficRequest{req, msg}
}
