package iptables

import (
	"os"
	"path/filepath"
	"strings"
)

// HostDefault returns the variant of the iptables of a host whose root directory is seen at root: -nft, -legacy, or "" if that cannot be
// told. It is what dockerd runs, which makes DOCKER-USER there some time after our start.
func HostDefault(root string) string {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		switch name := lastLink(root, dir+"/iptables"); {
		case strings.Contains(name, "legacy"):
			return "-legacy"
		case strings.Contains(name, "nft"):
			return "-nft"
		}
	}
	return ""
}

// mostLinks is how many links are followed, fewer than the kernel would.
const mostLinks = 8

// lastLink is the name of what a path on the host leads to in the end. An absolute link there means the host's root, not ours.
func lastLink(root, path string) string {
	for range mostLinks {
		to, err := os.Readlink(filepath.Join(root, path))
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return filepath.Base(path)
}
