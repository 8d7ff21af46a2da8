package publish

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

const procHeading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// procLine writes one line as the kernel does.
func procLine(local, state string, inode int) string {
	ap := netip.MustParseAddrPort(local)
	b := ap.Addr().AsSlice()
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
	}
	return fmt.Sprintf("   0: %X:%04X 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0 100 0\n",
		b, ap.Port(), state, inode)
}

func TestOwner(t *testing.T) {
	processes := map[string]string{
		"net/tcp": procHeading +
			procLine("127.0.0.1:8080", "0A", 1) +
			procLine("0.0.0.0:81", "0A", 2) +
			procLine("192.0.2.1:9000", "01", 3) +
			procLine("0.0.0.0:9000", "0A", 4) +
			procLine("192.0.2.1:9001", "01", 3) +
			procLine("192.0.2.1:9002", "06", 0) +
			procLine("192.0.2.1:9003", "0A", 99),
		"net/tcp6": procHeading +
			procLine("[::]:443", "0A", 5) +
			procLine("[::1]:444", "0A", 6) +
			procLine("[::ffff:192.0.2.1]:445", "0A", 7),
		"net/udp":  procHeading + procLine("0.0.0.0:53", "07", 8),
		"net/udp6": procHeading + procLine("[::]:54", "07", 9),
		"net/sctp/eps": " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n" +
			"ffff8881 ffff8882 2   10  28   3868      0    10 192.0.2.1 198.51.100.1 \n" +
			"ffff8883 ffff8884 2   10  29   3869      0    11 0000:0000:0000:0000:0000:0000:0000:0000 \n" +
			"ffff8885 ffff8886 0   10  30   3870      0    12 0.0.0.0 \n",
		"20/comm":   "nginx\n",
		"20/fd/0":   "->/dev/null",
		"20/fd/6":   "->socket:[1]",
		"3/comm":    "nginx: master\n",
		"3/fd/6":    "->socket:[1]",
		"100/comm":  "caddy\n",
		"100/fd/4":  "->socket:[2]",
		"100/fd/5":  "->socket:[5]",
		"100/fd/6":  "->socket:[6]",
		"100/fd/7":  "->socket:[7]",
		"101/comm":  "client\n",
		"101/fd/3":  "->socket:[3]",
		"102/comm":  "server\n",
		"102/fd/3":  "->socket:[4]",
		"103/comm":  "dnsmasq\n",
		"103/fd/3":  "->socket:[8]",
		"104/fd/3":  "->socket:[9]", // ended before its name was read
		"105/comm":  "mme\n",
		"105/fd/3":  "->socket:[10]",
		"105/fd/4":  "->socket:[11]",
		"106/comm":  "hlr\n",
		"106/fd/3":  "->socket:[12]",
		"self/fd/3": "->socket:[99]",
		"sys/fd/3":  "->socket:[99]",
	}
	proc := procfs(procDir(t, processes))
	tests := []struct {
		name  string
		proto state.Proto
		at    string
		want  string
	}{
		{"the same address, lowest pid", state.TCP, "127.0.0.1:8080", "nginx: master (pid 3)"},
		{"we want all, they have one", state.TCP, "0.0.0.0:8080", "nginx: master (pid 3)"},
		{"we want one, they have all", state.TCP, "192.0.2.9:81", "caddy (pid 100)"},
		{"another address", state.TCP, "127.0.0.2:8080", ""},
		{"another family", state.TCP, "[::1]:8080", ""},
		{"another protocol", state.UDP, "127.0.0.1:8080", ""},
		{"listener before connection", state.TCP, "0.0.0.0:9000", "server (pid 102)"},
		{"a connection only", state.TCP, "0.0.0.0:9001", "client (pid 101)"},
		{"TIME_WAIT has no process", state.TCP, "0.0.0.0:9002", ""},
		{"process not visible", state.TCP, "0.0.0.0:9003", ""},
		{"v6 all", state.TCP, "[::]:443", "caddy (pid 100)"},
		{"v6 one of all", state.TCP, "[::1]:443", "caddy (pid 100)"},
		{"v6 loopback", state.TCP, "[::1]:444", "caddy (pid 100)"},
		{"v4 taken by both-family socket", state.TCP, "0.0.0.0:443", "caddy (pid 100)"},
		{"v4 not taken by v6 address", state.TCP, "0.0.0.0:444", ""},
		{"v4 taken by mapped address", state.TCP, "0.0.0.0:445", "caddy (pid 100)"},
		{"v6 not taken by mapped address", state.TCP, "[::]:445", ""},
		{"udp", state.UDP, "0.0.0.0:53", "dnsmasq (pid 103)"},
		{"udp6, name unknown", state.UDP, "[::]:54", "a process (pid 104)"},
		{"free", state.UDP, "0.0.0.0:55", ""},
		{"sctp, we want all, they have two", state.SCTP, "0.0.0.0:3868", "mme (pid 105)"},
		{"sctp, the second address", state.SCTP, "198.51.100.1:3868", "mme (pid 105)"},
		{"sctp, another address", state.SCTP, "198.51.100.2:3868", ""},
		{"sctp, another family", state.SCTP, "[::]:3868", ""},
		{"sctp, v6 all", state.SCTP, "[2001:db8::1]:3869", "mme (pid 105)"},
		{"sctp, v4 taken by both-family socket", state.SCTP, "0.0.0.0:3869", "mme (pid 105)"},
		{"sctp, v4 all", state.SCTP, "192.0.2.1:3870", "hlr (pid 106)"},
		{"sctp, another protocol", state.TCP, "0.0.0.0:3868", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := proc.owner(t.Context(), place{tt.proto, netip.MustParseAddrPort(tt.at)}); got != tt.want {
				t.Errorf("owner %q, want %q", got, tt.want)
			}
		})
	}
}

