//go:build vm

package vm

import (
	"bytes"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

//go:embed init.sh
var initScript []byte

// modules are what the machine needs to see its files.
var modules = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay"}

// machine is one that is not started yet.
type machine struct {
	t     *testing.T
	tree  string // of the kernel's package
	share string // which it sees as /vm
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	out, err := exec.Command("./install.sh").Output()
	if err != nil {
		t.Fatalf("install.sh: %v", err)
	}
	m := &machine{t, strings.TrimSpace(string(out)), t.TempDir()}
	m.command("go", "build", "-trimpath", "-o", filepath.Join(m.share, "drawbridge"), "../../cmd/drawbridge")
	return m
}

// command runs a program here that must succeed, and returns its output.
func (m *machine) command(name string, args ...string) string {
	m.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", cmd, err, stderr.Bytes())
	}
	return string(out)
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.share, name), []byte(text), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// read returns a file that the machine has written, "" if it has not.
func (m *machine) read(name string) string {
	text, err := os.ReadFile(filepath.Join(m.share, name))
	if err != nil && !os.IsNotExist(err) {
		m.t.Error(err)
	}
	return string(text)
}

// boot starts the machine, has it run a script, and returns what that printed when it is off again.
func (m *machine) boot(script string, within time.Duration) string {
	m.t.Helper()
	m.write("script", script)
	kernels, err := filepath.Glob(filepath.Join(m.tree, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		m.t.Fatalf("kernels are %v: %v", kernels, err)
	}
	version := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	files := func(tag, path, more string) []string {
		return []string{
			"-fsdev", "local,id=" + tag + ",path=" + path + ",security_model=none,multidevs=remap" + more,
			"-device", "virtio-9p-pci,fsdev=" + tag + ",mount_tag=" + tag,
		}
	}
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "6144", "-nic", "none",
		"-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", kernels[0], "-initrd", m.initramfs(version), "-append", "console=ttyS0 quiet panic=-1 mitigations=off tree=" + m.tree,
	}
	args = append(append(args, files("root", "/", ",readonly=on")...), files("share", m.share, "")...)
	ctx := m.t.Context()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	began := time.Now()
	timer := time.AfterFunc(within, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	err = cmd.Wait()
	m.t.Logf("the machine was on for %v", time.Since(began).Round(time.Second))
	out := m.read("out")
	if code := strings.TrimSpace(m.read("code")); err != nil || code != "0" {
		m.t.Errorf("the machine ends with %v, the script with %q; it printed\n%s\nand the console shows\n%s", err, code, out, console.Bytes())
	}
	return out
}

// initramfs packs the first program and the modules that it loads.
func (m *machine) initramfs(version string) string {
	m.t.Helper()
	dir := m.t.TempDir()
	for _, name := range []string{"bin", "lib", "dev", "proc", "sys", "lower", "upper", "root"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	var order []string
	for _, module := range modules {
		for line := range strings.Lines(m.command("modprobe", "--dirname", m.tree, "--set-version", version, "--show-depends", module)) {
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != "insmod" {
				continue // built in
			}
			if name := filepath.Base(words[1]); !strings.Contains(strings.Join(order, "\n"), name) {
				order = append(order, name)
				m.command("cp", words[1], filepath.Join(dir, "lib", name))
			}
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		m.t.Fatal(err)
	}
	m.command("cp", busybox, filepath.Join(dir, "bin", "busybox"))
	for name, text := range map[string][]byte{"init": initScript, "order": []byte(strings.Join(order, "\n") + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	path := filepath.Join(m.t.TempDir(), "initramfs")
	m.command("sh", "-c", `cd "$1" && find . | cpio --quiet --create --format=newc >"$2"`, "sh", dir, path)
	return path
}

// logTests logs how each test ended in the machine.
func (m *machine) logTests(out string) {
	for line := range strings.Lines(out) {
		if strings.Contains(line, "--- ") {
			m.t.Log(strings.TrimSpace(line))
		}
	}
}
