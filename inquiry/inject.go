package inquiry

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// injector is a program of the kernel's that gives the bit of the mark to a packet and has it arrive by a link. It is attached to
// nothing: who has its file runs it (BPF_PROG_TEST_RUN), once for each packet. So no link of ours, and no filter at anybody's, is needed.
type injector struct{ program int }

// instruction is one of BPF's (struct bpf_insn).
type instruction struct {
	code      uint8
	registers uint8 // the destination in the low half, the source in the high one
	offset    int16
	immediate int32
}

// What the program is made of (linux/bpf.h). Register 1 has the packet's context at the beginning, 0 what the program returns.
const (
	moveNumber   = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	storeWord    = unix.BPF_STX | unix.BPF_MEM | unix.BPF_W
	loadWord     = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	callHelper   = unix.BPF_JMP | unix.BPF_CALL
	exit         = unix.BPF_JMP | unix.BPF_EXIT
	contextMark  = 8  // in struct __sk_buff
	contextLink  = 48 // cb[0]: what a caller tells a program
	contextSize  = 192
	cloneToLink  = 13 // bpf_clone_redirect
	asArriving   = 1  // BPF_F_INGRESS
	packetMark   = 1  // registers
	linkRegister = 2
	flagRegister = 3
)

// errDropped says that the kernel had no room for a packet.
var errDropped = errors.New("a packet of ours was dropped where it should arrive")

// newInjector loads the program. It takes CAP_BPF and CAP_NET_ADMIN.
func newInjector() (*injector, error) {
	code := []instruction{
		{code: moveNumber, registers: linkRegister, immediate: int32(state.MarkInquiry)},
		{code: storeWord, registers: packetMark | linkRegister<<4, offset: contextMark},
		{code: loadWord, registers: linkRegister | packetMark<<4, offset: contextLink},
		{code: moveNumber, registers: flagRegister, immediate: asArriving},
		{code: callHelper, immediate: cloneToLink},
		{code: exit},
	}
	license := []byte("Dual MIT/GPL\x00")
	load := struct {
		kind, count   uint32
		code, license unsafe.Pointer
		logLevel      uint32
		logSize       uint32
		log           unsafe.Pointer
		version       uint32
		flags         uint32
		name          [16]byte
	}{kind: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(code)), code: unsafe.Pointer(&code[0]), license: unsafe.Pointer(&license[0])}
	copy(load.name[:], "drawbridge_ask")
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if err != nil {
		return nil, explain("loading a program of BPF", err)
	}
	return &injector{fd}, nil
}

func (i *injector) close() error { return unix.Close(i.program) }

// arrive has a packet arrive by the link with the index. It has been through the rules, mostly, when this returns.
func (i *injector) arrive(frame []byte, link int) error {
	var context [contextSize]byte
	*(*uint32)(unsafe.Pointer(&context[contextLink])) = uint32(link)
	run := struct {
		program, retval, dataIn, dataOut uint32
		in, out                          unsafe.Pointer
		repeat, duration                 uint32
		contextIn, contextOut            uint32
		context, contextBack             unsafe.Pointer
	}{program: uint32(i.program), dataIn: uint32(len(frame)), in: unsafe.Pointer(&frame[0]), contextIn: contextSize, context: unsafe.Pointer(&context)}
	_, err := bpf(unix.BPF_PROG_TEST_RUN, unsafe.Pointer(&run), unsafe.Sizeof(run))
	runtime.KeepAlive(frame)
	if err != nil {
		return explain("running a program of BPF", err)
	}
	if failed := int32(run.retval); failed != 0 {
		if failed < 0 {
			return fmt.Errorf("having a packet arrive by link %d: %w", link, syscall.Errno(-failed))
		}
		return fmt.Errorf("%w by link %d", errDropped, link)
	}
	return nil
}

// bpf is tried again where a signal came between, as those do by which Go's own scheduler interrupts: the kernel says EAGAIN of a program
// that it was about to verify.
func bpf(command int, attributes unsafe.Pointer, size uintptr) (int, error) {
	const attempts = 50
	var errno syscall.Errno
	for range attempts {
		var fd uintptr
		if fd, _, errno = unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attributes), size); errno == 0 {
			return int(fd), nil
		}
		if errno != unix.EAGAIN && errno != unix.EINTR {
			break
		}
	}
	return 0, os.NewSyscallError("bpf", errno)
}
