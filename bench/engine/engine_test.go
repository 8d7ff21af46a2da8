package engine

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// fake answers as the engine would and keeps what it was asked.
func fake(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := http.Server{Handler: answer}
	go s.Serve(l)
	c := Dial(socket)
	t.Cleanup(func() { c.Close(); s.Close() })
	return c
}

func TestStartContainer(t *testing.T) {
	var asked []string
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.String()+" "+string(body))
		io.WriteString(w, `{"State":{"Pid":42},"NetworkSettings":{"Networks":{"busy":{"IPAddress":"10.0.0.2"}}}}`)
	})
	pid, err := c.StartContainer(context.Background(), "web", "busy", "image", []string{"sleep"}, []Port{{"0.0.0.0", 8080, 80, "tcp"}})
	if err != nil || pid != 42 {
		t.Errorf("process %d, %v", pid, err)
	}
	want := `POST /v1.41/containers/create?name=web {"Cmd":["sleep"],"ExposedPorts":{"80/tcp":{}},"HostConfig":{"NetworkMode":"busy",` +
		`"PortBindings":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}},"Image":"image"}`
	if len(asked) != 3 || asked[0] != want || !strings.HasPrefix(asked[1], "POST /v1.41/containers/web/start ") {
		t.Errorf("asked %q", asked)
	}
	if addr, err := c.Address(context.Background(), "web", "busy"); err != nil || addr.String() != "10.0.0.2" {
		t.Errorf("address %v, %v", addr, err)
	}
}

func TestErrorsSayWhatTheEngineSaid(t *testing.T) {
	c := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"message":"it is there already"}`)
	})
	err := c.CreateNetwork(context.Background(), "n", "bridge", "default")
	if err == nil || !strings.Contains(err.Error(), "409") || !strings.Contains(err.Error(), "it is there already") {
		t.Errorf("error %v", err)
	}
}
