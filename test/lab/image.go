package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	imageName = "lab:latest"
	busybox   = "/bin/busybox"
)

// Image is the name of the lab's image, which is imported at the first call:
// busybox, its commands as links, and the helper program as /probe.
func (d *Docker) Image(ctx context.Context) (string, error) {
	if d.imported {
		return imageName, nil
	}
	began := time.Now()
	files, err := imageFiles(d.host.Probe())
	if err != nil {
		return "", err
	}
	cmd := d.Command(ctx, "import", "--change", `CMD ["/bin/sh"]`, "-", imageName)
	cmd.Stdin = bytes.NewReader(files)
	if _, err := run(cmd, []string{"docker", "import", imageName}); err != nil {
		return "", err
	}
	d.imported = true
	d.host.logf("image ready in %v", time.Since(began))
	return imageName, nil
}

// imageFiles is a tar archive of the image's file system.
func imageFiles(probe string) ([]byte, error) {
	program, err := os.ReadFile(probe)
	if err != nil {
		return nil, err
	}
	shell, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("the image needs the package busybox-static: %w", err)
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("listing busybox's commands: %w", err)
	}
	return archive(program, shell, strings.Fields(string(list)))
}

func archive(program, shell []byte, links []string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	entries := []struct {
		head tar.Header
		body []byte
	}{
		{tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil},
		{tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/:/bin/sh\n")},
		{tar.Header{Name: "bin/busybox", Mode: 0o755}, shell},
		{tar.Header{Name: "probe", Mode: 0o755}, program},
	}
	for _, e := range entries {
		e.head.Size = int64(len(e.body))
		if err := w.WriteHeader(&e.head); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, err
		}
	}
	for _, name := range links {
		if name == "busybox" {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}
