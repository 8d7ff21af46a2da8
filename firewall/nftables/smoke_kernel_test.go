//go:build kernel

package nftables

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSmoke(t *testing.T) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	k, err := newKernel()
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	b := newBackend(k, nil, nil)
	if err := b.Usable(); err != nil {
		t.Fatal("usable:", err)
	}
	gen, err := k.generation()
	t.Log(gen, err)
	r := Render(sample(), true)
	if err := b.reread(gen); err != nil {
		t.Fatal(err)
	}
	if err := b.apply(r); err != nil {
		t.Fatal(err)
	}
	gen, _ = k.generation()
	t.Log(gen, b.gen)
	have, err := k.read()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range difference(have, r) {
		t.Error("still: ", e)
	}
	os.WriteFile("/tmp/ours.nft", []byte(r.Text()), 0o644)
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	os.WriteFile("/tmp/listed.nft", out, 0o644)
	out, err = exec.Command("sh", "-c", "nft flush ruleset; nft -f /tmp/ours.nft && nft list ruleset >/tmp/reloaded.nft; diff -u /tmp/listed.nft /tmp/reloaded.nft").CombinedOutput()
	t.Log(err, string(out))
}
