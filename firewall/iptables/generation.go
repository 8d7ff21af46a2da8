package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// generations tells the number of the host's nf_tables rules, which each transaction of anybody raises by one
// (linux/net/netfilter/nf_tables_api.c, nf_tables_commit). It does not tell of the legacy variant's.
type generations struct {
	sockets map[int]*nl.SocketHandle
}

func newGenerations() (*generations, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER) // to no group: it is the library's way to open a socket
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for nf_tables: %w", err)
	}
	return &generations{map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: s}}}, nil
}

func (g *generations) close() { g.sockets[unix.NETLINK_NETFILTER].Close() }

// current fails where the kernel has no nf_tables.
func (g *generations) current() (uint32, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.Sockets = g.sockets
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	answers, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, fmt.Errorf("asking for the generation of nf_tables: %w", err)
	}
	for _, m := range answers {
		attrs, err := nl.ParseRouteAttr(m[min(nl.SizeofNfgenmsg, len(m)):])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.NFTA_GEN_ID && len(a.Value) == 4 {
				return binary.BigEndian.Uint32(a.Value), nil
			}
		}
	}
	return 0, errors.New("nf_tables does not tell its generation")
}
