package nftables

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// dockerTable is Docker's own, in the families ip and ip6; dockerMap has the bridges of its networks as keys.
const (
	dockerTable = "docker-bridges"
	dockerMap   = "filter-forward-in-jumps"
)

// dockerBridges returns the bridges that Docker's own nftables rules name.
func (k *kernel) dockerBridges() ([]string, error) {
	var out []string
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		elements, err := k.elements(family, dockerTable, dockerMap, kind{})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			out = append(out, strings.TrimRight(e.Key, "\x00"))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Docker reports whether dockerd keeps its rules in nftables.
func (b *Backend) Docker() (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kernel.dockerTable()
}

// dockerTable reports whether Docker's own table is there.
func (k *kernel) dockerTable() (bool, error) {
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		err := k.askFamily(family, unix.NFT_MSG_GETTABLE, false, func(buf []byte) []byte {
			return attrName(buf, unix.NFTA_TABLE_NAME, dockerTable)
		}, func(message) {})
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, unix.ENOENT) && !lacking(err) {
			return false, err
		}
	}
	return false, nil
}
