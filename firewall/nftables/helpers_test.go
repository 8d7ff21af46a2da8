package nftables

import "net/netip"

func address(s string) netip.Addr { return netip.MustParseAddr(s) }
