package inquiry

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// link is the one by which a client came.
type link struct {
	name     string
	hardware net.HardwareAddr // nil where it has none of Ethernet's
}

// sizeOfRequest is that of struct ifreq.
const sizeOfRequest = 40

// linkOf asks for no more than is needed: it is done for each client.
func linkOf(index int) (link, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return link{}, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("")
	if err != nil {
		return link{}, err
	}
	request.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, request); err != nil {
		return link{}, fmt.Errorf("looking for link %d: %w", index, os.NewSyscallError("ioctl", err))
	}
	out := link{name: request.Name()}
	// The answer is a family and an address, of which unix.Ifreq knows the family alone.
	var raw [sizeOfRequest]byte
	copy(raw[:], out.name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFHWADDR, uintptr(unsafe.Pointer(&raw))); errno != 0 {
		return link{}, fmt.Errorf("looking for the address of link %s: %w", out.name, errno)
	}
	answer := raw[unix.IFNAMSIZ:]
	if kind := binary.NativeEndian.Uint16(answer); kind == unix.ARPHRD_ETHER {
		out.hardware = net.HardwareAddr(answer[2:8:8])
	}
	return out, nil
}

// forwards reports whether the host forwards what comes by the link. What cannot be read is taken for so.
func (d *Desk) forwards(name string, v6 bool) bool {
	path := filepath.Join(d.proc, "sys/net/ipv4/conf", name, "forwarding")
	if v6 { // where the setting of a link says something else
		path = filepath.Join(d.proc, "sys/net/ipv6/conf/all/forwarding")
	}
	value, err := os.ReadFile(path)
	return err != nil || !bytes.Equal(bytes.TrimSpace(value), []byte("0"))
}
