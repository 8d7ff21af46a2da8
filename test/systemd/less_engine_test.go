//go:build engine

package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestLess: the settings that docs/security.md has for those who want no CAP_SYS_ADMIN do what is said there.
func TestLess(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository(t), "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```ini\n\\[Service\\]\n(.*?)```").FindSubmatch(text)
	if m == nil {
		t.Fatal("docs/security.md has no settings")
	}
	b := up(t, lab.Options{Root: lab.Trixie})
	b.install()
	b.setting(daemon, "less", string(m[1])+"SystemCallErrorNumber=")
	b.run("systemctl", "start", "drawbridge", "docker")
	status := b.run("cat", "/proc/"+b.property(daemon, "MainPID")+"/status")
	if got := b.set(field(status, "CapBnd")); got != "CAP_DAC_READ_SEARCH CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_PTRACE" {
		t.Errorf("the daemon may have %s", got)
	}
	b.network("web")
	b.serve("web", "-p", "8080:80", "--name", "web")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	b.run("ip", "link", "del", "veth"+b.do("inspect", "-f", `{{(index .NetworkSettings.Networks "web").EndpointID}}`, "web")[:11])
	b.eventually("drawbridge status says what to do", func() bool {
		said, err := b.Run(t.Context(), program, "status")
		return err != nil && strings.Contains(said, "restart the container")
	})
	b.do("restart", "--time=0", "web")
	lab.Eventually(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
}

// TestDestination: make install and uninstall go where they are told, and leave nothing behind.
func TestDestination(t *testing.T) {
	dest := t.TempDir()
	run := func(goal string) {
		t.Helper()
		cmd := exec.Command("make", "-C", repository(t), goal, "BIN="+binary(t), "DESTDIR="+dest, "PREFIX=/usr", "UNITDIR=/usr/lib/systemd/system")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v\n%s", goal, err, out)
		}
	}
	files := func() (out []string) {
		err := filepath.WalkDir(dest, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				out = append(out, strings.TrimPrefix(path, dest))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	run("install")
	want := "/usr/lib/systemd/system/drawbridge-relay.service /usr/lib/systemd/system/drawbridge-relay.socket " +
		"/usr/lib/systemd/system/drawbridge.service /usr/lib/systemd/system/drawbridge.socket /usr/sbin/drawbridge"
	if got := strings.Join(files(), " "); got != want {
		t.Errorf("installed are %s", got)
	}
	for _, unit := range []string{daemon, relay} {
		text, err := os.ReadFile(dest + "/usr/lib/systemd/system/" + unit)
		if err != nil || !strings.Contains(string(text), "\nExecStart=/usr/sbin/drawbridge ") || strings.Contains(string(text), "/usr/local") {
			t.Errorf("%s: %v\n%s", unit, err, text)
		}
	}
	run("uninstall")
	if left := files(); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// TestInterrupted: make uninstall that is interrupted while it removes files can be run again. It needs the program for that.
func TestInterrupted(t *testing.T) {
	bin := t.TempDir()
	// It ends who calls it, once it has been called as often as the file says.
	script := "#!/bin/sh\nn=$(cat \"$LEFT\"); [ \"$n\" -gt 0 ] || kill -9 $PPID; echo $((n-1)) >\"$LEFT\"; exec /bin/rm \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "rm"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for calls := range 6 {
		dest := installed(t, repository(t), "BIN="+binary(t))
		left := filepath.Join(t.TempDir(), "left")
		if err := os.WriteFile(left, []byte(strconv.Itoa(calls)), 0o600); err != nil {
			t.Fatal(err)
		}
		uninstalling := func(env ...string) error {
			cmd := exec.Command("/bin/sh", uninstall(t))
			cmd.Env = append(append(os.Environ(), "DESTDIR="+dest), env...)
			return cmd.Run()
		}
		err := uninstalling("PATH="+bin+":"+os.Getenv("PATH"), "LEFT="+left)
		there, _ := filepath.Glob(dest + units + "drawbridge*")
		if _, gone := os.Stat(dest + program); gone != nil && len(there) > 0 {
			t.Errorf("interrupted after %d calls of rm (%v): the program is gone, and %v are there", calls, err, there)
		}
		if err := uninstalling(); err != nil {
			t.Errorf("again after %d calls of rm: %v", calls, err)
		}
	}
}
