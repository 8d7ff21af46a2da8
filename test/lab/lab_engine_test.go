//go:build engine

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// eachRoot runs a test with the machine's own files and with Debian 13's.
func eachRoot(t *testing.T, test func(*testing.T, Options)) {
	t.Helper()
	t.Run("own", func(t *testing.T) { test(t, Options{}) })
	t.Run(Trixie, func(t *testing.T) { test(t, Options{Root: Trixie}) })
}

// whole brings up everything a lab has.
func whole(t *testing.T, o Options) (*Host, *Docker) {
	t.Helper()
	began := time.Now()
	h := Up(t, o)
	if _, err := h.StartDBus(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StartFirewalld(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := h.StartDocker(t.Context(), DockerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Image(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("whole lab up in %v", time.Since(began))
	return h, d
}

func addClient(t *testing.T, h *Host, name string, o ClientOptions) *Client {
	t.Helper()
	c, err := h.AddClient(t.Context(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDockersOwnNetworkWorksInTheLab(t *testing.T) {
	eachRoot(t, func(t *testing.T, o Options) {
		for _, variant := range []string{"nft", "legacy"} {
			t.Run(variant, func(t *testing.T) {
				o.IPTables = variant
				h, d := whole(t, o)
				version, err := h.Run(t.Context(), "iptables", "--version")
				if err != nil {
					t.Fatal(err)
				}
				if want := map[string]string{"nft": "nf_tables", "legacy": "legacy"}[variant]; !strings.Contains(version, want) {
					t.Fatalf("iptables in the lab is %q, want %s", version, want)
				}
				checkPublished(t, h, d)
				checkOutwards(t, h, d)
				checkWithoutNetwork(t, d)
			})
		}
	})
}

// checkPublished is what a user of docker run -p relies on.
func checkPublished(t *testing.T, h *Host, d *Docker) {
	t.Helper()
	alice := addClient(t, h, "alice", ClientOptions{})
	bob := addClient(t, h, "bob", ClientOptions{})
	carol := addClient(t, h, "carol", ClientOptions{Uplink: "ext1"})
	options := []string{"--name", "web", "-p", "8080:80", "-p", "8080:80/udp"}
	web, err := d.Serve(t.Context(), options, "tcp", ":80", ":81")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Client{alice, bob, carol} {
		host := c.Host.Addr4().String()
		reply := Reaches(t, c, "tcp", host+":8080")
		if reply.Peer.Addr() != c.Addr4() {
			t.Errorf("the container sees %v, want %s's own address %v", reply.Peer, c.Name, c.Addr4())
		}
		Refused(t, c, "tcp", host+":8081")
		Pings(t, c, c.Host.Addr4())
		Pings(t, c, c.Host.Addr6())
	}
	addrs, err := web.Addrs(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	Reaches(t, h, "tcp", netip.AddrPortFrom(addrs[0], 81).String())
	Reaches(t, web, "tcp", "127.0.0.1:81")
	Refused(t, web, "udp", "127.0.0.1:80")
}

// checkOutwards has a container call an outside machine, which sees the host's address.
func checkOutwards(t *testing.T, h *Host, d *Docker) {
	t.Helper()
	server := addClient(t, h, "server", ClientOptions{})
	for _, network := range []string{"tcp", "udp"} {
		if _, err := server.Serve(t.Context(), network, ":7"); err != nil {
			t.Fatal(err)
		}
		reply := Reaches(t, d.Container("web"), network, netip.AddrPortFrom(server.Addr4(), 7).String())
		if reply.Server != "server" || reply.Peer.Addr() != server.Host.Addr4() {
			t.Errorf("%s: got %v from %s, want the host's address %v from server", network, reply.Peer, reply.Server, server.Host.Addr4())
		}
	}
	Pings(t, d.Container("web"), server.Addr4())
	NotPings(t, d.Container("web"), netip.MustParseAddr("198.51.100.250"))
}

func checkWithoutNetwork(t *testing.T, d *Docker) {
	t.Helper()
	out, err := d.Run(t.Context(), "run", "--rm", "--network", "none", imageName, "ip", "-o", "link")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "eth0") {
		t.Errorf("a container without network has links\n%s", out)
	}
}

func TestDockerdRestartsAndCrashes(t *testing.T) { eachRoot(t, dockerdRestartsAndCrashes) }

func dockerdRestartsAndCrashes(t *testing.T, o Options) {
	h := Up(t, o)
	d, err := h.StartDocker(t.Context(), DockerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Serve(t.Context(), []string{"--name", "web", "--restart", "always"}, "tcp", ":80"); err != nil {
		t.Fatal(err)
	}
	kill := func(ctx context.Context) error { return errors.Join(d.Kill(), d.Start(ctx)) }
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"docker restart", func(ctx context.Context) error { _, err := d.Run(ctx, "restart", "-t", "0", "web"); return err }},
		{"restart in good order", d.Restart},
		{"SIGKILL and start", kill},
		{"SIGKILL and start again", kill},
	}
	for _, step := range steps {
		if err := step.do(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		var addrs []netip.Addr
		eventually(t, "the container runs after "+step.name, func() bool {
			var err error
			addrs, err = d.Container("web").Addrs(t.Context(), "bridge")
			return err == nil
		})
		Eventually(t, h, "tcp", netip.AddrPortFrom(addrs[0], 80).String())
	}
}

func TestFirewalldIsRealAndItsOwn(t *testing.T) { eachRoot(t, firewalldIsRealAndItsOwn) }

func firewalldIsRealAndItsOwn(t *testing.T, o Options) {
	h := Up(t, o)
	if _, err := h.StartDBus(t.Context()); err != nil {
		t.Fatal(err)
	}
	alice := addClient(t, h, "alice", ClientOptions{})
	if _, err := h.Serve(t.Context(), "tcp", ":7000"); err != nil {
		t.Fatal(err)
	}
	addrs := []string{"198.51.100.1:7000", "[2001:db8:1::1]:7000"}
	if _, err := h.StartFirewalld(t.Context(), "LogDenied=all"); err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		Refused(t, alice, "tcp", addr)
		Refused(t, alice, "udp", addr)
	}
	for _, args := range [][]string{{"--permanent", "--add-port=7000/tcp"}, {"--reload"}} {
		if _, err := h.Run(t.Context(), "firewall-cmd", args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, addr := range addrs {
		Reaches(t, alice, "tcp", addr)
	}
	if out, err := h.Run(t.Context(), "firewall-cmd", "--get-log-denied"); err != nil || out != "all\n" {
		t.Errorf("LogDenied is %q, %v; want all", out, err)
	}
	if _, err := os.Stat("/etc/firewalld/zones/public.xml"); err == nil {
		t.Error("the machine's own firewalld was configured")
	}
	if err := h.StopFirewalld(); err != nil {
		t.Fatal(err)
	}
	if rules, err := h.NFTables(t.Context()); err != nil || rules != "" {
		t.Errorf("after firewalld stopped there are rules: %v\n%s", err, rules)
	}
}

// machine is what a lab could leave behind, in words.
func machine(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, argv := range [][]string{
		{"ip", "-o", "link"},
		{"ip", "netns"},
		{"iptables-save"},
		{"nft", "list", "ruleset"},
		{"readlink", "/etc/alternatives/iptables", "/etc/alternatives/ip6tables"},
		{"ls", "/opt", "/etc/firewalld", "/run"},
		{"sh", "-c", "ls -d /var/lib/docker /var/lib/containerd; true"},
	} {
		text, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
		fmt.Fprintf(&out, "%v\n%s", argv, text)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return withoutCounters(out.String()) + string(mounts)
}

// namespaces are the lab's, as /proc names them. They are held until the test ends: the kernel gives the number of one that is gone to the
// next that anybody makes.
func namespaces(t *testing.T, h *Host) []string {
	t.Helper()
	var all []string
	for _, kind := range []string{"net", "mnt", "pid"} {
		path := fmt.Sprintf("/proc/%d/ns/%s", h.init, kind)
		held, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { held.Close() })
		name, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, name)
	}
	return all
}

// inside lists the processes that are in one of the namespaces.
func inside(t *testing.T, spaces []string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, l := range links {
		name, err := os.Readlink(l)
		for _, space := range spaces {
			if err == nil && name == space {
				found = append(found, l)
			}
		}
	}
	return found
}

func cgroups(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, dirs...)
	}
	return found
}

func TestCloseLeavesNothing(t *testing.T) { eachRoot(t, closeLeavesNothing) }

func closeLeavesNothing(t *testing.T, o Options) {
	before := machine(t)
	h, d := whole(t, o)
	addClient(t, h, "alice", ClientOptions{})
	if _, err := d.Serve(t.Context(), []string{"-p", "8080:80"}, "tcp", ":80"); err != nil {
		t.Fatal(err)
	}
	spaces := namespaces(t, h)
	// Were these not found now, finding none later would prove nothing.
	if len(inside(t, spaces)) == 0 || len(cgroups(t, h.name)) == 0 {
		t.Fatalf("a running lab has %d processes and cgroups %v", len(inside(t, spaces)), cgroups(t, h.name))
	}
	for range 2 {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	checkGone(t, h, spaces)
	// What others on the machine mount or make for a moment goes by itself, and what the lab has left stays.
	var diff string
	if !holds(func() bool { diff = cmp.Diff(before, machine(t)); return diff == "" }) {
		t.Errorf("the machine is not as before (-before +after):\n%s", diff)
	}
	if _, err := h.Run(t.Context(), "true"); err == nil {
		t.Error("a command ran in a closed lab")
	}
}

func checkGone(t *testing.T, h *Host, spaces []string) {
	t.Helper()
	// Those that entered the lab from outside are in no process namespace of its: they end a moment after what they have run there.
	var found []string
	if !holds(func() bool { found = inside(t, spaces); return len(found) == 0 }) {
		t.Errorf("processes are left: %v", found)
	}
	if found := cgroups(t, h.name); len(found) != 0 {
		t.Errorf("cgroups are left: %v", found)
	}
	if _, err := os.Stat(h.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the scratch directory is left: %v", err)
	}
}

// TestLabsSideBySide makes labs while others fork: a program that is being written must not be run.
func TestLabsSideBySide(t *testing.T) {
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for range 4 {
				h, err := New(t.Context(), Options{})
				if err != nil {
					t.Error(err)
					return
				}
				for range 10 {
					if _, err := h.Run(t.Context(), "true"); err != nil {
						t.Error(err)
					}
				}
				if err := h.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// TestLabEndsWithItsMaker: a program that dies cannot close its lab. Here a second copy of the test
// binary makes one and is killed.
func TestLabEndsWithItsMaker(t *testing.T) {
	if dir := os.Getenv("LAB_MAKER_DIR"); dir != "" {
		h := Up(t, Options{Dir: dir})
		d, err := h.StartDocker(t.Context(), DockerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Serve(t.Context(), nil, "tcp", ":80"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "up"), fmt.Append(nil, h.init), 0o644); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	dir := t.TempDir()
	maker := exec.Command(os.Args[0], "-test.run=^TestLabEndsWithItsMaker$")
	maker.Env = append(os.Environ(), "LAB_MAKER_DIR="+dir)
	if err := maker.Start(); err != nil {
		t.Fatal(err)
	}
	h := &Host{}
	eventually(t, "the second lab is up", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "up"))
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(text), &h.init)
		return err == nil
	})
	labs, err := filepath.Glob(filepath.Join(dir, "drawbridge-lab-*"))
	if err != nil || len(labs) != 1 {
		t.Fatalf("labs in %s: %v, %v; want one", dir, labs, err)
	}
	h.dir, h.name = labs[0], filepath.Base(labs[0])
	spaces := namespaces(t, h)
	if err := maker.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = maker.Wait()
	eventually(t, "the scratch directory is gone", func() bool {
		_, err := os.Stat(h.dir)
		return errors.Is(err, os.ErrNotExist)
	})
	checkGone(t, h, spaces)
}

// patience is longer than everything takes that a lab has, one after the other, on a machine that others keep busy.
const patience = 2 * time.Minute

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !holds(ok) {
		t.Fatalf("after %v it is still not so that %s", patience, what)
	}
}

// holds waits until something is so, and reports whether it came to that.
func holds(ok func() bool) bool {
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func TestCommandsBehaveLikeLocalOnes(t *testing.T) { eachRoot(t, commandsBehaveLikeLocalOnes) }

func commandsBehaveLikeLocalOnes(t *testing.T, o Options) {
	h := Up(t, o)
	rows := []struct {
		name string
		argv []string
		code int
		out  string
	}{
		{"success", []string{"echo", "hi"}, 0, "hi\n"},
		{"exit code", []string{"sh", "-c", "exit 7"}, 7, ""},
		{"ended by a signal", []string{"sh", "-c", "kill -9 $$"}, 137, ""},
		{"no such command", []string{"no-such-command"}, 1, ""},
		{"hostname is the lab's", []string{"hostname"}, 0, "lab\n"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cmd := h.Command(t.Context(), row.argv[0], row.argv[1:]...)
			out, err := cmd.Output()
			if string(out) != row.out || cmd.ProcessState.ExitCode() != row.code {
				t.Errorf("got %q and code %d (%v), want %q and %d", out, cmd.ProcessState.ExitCode(), err, row.out, row.code)
			}
		})
	}
	_, err := h.Run(t.Context(), "sh", "-c", "echo oh no >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "oh no") || !strings.Contains(err.Error(), "sh -c") {
		t.Errorf("error %v has not both the command and its words", err)
	}
}

func TestProcessStopAndKill(t *testing.T) {
	h := Up(t, Options{})
	trap := []string{"sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"}
	up := func(p *Process) func(context.Context) error {
		return func(context.Context) error {
			if !strings.Contains(p.Log(), "up\n") {
				return errors.New("not up")
			}
			return nil
		}
	}
	for _, row := range []struct {
		name string
		end  func(*Process) error
		log  string
	}{
		{"stop lets it finish", (*Process).Stop, "up\nbye\n"},
		{"kill does not", (*Process).Kill, "up\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, err := h.Start(strings.Fields(row.name)[0], trap, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.await(t.Context(), up(p)); err != nil {
				t.Fatal(err)
			}
			if err := row.end(p); err != nil {
				t.Fatal(err)
			}
			if p.Log() != row.log {
				t.Errorf("log is %q, want %q", p.Log(), row.log)
			}
			if err := syscall.Kill(p.Pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("process %d is still there: %v", p.Pid, err)
			}
		})
	}
	if _, err := h.Start("missing", []string{"/no/such/daemon"}, nil); err == nil || !strings.Contains(err.Error(), "/no/such/daemon") {
		t.Errorf("starting a missing daemon: %v, want its name", err)
	}
}

func TestObservationIsStableAndSeesChanges(t *testing.T) {
	eachRoot(t, observationIsStableAndSeesChanges)
}

func observationIsStableAndSeesChanges(t *testing.T, o Options) {
	h := Up(t, o)
	addClient(t, h, "alice", ClientOptions{})
	see := func() (all struct {
		Rules          string
		Sysctls, Links map[string]string
	},
	) {
		var errs [3]error
		all.Rules, errs[0] = h.Rules(t.Context())
		all.Sysctls, errs[1] = h.Sysctls(t.Context())
		all.Links, errs[2] = h.Links(t.Context())
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := see()
	if diff := cmp.Diff(before, see()); diff != "" {
		t.Errorf("two looks differ:\n%s", diff)
	}
	for _, command := range []string{
		"iptables -A INPUT -p tcp --dport 7 -j DROP", "ip6tables -P FORWARD DROP",
		"sysctl -w net.ipv4.conf.ext0.forwarding=1", "ip link set ext0 alias marked",
	} {
		argv := strings.Fields(command)
		if _, err := h.Run(t.Context(), argv[0], argv[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	after := see()
	for _, line := range []string{"-A INPUT -p tcp -m tcp --dport 7 -j DROP\n", ":FORWARD DROP\n"} {
		if !strings.Contains(after.Rules, line) {
			t.Errorf("rules lack %q:\n%s", line, after.Rules)
		}
	}
	const key = "net.ipv4.conf.ext0.forwarding"
	if before.Sysctls[key] != "0" || after.Sysctls[key] != "1" {
		t.Errorf("%s went from %q to %q, want 0 to 1", key, before.Sysctls[key], after.Sysctls[key])
	}
	if want := `veth up mtu 1500 group default alias "marked" 198.51.100.1/24 2001:db8:1::1/64`; after.Links["ext0"] != want {
		t.Errorf("ext0 is %q, want %q", after.Links["ext0"], want)
	}
}