// TestDockersProcesses: of a process of Docker's it is told for which container it has the port.
func TestDockersProcesses(t *testing.T) {
	args := func(words ...string) string { return strings.Join(words, "\x00") + "\x00" }
	const of = " of Docker's own networks"
	for _, row := range []struct{ name, comm, cmdline, want string }{
		{
			"20.10", "docker-proxy", args("/usr/sbin/docker-proxy", "-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", "7001", "-container-ip", "172.17.0.2", "-container-port", "80"),
			"docker-proxy (pid 123), which publishes it for the container 172.17.0.2:80" + of,
		},
		{
			"IPv6, and a flag behind", "docker-proxy", args("docker-proxy", "-host-ip", "::", "-container-ip", "fd00:d::2", "-container-port", "80", "-use-listen-fd"),
			"docker-proxy (pid 123), which publishes it for the container [fd00:d::2]:80" + of,
		},
		{"ended, or not to be read", "docker-proxy", "", "docker-proxy (pid 123)"},
		{"without a port", "docker-proxy", args("docker-proxy", "-container-ip", "172.17.0.2"), "docker-proxy (pid 123)"},
		{"without a value", "docker-proxy", args("docker-proxy", "-container-port", "80", "-container-ip"), "docker-proxy (pid 123)"},
		{"no address", "docker-proxy", args("docker-proxy", "-container-ip", "web; rm -rf /", "-container-port", "80"), "docker-proxy (pid 123)"},
		{"no port number", "docker-proxy", args("docker-proxy", "-container-ip", "172.17.0.2", "-container-port", "65536"), "docker-proxy (pid 123)"},
		{"the engine", "dockerd", args("dockerd", "--userland-proxy=false"), "dockerd (pid 123), most likely for a container" + of + ": see docker ps"},
		{"somebody else with the same words", "nginx", args("nginx", "-container-ip", "172.17.0.2", "-container-port", "80"), "nginx (pid 123)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			proc := procfs(procDir(t, map[string]string{
				"net/tcp": procHeading + procLine("0.0.0.0:7001", "0A", 5), "123/comm": row.comm + "\n",
				"123/cmdline": row.cmdline, "123/fd/4": "->socket:[5]",
			}))
			if got := proc.owner(t.Context(), place{state.TCP, netip.MustParseAddrPort("0.0.0.0:7001")}); got != row.want {
				t.Errorf("owner %q, want %q", got, row.want)
			}
		})
	}
}

// The real file system is asked about sockets of this very process.
func TestOwnerIsThisProcess(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s (pid %d)", comm[:len(comm)-1], os.Getpid())
	tests := []struct{ network, addr string }{
		{"tcp4", "127.0.0.1:0"},
		{"tcp6", "[::1]:0"},
		{"tcp4", "0.0.0.0:0"},
		{"udp4", "127.0.0.1:0"},
		{"udp6", "[::1]:0"},
		{"udp6", "[::]:0"},
	}
	for _, tt := range tests {
		t.Run(tt.network+" "+tt.addr, func(t *testing.T) {
			at := occupy(t, tt.network, tt.addr)
			if got := procfs("/proc").owner(t.Context(), at); got != want {
				t.Errorf("owner of %s: %q, want %q", at, got, want)
			}
		})
	}
}

// occupy plays another program that has a port.
func occupy(t *testing.T, network, addr string) place {
	t.Helper()
	if network[:3] == "tcp" {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return place{state.TCP, unmapped(l.Addr().(*net.TCPAddr).AddrPort())}
	}
	c, err := net.ListenPacket(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return place{state.UDP, unmapped(c.LocalAddr().(*net.UDPAddr).AddrPort())}
}

func FuzzParseSocket(f *testing.F) {
	f.Add(procHeading)
	f.Add(procLine("127.0.0.1:8080", "0A", 1))
	f.Add(procLine("[::1]:8080", "07", 1))
	f.Add("ffff8881 ffff8882 2   10  28   3868     0 4242 192.0.2.1 2001:db8::1")
	f.Add("0: 01: 0 0 0 0 0 0 0 0 0")
	f.Fuzz(func(t *testing.T, line string) {
		for _, s := range append(parseSocket(line), parseEndpoint(line)...) {
			if !s.local.IsValid() {
				t.Errorf("%q gives an invalid address", line)
			}
		}
	})
}

func TestParseHexAddr(t *testing.T) {
	for _, want := range []string{"127.0.0.1", "192.0.2.7", "::1", "2001:db8::1:2", "::ffff:192.0.2.7"} {
		t.Run(want, func(t *testing.T) {
			b := netip.MustParseAddr(want).AsSlice()
			for i := 0; i < len(b); i += 4 {
				binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
			}
			got, ok := parseHexAddr(hex.EncodeToString(b))
			if !ok || got.String() != want {
				t.Errorf("%s %v", got, ok)
			}
		})
	}
	for _, bad := range []string{"", "0", "zz", "0100", "010000", "0100007F0100007F"} {
		if got, ok := parseHexAddr(bad); ok {
			t.Errorf("%q gives %s", bad, got)
		}
	}
}
